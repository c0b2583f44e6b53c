//! FKD's soft labels.

use crate::source::Source;
use diver_loaders::source::fkd;
use diver_loaders::{CancelToken, Error};
use diver_python::errors::to_python;
use diver_python::tensor::Tensor;
use diver_python::wait::{self, AtExit};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// A tree of soft labels and the images that they are of.
#[pyclass(frozen, module = "diver._engine")]
pub struct SoftLabels {
    labels: Arc<fkd::SoftLabels>,
    images: Arc<dyn diver_loaders::Source>,
}

#[pymethods]
impl SoftLabels {
    #[new]
    fn new(py: Python<'_>, tree: PathBuf, images: &Source) -> PyResult<Self> {
        let images = Arc::clone(&images.0);
        let of = Arc::clone(&images);
        let open = move || fkd::SoftLabels::open(&tree, &*of);
        let labels = wait::on_thread(py, "diver-open", AtExit::Abandon, &CancelToken::new(), open)?;
        let labels = labels.map_err(|error| to_python(py, &error))?;
        Ok(Self { labels: Arc::new(labels), images })
    }

    #[getter]
    fn epochs(&self) -> usize {
        self.labels.epochs()
    }

    #[getter]
    fn batches(&self) -> usize {
        self.labels.batches()
    }

    /// Images `[B, 3, size, size]`, logits `[B, classes]` and the images' indices of one batch.
    fn views(
        &self,
        py: Python<'_>,
        epoch: usize,
        batch: usize,
        size: usize,
    ) -> PyResult<(Tensor, Tensor, Vec<usize>)> {
        let (labels, images) = (Arc::clone(&self.labels), Arc::clone(&self.images));
        let make = move || -> Result<_, Error> {
            let views = labels.views(epoch, batch)?;
            let pixels = views.pixels(&*images, size, &images.info().normalize)?;
            Ok((views, pixels))
        };
        let made = wait::on_thread(py, "diver-views", AtExit::Abandon, &CancelToken::new(), make)?;
        let (views, pixels) = made.map_err(|error| to_python(py, &error))?;
        let (rows, side) = (views.len() as i64, size as i64);
        let logits = Tensor::from_vec(views.logits().to_vec(), vec![rows, views.classes() as i64]);
        Ok((Tensor::from_vec(pixels, vec![rows, 3, side, side]), logits, views.indices().to_vec()))
    }
}

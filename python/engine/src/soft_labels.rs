//! FKD's soft labels.

use crate::source::Source;
use diver_loaders::labels::fkd::{self, Views};
use diver_loaders::{CancelToken, Error};
use diver_python::errors::{Class, to_python};
use diver_python::tensor::Tensor;
use diver_python::wait::{self, AtExit, Task};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A tree of soft labels and the images that they are of.
#[pyclass(frozen, module = "diver._engine")]
pub struct SoftLabels {
    labels: Arc<fkd::SoftLabels>,
    images: Arc<dyn diver_loaders::Source>,
}

#[pymethods]
impl SoftLabels {
    #[new]
    fn new(py: Python<'_>, tree: PathBuf, images: &Source, teacher_size: usize) -> PyResult<Self> {
        let images = Arc::clone(&images.0);
        let of = Arc::clone(&images);
        let open = move || fkd::SoftLabels::open(&tree, &*of)?.with_teacher_side(teacher_size);
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

    /// Begins to make one batch.
    fn make(&self, py: Python<'_>, epoch: usize, batch: usize, size: usize) -> PyResult<Making> {
        let (labels, images) = (Arc::clone(&self.labels), Arc::clone(&self.images));
        let cancel = CancelToken::new();
        let cancelled = cancel.clone();
        let make = move || {
            let views = labels.views(epoch, batch)?;
            let pixels = views.pixels(&*images, size, &images.info().normalize, &cancelled)?;
            Ok(Made { views, pixels, size })
        };
        let task = Task::start(py, "diver-views", AtExit::Abandon, cancel, make)?;
        Ok(Making(Mutex::new(Some(task))))
    }
}

struct Made {
    views: Views,
    pixels: Vec<f32>,
    size: usize,
}

/// A batch in the making, on a thread of its own. Dropped, it is not made any further.
#[pyclass(frozen, module = "diver._engine")]
pub struct Making(Mutex<Option<Task<Result<Made, Error>>>>);

#[pymethods]
impl Making {
    /// Waits for images `[B, 3, size, size]`, logits `[B, classes]` and the images' indices, once.
    fn result(&self, py: Python<'_>) -> PyResult<(Tensor, Tensor, Vec<usize>)> {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = task.ok_or_else(|| Class::Internal.error(py, "these views were taken already"))?;
        let Made { views, pixels, size } = task.result(py)?.map_err(|error| to_python(py, &error))?;
        let (rows, side) = (views.len() as i64, size as i64);
        let logits = Tensor::from_vec(views.logits().to_vec(), vec![rows, views.classes() as i64]);
        Ok((Tensor::from_vec(pixels, vec![rows, 3, side, side]), logits, views.indices().to_vec()))
    }
}

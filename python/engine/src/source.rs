//! Distilled datasets.

use diver_loaders::options::from_json;
use diver_loaders::source::{Concat, Joined, Subset};
use diver_loaders::{CancelToken, Error, Label, LabelKind, OpenOptions, StoredPixels};
use diver_python::errors::{Class, to_python};
use diver_python::tensor::Tensor;
use diver_python::wait::{self, AtExit};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A distilled dataset on disk.
#[pyclass(frozen, module = "diver._engine")]
pub struct Source(pub Arc<dyn diver_loaders::Source>);

#[pymethods]
impl Source {
    /// What the dataset is, as the JSON object of `diver inspect --json`.
    fn info(&self, py: Python<'_>) -> PyResult<String> {
        serde_json::to_string(self.0.info()).map_err(|error| Class::Internal.error(py, error.to_string()))
    }

    /// The file or folder.
    #[getter]
    fn path(&self) -> &Path {
        &self.0.info().path
    }

    fn __len__(&self) -> usize {
        self.0.info().num_samples
    }

    /// Sample `index`: its values as stored, little-endian, planar; whether they are bytes; its class; its scores, and
    /// whether these are logits; its digest.
    #[allow(clippy::type_complexity)] // A tuple that Python takes apart at once.
    fn sample<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, bool, usize, Option<Vec<f32>>, bool, Bound<'py, PyBytes>)> {
        let sample = py.detach(|| self.0.sample(index)).map_err(|error| to_python(py, &error))?;
        let digest = PyBytes::new(py, sample.digest().as_bytes());
        let class = sample.label.class();
        let (pixels, bytes) = match sample.pixels {
            StoredPixels::U8(values) => (PyBytes::new(py, &values), true),
            StoredPixels::F32(values) => {
                let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (PyBytes::new(py, &raw), false)
            }
        };
        let scores = sample.label.scores().map(<[f32]>::to_vec);
        let are_logits = sample.label.kind() == LabelKind::Logits;
        Ok((pixels, bytes, class, scores, are_logits, digest))
    }

    /// Some samples as a training gets them: normalised images `[B, C, H, W]`, their classes, and where labels are soft
    /// the targets `[B, classes]`.
    fn items(&self, py: Python<'_>, indices: Vec<usize>) -> PyResult<(Tensor, Vec<usize>, Option<Tensor>)> {
        let set = Arc::clone(&self.0);
        let info = set.info();
        let rows = indices.len() as i64;
        let read = || -> Result<(Vec<f32>, Vec<Label>), Error> {
            let (mut images, mut labels) = (Vec::new(), Vec::with_capacity(indices.len()));
            for index in &indices {
                let sample = set.sample(*index)?;
                labels.push(sample.label.clone());
                images.extend(sample.into_normalized(&set.value_space(*index), &info.normalize));
            }
            Ok((images, labels))
        };
        let (images, labels) = py.detach(read).map_err(|error| to_python(py, &error))?;
        let [channels, height, width] = info.shape.map(|side| side as i64);
        let images = Tensor::from_vec(images, vec![rows, channels, height, width]);
        let classes = labels.iter().map(Label::class).collect();
        let targets = (info.labels != LabelKind::Hard).then(|| {
            let mut targets = Vec::with_capacity(labels.len() * info.num_classes);
            labels.iter().for_each(|label| targets.extend(label.target(info.num_classes, 1.0)));
            Tensor::from_vec(targets, vec![rows, info.num_classes as i64])
        });
        Ok((images, classes, targets))
    }
}

/// The samples of `sources`, one source after the other; with `indices`, those at these.
#[pyfunction]
#[pyo3(signature = (sources, indices=None))]
pub fn subset(
    py: Python<'_>,
    sources: Vec<PyRef<'_, Source>>,
    indices: Option<Vec<usize>>,
) -> PyResult<Source> {
    let subset = || -> Result<Source, Error> {
        let parts: Vec<Arc<dyn diver_loaders::Source>> =
            sources.iter().map(|source| Arc::clone(&source.0)).collect();
        let whole: Arc<dyn diver_loaders::Source> = match &parts[..] {
            [only] => Arc::clone(only),
            _ => Arc::new(Joined::of(parts.into_iter().map(|part| Box::new(part) as _).collect())?),
        };
        Ok(Source(match indices {
            None => whole,
            Some(indices) => Arc::new(Subset::new(Box::new(whole), indices)?),
        }))
    };
    subset().map_err(|error| to_python(py, &error))
}

/// Several sets as one, with a weight for each, or none; `classes` are the labels in the whole of each set's classes, or
/// none to match them by name.
#[pyfunction]
#[pyo3(signature = (sources, weights=None, classes=None))]
pub fn concat(
    py: Python<'_>,
    sources: Vec<PyRef<'_, Source>>,
    weights: Option<Vec<f64>>,
    classes: Option<Vec<Vec<usize>>>,
) -> PyResult<Source> {
    let concat = || -> Result<Source, Error> {
        let sets = sources.iter().map(|source| Box::new(Arc::clone(&source.0)) as _).collect();
        let whole = match classes {
            Some(classes) => Concat::with_classes(sets, classes)?,
            None => Concat::new(sets)?,
        };
        Ok(Source(Arc::new(match weights {
            Some(weights) => whole.weights(&weights)?,
            None => whole,
        })))
    };
    concat().map_err(|error| to_python(py, &error))
}

/// Opens the dataset at `path`, or the one that `content` would be as a safetensors file. `options` is the JSON object of
/// [`OpenOptions`].
#[pyfunction]
#[pyo3(signature = (path, options, content=None))]
pub fn open(
    py: Python<'_>,
    path: PathBuf,
    options: &str,
    content: Option<PyBackedBytes>,
) -> PyResult<Source> {
    let options: OpenOptions = from_json(options).map_err(|error| to_python(py, &error))?;
    let open = move || match content {
        Some(content) => options.open_bytes(&content),
        None => options.open(&path),
    };
    let source = wait::on_thread(py, "diver-open", AtExit::Abandon, &CancelToken::new(), open)?;
    source.map(|source| Source(source.into())).map_err(|error| to_python(py, &error))
}

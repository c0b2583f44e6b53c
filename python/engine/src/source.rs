//! Distilled datasets.

use diver_loaders::{CancelToken, ClassMap, Error, Normalize, OpenOptions, StoredPixels};
use diver_python::errors::{Class, to_python};
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
        self.0.info().samples
    }

    /// Sample `index`: its values as stored, little-endian, planar; whether they are bytes; its class; its logits.
    #[allow(clippy::type_complexity)] // A tuple that Python takes apart at once.
    fn sample<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, bool, usize, Option<Vec<f32>>, Bound<'py, PyBytes>)> {
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
        let logits = match sample.label {
            diver_loaders::Label::Logits(logits) => Some(logits),
            _ => None,
        };
        Ok((pixels, bytes, class, logits, digest))
    }
}

/// The option `classes`: the refiner's class for each label, or where these are listed.
#[derive(FromPyObject)]
pub enum Classes {
    Indices(Vec<usize>),
    /// The name of a list, or a file.
    List(String),
}

impl TryFrom<Classes> for ClassMap {
    type Error = Error;

    fn try_from(classes: Classes) -> Result<Self, Error> {
        match classes {
            Classes::Indices(indices) => ClassMap::indices(indices),
            Classes::List(name) => ClassMap::find(&name),
        }
    }
}

/// Opens the dataset at `path`, or the one that `content` would be as a safetensors file.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // The options of a dataset, by name.
#[pyo3(signature = (path, *, content, dataset, mean, std, experiment, num_classes, classes, values, zca, factor, canvas))]
pub fn open(
    py: Python<'_>,
    path: PathBuf,
    content: Option<PyBackedBytes>,
    dataset: Option<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    experiment: Option<usize>,
    num_classes: Option<usize>,
    classes: Option<Classes>,
    values: Option<String>,
    zca: Option<PathBuf>,
    factor: Option<usize>,
    canvas: Option<usize>,
) -> PyResult<Source> {
    let open = move || -> Result<Box<dyn diver_loaders::Source>, Error> {
        let mut options = OpenOptions::new();
        if let Some(dataset) = dataset {
            options = options.dataset(dataset);
        }
        if let (Some(mean), Some(std)) = (mean, std) {
            options = options.normalization(Normalize::new(mean, std)?);
        }
        if let Some(index) = experiment {
            options = options.experiment(index);
        }
        if let Some(count) = num_classes {
            options = options.num_classes(count);
        }
        if let Some(classes) = classes {
            options = options.classes(classes.try_into()?);
        }
        if let Some(values) = values {
            options = options.values(values.parse()?);
        }
        if let Some(zca) = zca {
            options = options.zca(zca);
        }
        if let Some(factor) = factor {
            options = options.factor(factor);
        }
        if let Some(canvas) = canvas {
            options = options.canvas(canvas);
        }
        match content {
            Some(content) => options.open_bytes(&content),
            None => options.open(&path),
        }
    };
    let source = wait::on_thread(py, "diver-open", AtExit::Abandon, &CancelToken::new(), open)?;
    source.map(|source| Source(source.into())).map_err(|error| to_python(py, &error))
}

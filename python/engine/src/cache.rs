//! Refined images on disk.

use diver_python::errors::to_python;
use pyo3::prelude::*;
use std::path::PathBuf;

/// A folder of refined images.
#[pyclass(frozen, module = "diver._engine")]
pub struct Cache(pub diver_loaders::Cache);

#[pymethods]
impl Cache {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        py.detach(|| diver_loaders::Cache::open(&folder)).map(Self).map_err(|error| to_python(py, &error))
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.root()
    }
}

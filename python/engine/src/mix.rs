//! How much of an epoch is refined.

use diver_python::errors::to_python;
use pyo3::prelude::*;

/// The share of refined samples in each epoch.
#[pyclass(frozen, module = "diver._engine")]
pub struct Mix(pub diver_loaders::Mix);

#[pymethods]
impl Mix {
    #[staticmethod]
    fn constant(py: Python<'_>, share: f64) -> PyResult<Self> {
        made(py, diver_loaders::Mix::constant(share))
    }

    #[staticmethod]
    fn linear(py: Python<'_>, start: f64, end: f64, epochs: u64) -> PyResult<Self> {
        made(py, diver_loaders::Mix::linear(start, end, epochs))
    }

    #[staticmethod]
    fn cosine(py: Python<'_>, start: f64, end: f64, epochs: u64) -> PyResult<Self> {
        made(py, diver_loaders::Mix::cosine(start, end, epochs))
    }

    #[staticmethod]
    fn steps(py: Python<'_>, steps: Vec<(u64, f64)>) -> PyResult<Self> {
        made(py, diver_loaders::Mix::steps(steps))
    }

    /// The share of refined samples in `epoch`, in [0, 1].
    fn share(&self, epoch: u64) -> f64 {
        self.0.share(epoch)
    }
}

fn made(py: Python<'_>, mix: diver_loaders::Result<diver_loaders::Mix>) -> PyResult<Mix> {
    mix.map(Mix).map_err(|error| to_python(py, &error))
}

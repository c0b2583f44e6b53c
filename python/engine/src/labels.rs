//! What targets are made of.

use diver_python::errors::to_python;
use pyo3::prelude::*;

/// How the target of a sample is made of its stored label and a teacher's logits.
#[pyclass(frozen, module = "diver._engine")]
pub struct Targets(pub diver_loaders::Targets);

#[pymethods]
impl Targets {
    #[staticmethod]
    fn stored(py: Python<'_>, temperature: f32) -> PyResult<Self> {
        made(py, diver_loaders::Targets::stored(temperature))
    }

    #[staticmethod]
    fn hard(py: Python<'_>, smoothing: f32) -> PyResult<Self> {
        made(py, diver_loaders::Targets::hard(smoothing))
    }

    #[staticmethod]
    fn teacher(py: Python<'_>, temperature: f32) -> PyResult<Self> {
        made(py, diver_loaders::Targets::teacher(temperature))
    }

    #[staticmethod]
    fn logits() -> Self {
        Self(diver_loaders::Targets::logits())
    }

    #[staticmethod]
    fn average(py: Python<'_>, weight: f32, temperature: f32) -> PyResult<Self> {
        made(py, diver_loaders::Targets::average(weight, temperature))
    }
}

fn made(py: Python<'_>, targets: diver_loaders::Result<diver_loaders::Targets>) -> PyResult<Targets> {
    targets.map(Targets).map_err(|error| to_python(py, &error))
}

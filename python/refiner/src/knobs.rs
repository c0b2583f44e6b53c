//! The settings of the method as JSON.

use diver::{Knobs, KnobsBuilder};
use diver_python::errors::{Class, to_python};
use pyo3::prelude::*;

/// The settings in `json`, not yet checked against each other.
pub fn read(py: Python<'_>, json: &str) -> PyResult<KnobsBuilder> {
    // By way of a value, whose errors do not speak of lines and columns.
    let knobs = serde_json::from_str::<serde_json::Value>(json).and_then(serde_json::from_value);
    knobs.map_err(|error| Class::Option.error(py, error.to_string()))
}

/// Every setting as JSON, with a DiT's for what is not given, once those in `knobs` (JSON too) are known to be valid.
#[pyfunction]
pub fn check_knobs(py: Python<'_>, knobs: &str) -> PyResult<String> {
    let knobs = read(py, knobs)?.build().map_err(|error| to_python(py, &error.into()))?;
    written(py, serde_json::to_string(&knobs))
}

/// The settings, as JSON, that a preset stands for.
#[pyfunction]
pub fn preset(py: Python<'_>, method: &str) -> PyResult<String> {
    let knobs = Knobs::preset(method).map_err(|error| to_python(py, &error.into()))?;
    written(py, serde_json::to_string(&knobs))
}

fn written(py: Python<'_>, json: serde_json::Result<String>) -> PyResult<String> {
    json.map_err(|error| Class::Internal.error(py, error.to_string()))
}

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
    Ok(every(&knobs).to_string())
}

/// All settings as JSON, those too that a fingerprint leaves out where they say nothing new.
pub fn every(knobs: &Knobs) -> serde_json::Value {
    let mut all = serde_json::json!(knobs);
    all["solver"] = serde_json::json!(knobs.solver());
    all["grid"] = serde_json::json!(knobs.grid());
    all["mapping"] = serde_json::json!(knobs.mapping());
    all["flow_start"] = serde_json::json!(knobs.flow_start());
    all
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

//! Random views of images.

use diver_loaders::augment::{Augment as Engine, Augmentation};
use diver_python::errors::{Class, to_python};
use pyo3::prelude::*;

/// Augmentations, in the order in which they are applied.
#[pyclass(frozen, module = "diver._engine")]
pub struct Augment(pub Engine);

#[pymethods]
impl Augment {
    /// `augmentations` is the JSON of them: a list of objects of one field each.
    #[new]
    fn new(py: Python<'_>, augmentations: &str) -> PyResult<Self> {
        // By way of a value, whose errors do not speak of lines and columns.
        let read: Vec<Augmentation> = serde_json::from_str::<serde_json::Value>(augmentations)
            .and_then(serde_json::from_value)
            .map_err(|error| Class::Option.error(py, error.to_string()))?;
        Engine::new(read).map(Self).map_err(|error| to_python(py, &error))
    }

    /// The JSON of the augmentations, with every option of each.
    fn json(&self, py: Python<'_>) -> PyResult<String> {
        serde_json::to_string(&self.0).map_err(|error| Class::Internal.error(py, error.to_string()))
    }
}

//! Python objects as teachers.

use crate::adapter::{Adapter, CancelToken};
use diver_loaders::teach::TeachBatch;
use diver_loaders::{Error, Result, Teach};
use diver_python::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::Value;

/// A Python object with the interface of `diver.teachers.Adapter`: it takes a tensor and gives the bytes of logits.
pub struct PyTeach(Adapter);

impl PyTeach {
    /// Asks `make` for the object, on a thread that will call it.
    pub fn made_here(py: Python<'_>, make: impl FnOnce() -> PyResult<Py<PyAny>>) -> PyResult<Self> {
        Adapter::made_here(py, make).map(Self)
    }

    pub fn new(adapter: &Bound<'_, PyAny>) -> PyResult<Self> {
        Adapter::new(adapter).map(Self)
    }

    /// The fingerprint that the object has now.
    pub fn read_fingerprint(&self) -> Option<Value> {
        self.0.read_fingerprint()
    }
}

impl Teach for PyTeach {
    fn fingerprint(&self) -> Option<Value> {
        self.0.fingerprint.clone()
    }

    fn preferred_batch(&self) -> usize {
        self.0.preferred_batch
    }

    fn num_classes(&self) -> Option<usize> {
        self.0.num_classes
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &diver_loaders::CancelToken) -> Result<Vec<f32>> {
        cancel.check()?;
        if images.is_empty() {
            return Ok(Vec::new());
        }
        self.0.call(cancel, Error::teach, |adapter| {
            let pixels =
                Tensor::from_vec(images.pixels().to_vec(), images.shape().map(|side| side as i64).to_vec());
            let answer = adapter.call_method1("teach", (pixels, CancelToken::new_of(cancel)))?;
            let bytes: Bound<'_, PyBytes> = answer.extract()?;
            let (values, _) = bytes.as_bytes().as_chunks();
            Ok(values.iter().map(|value| f32::from_ne_bytes(*value)).collect())
        })
    }

    fn release(&mut self) {
        self.0.release("teacher");
    }
}

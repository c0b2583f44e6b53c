//! Python objects as refiners.

use crate::adapter::{Adapter, CancelToken};
use crossbeam::channel::{Sender, unbounded};
use diver_loaders::refine::{Progress as Hears, RawBatch};
use diver_loaders::{Conditioning, Error, Refine, Result, RgbImage};
use diver_python::errors::Class;
use diver_python::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

/// Hears how far a refinement has come; deaf once the call that it was given to is over.
#[pyclass(frozen, module = "diver._engine")]
pub struct Progress(Mutex<Option<Sender<(usize, usize)>>>);

#[pymethods]
impl Progress {
    /// `done` of `total` steps are done.
    fn __call__(&self, py: Python<'_>, done: &Bound<'_, PyAny>, total: &Bound<'_, PyAny>) -> PyResult<()> {
        let (Ok(done), Ok(total)) = (done.extract::<usize>(), total.extract::<usize>()) else {
            let message =
                format!("progress: {done} of {total} is given, two integers from 0 on are expected");
            return Err(Class::Option.error(py, message));
        };
        if done > total {
            return Err(Class::Option.error(py, format!("progress: {done} of {total} steps cannot be done")));
        }
        if let Some(listener) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = listener.send((done, total));
        }
        Ok(())
    }
}

/// A Python object with the interface of `diver.refiners.Adapter`: it takes and gives bytes.
pub struct PyRefine(Adapter);

impl PyRefine {
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

    fn label(&self, conditioning: &Conditioning) -> Result<i64> {
        let refused = |reason: String| Err(Error::config("labels", reason));
        match (conditioning, self.0.num_classes) {
            (Conditioning::Class(class), Some(count)) if *class >= count => {
                refused(format!("class {class} is beyond the refiner's {count} classes"))
            }
            // The labels reach Python as an array of int64.
            (Conditioning::Class(class), _) => match i64::try_from(*class) {
                Ok(label) => Ok(label),
                Err(_) => refused(format!("class {class} is beyond {}", i64::MAX)),
            },
            (other, _) => refused(format!("{other}: a refiner in Python is conditioned on classes")),
        }
    }
}

/// What the adapter is called with: pixels, labels, keys and variants.
type Arguments<'py> = (Tensor, Vec<i64>, Bound<'py, PyList>, Vec<u32>);

fn arguments<'py>(py: Python<'py>, batch: &RawBatch<'_>, labels: Vec<i64>) -> PyResult<Arguments<'py>> {
    let shape = [batch.len(), 3, batch.height, batch.width].map(|side| side as i64).to_vec();
    let pixels = Tensor::from_vec(batch.pixels.to_vec(), shape);
    let keys = PyList::new(py, batch.keys.iter().map(|key| PyBytes::new(py, key.content.as_bytes())))?;
    let variants = batch.keys.iter().map(|key| key.variant).collect();
    Ok((pixels, labels, keys, variants))
}

/// Images from planar bytes, `[B, 3, height, width]`.
fn images(bytes: &[u8], height: usize, width: usize) -> Result<Vec<RgbImage>> {
    let area = height * width;
    let image = |planar: &[u8]| {
        let interleaved = (0..area).flat_map(|at| [planar[at], planar[area + at], planar[2 * area + at]]);
        RgbImage::new(width, height, interleaved.collect())
    };
    // The adapter has checked the shape: no image is empty.
    bytes.chunks_exact((3 * area).max(1)).map(image).collect()
}

impl Refine for PyRefine {
    fn fingerprint(&self) -> Option<Value> {
        self.0.fingerprint.clone()
    }

    fn preferred_batch(&self) -> usize {
        self.0.preferred_batch
    }

    fn num_classes(&self) -> Option<usize> {
        self.0.num_classes
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        self.label(conditioning).map(|_| ())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &diver_loaders::CancelToken,
        progress: &dyn Hears,
    ) -> Result<Vec<RgbImage>> {
        cancel.check()?;
        let labels: Vec<i64> = batch.conditioning.iter().map(|c| self.label(c)).collect::<Result<_>>()?;
        let (sender, steps) = unbounded();
        let (bytes, height, width) = std::thread::scope(|scope| {
            // A thread of its own: `progress` is borrowed, and Python may keep what it is given.
            scope.spawn(|| steps.iter().for_each(|(done, total)| progress.step(done, total)));
            self.0.call(cancel, Error::refine, |adapter| {
                let py = adapter.py();
                let (pixels, labels, keys, variants) = arguments(py, batch, labels)?;
                let progress = Py::new(py, Progress(Mutex::new(Some(sender))))?;
                let token = CancelToken::new_of(cancel);
                let answer =
                    adapter.call_method1("refine", (pixels, labels, keys, variants, token, &progress));
                progress.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (bytes, height, width): (Bound<'_, PyBytes>, usize, usize) = answer?.extract()?;
                Ok((bytes.as_bytes().to_vec(), height, width))
            })
        })?;
        images(&bytes, height, width)
    }

    fn release(&mut self) {
        self.0.release("refiner");
    }
}

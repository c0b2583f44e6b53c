//! Python objects as refiners.

use crossbeam::channel::{Sender, unbounded};
use diver_loaders::refine::{Progress as Hears, RawBatch};
use diver_loaders::{Conditioning, Error, Refine, Result, RgbImage};
use diver_python::errors::{Class, Raised};
use diver_python::tensor::Tensor;
use pyo3::ffi::{PyGILState_Ensure, PyGILState_Release, PyGILState_STATE};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Asks a running refinement to stop.
#[pyclass(frozen, module = "diver._engine")]
pub struct CancelToken(diver_loaders::CancelToken);

impl CancelToken {
    /// The same token for Python.
    pub fn new_of(token: &diver_loaders::CancelToken) -> Self {
        Self(token.clone())
    }
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self(diver_loaders::CancelToken::new())
    }

    /// Whether the refinement should stop: its result is not wanted any more.
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Asks everything that holds this token to stop.
    fn cancel(&self) {
        self.0.cancel();
    }
}

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

/// What the interpreter knows this thread by.
struct ThreadState(PyGILState_STATE);

impl ThreadState {
    /// Keeps it for as long as the thread lives. Otherwise every call into Python would have one of its own, and
    /// libraries that remember the one they were imported under (torch does, by pybind11) would crash in the next.
    fn keep(_py: Python<'_>) {
        thread_local!(static KEPT: RefCell<Option<ThreadState>> = const { RefCell::new(None) });
        // SAFETY: the thread is attached, and this is taken back when it ends.
        KEPT.with_borrow_mut(|kept| _ = kept.get_or_insert_with(|| Self(unsafe { PyGILState_Ensure() })));
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        // SAFETY: the thread is attached, and `keep` has counted once. Without an interpreter nothing is left to do.
        Python::try_attach(|_| unsafe { PyGILState_Release(self.0) });
    }
}

/// A Python object with the interface of `diver.refiners.Adapter`: it takes and gives bytes, and its fingerprint,
/// batch size and number of classes are asked for once.
pub struct PyRefine {
    adapter: Py<PyAny>,
    fingerprint: Option<Value>,
    preferred_batch: usize,
    num_classes: Option<usize>,
}

impl PyRefine {
    /// Asks `make` for the object, on a thread that will call it.
    pub fn made_here(py: Python<'_>, make: impl FnOnce() -> PyResult<Py<PyAny>>) -> PyResult<Self> {
        ThreadState::keep(py);
        Self::new(make()?.bind(py))
    }

    pub fn new(adapter: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            fingerprint: fingerprint_of(adapter)?,
            preferred_batch: adapter.getattr("preferred_batch")?.extract()?,
            num_classes: adapter.getattr("num_classes")?.extract()?,
            adapter: adapter.clone().unbind(),
        })
    }

    /// The fingerprint that the object has now.
    pub fn read_fingerprint(&self) -> PyResult<Option<Value>> {
        Python::attach(|py| fingerprint_of(self.adapter.bind(py)))
    }

    fn label(&self, conditioning: &Conditioning) -> Result<i64> {
        let refused = |reason: String| Err(Error::config("labels", reason));
        match (conditioning, self.num_classes) {
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

    /// The bytes of the refined images, `[B, 3, height, width]`, with height and width.
    fn call(
        &self,
        py: Python<'_>,
        batch: &RawBatch<'_>,
        labels: &[i64],
        cancel: &diver_loaders::CancelToken,
        progress: &Py<Progress>,
    ) -> PyResult<(Vec<u8>, usize, usize)> {
        let shape = [batch.len(), 3, batch.height, batch.width].map(|side| side as i64).to_vec();
        let pixels = Tensor::from_vec(batch.pixels.to_vec(), shape);
        let keys = PyList::new(py, batch.keys.iter().map(|key| PyBytes::new(py, key.content.as_bytes())))?;
        let variants: Vec<u32> = batch.keys.iter().map(|key| key.variant).collect();
        let arguments = (pixels, labels, keys, variants, CancelToken(cancel.clone()), progress);
        let answer = self.adapter.bind(py).call_method1("refine", arguments)?;
        let (bytes, height, width): (Bound<'_, PyBytes>, usize, usize) = answer.extract()?;
        Ok((bytes.as_bytes().to_vec(), height, width))
    }
}

fn fingerprint_of(adapter: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let json: Option<String> = adapter.getattr("fingerprint")?.extract()?;
    json.map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|error| Class::Option.error(adapter.py(), format!("fingerprint: {error}")))
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
        self.fingerprint.clone()
    }

    fn preferred_batch(&self) -> usize {
        self.preferred_batch
    }

    fn num_classes(&self) -> Option<usize> {
        self.num_classes
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
        let result = std::thread::scope(|scope| {
            // A thread of its own: `progress` is borrowed, and Python may keep what it is given.
            scope.spawn(|| steps.iter().for_each(|(done, total)| progress.step(done, total)));
            Python::try_attach(|py| {
                ThreadState::keep(py);
                let progress = Py::new(py, Progress(Mutex::new(Some(sender))))?;
                let refined = self.call(py, batch, &labels, cancel, &progress);
                progress.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
                refined
            })
        });
        // Whatever came of it: a refiner may notice late, or by way of an exception.
        cancel.check()?;
        match result {
            Some(Ok((bytes, height, width))) => images(&bytes, height, width),
            Some(Err(error)) => Err(Error::refine(Raised(error))),
            // No interpreter any more: the process ends.
            None => Err(Error::Cancelled),
        }
    }

    fn release(&mut self) {
        Python::try_attach(|py| {
            ThreadState::keep(py);
            if let Err(error) = self.adapter.bind(py).call_method0("release") {
                tracing::warn!("the refiner's `release` raised {error}");
            }
        });
    }
}

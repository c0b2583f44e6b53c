//! What refiners and teachers written in Python have in common: how they are called, and how they are told to stop.

use diver_loaders::{Error, Result};
use diver_python::errors::{Class, Raised};
use pyo3::ffi::{PyGILState_Ensure, PyGILState_Release, PyGILState_STATE};
use pyo3::prelude::*;
use serde_json::Value;
use std::cell::RefCell;

/// Asks a running refinement, or a teacher at work, to stop.
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

    /// Whether the work should stop: its result is not wanted any more.
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Asks everything that holds this token to stop.
    fn cancel(&self) {
        self.0.cancel();
    }
}

/// What the interpreter knows this thread by.
pub struct ThreadState(PyGILState_STATE);

impl ThreadState {
    /// Keeps it for as long as the thread lives. Otherwise every call into Python would have one of its own, and
    /// libraries that remember the one they were imported under (torch does, by pybind11) would crash in the next.
    pub fn keep(_py: Python<'_>) {
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

/// A Python object that works for the engine. Its `fingerprint`, `preferred_batch` and `num_classes` are asked for once.
pub struct Adapter {
    object: Py<PyAny>,
    pub fingerprint: Option<Value>,
    pub preferred_batch: usize,
    pub num_classes: Option<usize>,
}

impl Adapter {
    /// Asks `make` for the object, on a thread that will call it.
    pub fn made_here(py: Python<'_>, make: impl FnOnce() -> PyResult<Py<PyAny>>) -> PyResult<Self> {
        ThreadState::keep(py);
        Self::new(make()?.bind(py))
    }

    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            fingerprint: fingerprint_of(object)?,
            preferred_batch: object.getattr("preferred_batch")?.extract()?,
            num_classes: object.getattr("num_classes")?.extract()?,
            object: object.clone().unbind(),
        })
    }

    /// The fingerprint that the object has now; none if it cannot be read.
    pub fn read_fingerprint(&self) -> Option<Value> {
        Python::attach(|py| fingerprint_of(self.object.bind(py))).ok().flatten()
    }

    /// Does `work` with the object. An exception is what `failed` makes of it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] where `cancel` is set, before or after; what `failed` says.
    pub fn call<T>(
        &self,
        cancel: &diver_loaders::CancelToken,
        failed: fn(Raised) -> Error,
        work: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T> {
        cancel.check()?;
        let done = Python::try_attach(|py| {
            ThreadState::keep(py);
            work(self.object.bind(py))
        });
        // Whatever came of it: a call may notice late, or by way of an exception.
        cancel.check()?;
        match done {
            Some(done) => done.map_err(|error| failed(Raised(error))),
            // No interpreter any more: the process ends.
            None => Err(Error::Cancelled),
        }
    }

    /// Calls the object's `release`; `whose` it is, if that fails.
    pub fn release(&self, whose: &str) {
        Python::try_attach(|py| {
            ThreadState::keep(py);
            if let Err(error) = self.object.bind(py).call_method0("release") {
                tracing::warn!("the {whose}'s `release` raised {error}");
            }
        });
    }
}

fn fingerprint_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let json: Option<String> = object.getattr("fingerprint")?.extract()?;
    json.map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|error| Class::Option.error(object.py(), format!("fingerprint: {error}")))
}

//! Waiting for a job.

use crate::worker::Event;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use diver_loaders::{CancelToken, Error};
use diver_python::errors::{Class, to_python};
use diver_python::wait::SLICE;
use pyo3::prelude::*;

/// Whoever wants to know of a job while it runs.
pub trait Listener {
    /// Called at every step.
    fn step(&self, _py: Python<'_>, _done: usize, _total: usize) -> PyResult<()> {
        Ok(())
    }

    /// Called every 50 ms at least; an exception ends the wait.
    fn slice(&self, _py: Python<'_>) -> PyResult<()> {
        Ok(())
    }
}

/// Raises if the caller's token, an object with `is_cancelled`, is set.
pub fn check(cancel: &Bound<'_, PyAny>) -> PyResult<()> {
    if cancel.call_method0(pyo3::intern!(cancel.py(), "is_cancelled"))?.is_truthy()? {
        return Err(Class::Closed.error(cancel.py(), "cancelled"));
    }
    Ok(())
}

/// A listener that hears nothing.
pub struct Deaf;

impl Listener for Deaf {}

/// Waits for the result of a job without holding the interpreter. On Ctrl-C, and on an exception of the listener's,
/// cancels the job and returns that exception at once.
pub fn result<T: Send>(
    py: Python<'_>,
    events: &Receiver<Event<diver_loaders::Result<T>>>,
    cancel: &CancelToken,
    listener: &impl Listener,
) -> PyResult<T> {
    let result = wait(py, events, listener);
    if result.is_err() {
        cancel.cancel();
    }
    result
}

fn wait<T: Send>(
    py: Python<'_>,
    events: &Receiver<Event<diver_loaders::Result<T>>>,
    listener: &impl Listener,
) -> PyResult<T> {
    loop {
        match py.detach(|| events.recv_timeout(SLICE)) {
            Ok(Event::Done(result)) => return result.map_err(|error| to_python(py, &error)),
            Ok(Event::Panicked(message)) => {
                let error = Error::Panicked { thread: "diver-refiner".to_owned(), message };
                return Err(to_python(py, &error));
            }
            Ok(Event::Step(done, total)) => listener.step(py, done, total)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Class::Closed.error(py, "the refiner was closed before it came to this call"));
            }
        }
        // After steps too: they may come faster than slices end.
        py.check_signals()?;
        listener.slice(py)?;
    }
}

//! Waiting for another thread with an eye on the interpreter.

use crate::errors::Class;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use diver_loaders::CancelToken;
use pyo3::prelude::*;
use std::time::Duration;

/// How long a wait may last before signals are looked at: Ctrl-C is answered within 0.3 s with room to spare.
pub const SLICE: Duration = Duration::from_millis(50);

/// Receives one value without holding the interpreter. On Ctrl-C (or whatever a signal handler raises), cancels and
/// returns that exception at once.
///
/// # Errors
/// The signal handler's exception; an internal error if the sender is gone.
pub fn receive<T: Send>(py: Python<'_>, results: &Receiver<T>, cancel: &CancelToken) -> PyResult<T> {
    loop {
        match py.detach(|| results.recv_timeout(SLICE)) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| cancel.cancel())?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Class::Internal.error(py, "a thread of diver ended without an answer"));
            }
        }
    }
}

/// Does `work` on a thread of its own, so that Ctrl-C is answered meanwhile. It then goes on in the background until
/// it looks at `cancel` or is done, and its result is dropped: `work` must not need the interpreter.
///
/// # Errors
/// The signal handler's exception; an internal error if the thread cannot be started or panics.
pub fn on_thread<T: Send + 'static>(
    py: Python<'_>,
    name: &str,
    cancel: &CancelToken,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, results) = bounded(1);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody listens after Ctrl-C.
            let _ = sender.send(work());
        })
        .map_err(|error| Class::Internal.error(py, format!("cannot start a thread: {error}")))?;
    receive(py, &results, cancel)
}

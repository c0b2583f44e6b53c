//! Waiting for another thread with an eye on the interpreter.

use crate::errors::Class;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use diver_loaders::CancelToken;
use pyo3::prelude::*;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
/// it looks at `cancel` or is done, and its result is dropped. `work` must not need the interpreter: the thread ends
/// with the process, wherever it is.
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
    start(py, name, move || {
        // Nobody listens after Ctrl-C.
        let _ = sender.send(work());
    })?;
    receive(py, &results, cancel)
}

/// As [`on_thread`], for `work` that may need the interpreter: [`join`] waits for what Ctrl-C has left of it.
///
/// # Errors
/// As for [`on_thread`].
pub fn on_python_thread<T: Send + 'static>(
    py: Python<'_>,
    name: &str,
    cancel: &CancelToken,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (alive, ended) = bounded::<Infallible>(0);
    let process = std::process::id();
    let result = on_thread(py, name, cancel, move || {
        let result = work();
        drop(alive);
        result
    });
    if result.is_err() {
        left().push(Left { ended, process });
    }
    result
}

/// Waits for the threads that Ctrl-C has left at work: an interpreter must not end under them.
///
/// # Errors
/// The signal handler's exception; the wait can be taken up again.
pub fn join(py: Python<'_>) -> PyResult<()> {
    // Not taken from the list before they have ended. A forked child has none of its parent's threads.
    let is_ours = |left: &&Left| left.process == std::process::id();
    let waiting: Vec<_> = left().iter().filter(is_ours).map(|left| left.ended.clone()).collect();
    for ended in waiting {
        while matches!(py.detach(|| ended.recv_timeout(SLICE)), Err(RecvTimeoutError::Timeout)) {
            py.check_signals()?;
        }
    }
    left().clear();
    Ok(())
}

/// A thread that nobody waits for.
struct Left {
    /// Disconnected once its work is done.
    ended: Receiver<Infallible>,
    process: u32,
}

/// Locked only with the interpreter held, as whoever forks does: so it is not locked in a forked child for good.
fn left() -> MutexGuard<'static, Vec<Left>> {
    static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(py: Python<'_>, name: &str, body: impl FnOnce() + Send + 'static) -> PyResult<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| Class::Internal.error(py, format!("cannot start a thread: {error}")))
}

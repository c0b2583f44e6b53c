//! Waiting for another thread with an eye on the interpreter.

use crate::errors::Class;
use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError, bounded};
use diver_loaders::CancelToken;
use pyo3::prelude::*;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait may last before signals are looked at: Ctrl-C is answered within 0.3 s with room to spare.
pub const SLICE: Duration = Duration::from_millis(50);

/// Receives one value without holding the interpreter. On Ctrl-C (or whatever a signal handler raises), cancels and
/// returns that exception at once.
///
/// # Errors
/// The signal handler's exception; an internal error if the sender is gone.
pub fn receive<T: Send>(py: Python<'_>, results: &Receiver<T>, cancel: &CancelToken) -> PyResult<T> {
    receive_while(py, results, cancel, &mut || Ok(()))
}

/// As [`receive`], doing `meanwhile` now and then. Its exception ends the wait as a signal handler's does.
fn receive_while<T: Send>(
    py: Python<'_>,
    results: &Receiver<T>,
    cancel: &CancelToken,
    meanwhile: &mut dyn FnMut() -> PyResult<()>,
) -> PyResult<T> {
    loop {
        match py.detach(|| results.recv_timeout(SLICE)) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().and_then(|()| meanwhile()).inspect_err(|_| cancel.cancel())?;
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Class::Internal.error(py, "a thread of diver ended without an answer"));
            }
        }
    }
}

/// Whether [`join`] waits for a thread to its end. It cancels what the thread does before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtExit {
    /// Yes: it calls into Python, and an interpreter must not end under it.
    Wait,
    /// For a second: it may log a message, and it may hang for good on a file system.
    Abandon,
}

/// Does `work` on a thread of its own, so that Ctrl-C is answered meanwhile. It then goes on in the background until
/// it looks at `cancel` or is done, and its result is dropped.
///
/// # Errors
/// The signal handler's exception; an internal error if the thread cannot be started or panics.
pub fn on_thread<T: Send + 'static>(
    py: Python<'_>,
    name: &str,
    at_exit: AtExit,
    cancel: &CancelToken,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    Task::start(py, name, at_exit, cancel.clone(), work)?.result(py)
}

/// Work on a thread of its own, whose result is asked for later. Whoever drops it cancels the work.
#[derive(Debug)]
pub struct Task<T> {
    results: Receiver<T>,
    cancel: CancelToken,
    process: u32,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work`, which looks at `cancel`.
    ///
    /// # Errors
    /// An internal error if the thread cannot be started.
    pub fn start(
        py: Python<'_>,
        name: &str,
        at_exit: AtExit,
        cancel: CancelToken,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> PyResult<Self> {
        let (sender, results) = bounded(1);
        let ended = start(py, name, move || {
            // Nobody listens after Ctrl-C.
            let _ = sender.send(work());
        })?;
        leave(Left { ended, at_exit, cancel: cancel.clone(), process: std::process::id() });
        Ok(Self { results, cancel, process: std::process::id() })
    }

    /// Waits for the result, so that Ctrl-C is answered meanwhile.
    ///
    /// # Errors
    /// The signal handler's exception; an internal error if the work panics; in a forked child, which does not have the
    /// thread, an error that says so.
    pub fn result(self, py: Python<'_>) -> PyResult<T> {
        self.result_while(py, &mut || Ok(()))
    }

    /// As [`result`](Self::result), doing `meanwhile` now and then, with the interpreter held.
    ///
    /// # Errors
    /// As [`result`](Self::result); that of `meanwhile`.
    pub fn result_while(self, py: Python<'_>, meanwhile: &mut dyn FnMut() -> PyResult<()>) -> PyResult<T> {
        if self.process != std::process::id() {
            let message =
                format!("this was begun by process {}, and cannot be waited for in its child", self.process);
            return Err(Class::Closed.error(py, message));
        }
        receive_while(py, &self.results, &self.cancel, meanwhile)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Does `work` on a thread of its own that nobody waits for but [`join`].
///
/// # Errors
/// An internal error if the thread cannot be started; the work is dropped then.
pub fn in_background(py: Python<'_>, name: &str, work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    let ended = start(py, name, work)?;
    leave(Left { ended, at_exit: AtExit::Wait, cancel: CancelToken::new(), process: std::process::id() });
    Ok(())
}

/// Cancels what threads are left at, and waits for them: an interpreter must not end under them.
///
/// # Errors
/// The signal handler's exception; the wait can be taken up again.
pub fn join(py: Python<'_>) -> PyResult<()> {
    // Not taken from the list before they have ended. A forked child has none of its parent's threads.
    let is_ours = |left: &&Left| left.process == std::process::id();
    let waiting: Vec<_> = left()
        .iter()
        .filter(is_ours)
        .inspect(|left| left.cancel.cancel())
        .map(|left| (left.ended.clone(), left.at_exit))
        .collect();
    for (ended, at_exit) in waiting {
        let began = Instant::now();
        while matches!(py.detach(|| ended.recv_timeout(SLICE)), Err(RecvTimeoutError::Timeout)) {
            py.check_signals()?;
            if at_exit == AtExit::Abandon && began.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
    }
    left().retain(|left| !left.has_ended());
    Ok(())
}

/// A thread that may be at work when the program ends.
struct Left {
    /// Disconnected once its work is done.
    ended: Receiver<Infallible>,
    at_exit: AtExit,
    cancel: CancelToken,
    process: u32,
}

impl Left {
    fn has_ended(&self) -> bool {
        self.process != std::process::id() || matches!(self.ended.try_recv(), Err(TryRecvError::Disconnected))
    }
}

fn leave(thread: Left) {
    let mut left = left();
    left.retain(|left| !left.has_ended());
    left.push(thread);
}

/// Locked only with the interpreter held, as whoever forks does: so it is not locked in a forked child for good.
fn left() -> MutexGuard<'static, Vec<Left>> {
    static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread; the channel that is returned disconnects when it has ended.
fn start(py: Python<'_>, name: &str, body: impl FnOnce() + Send + 'static) -> PyResult<Receiver<Infallible>> {
    let (alive, ended) = bounded::<Infallible>(0);
    let body = move || {
        body();
        drop(alive);
    };
    // Without the interpreter: where it fails, the body is dropped, which may mean to wait for threads that need it.
    let thread = py.detach(|| std::thread::Builder::new().name(name.to_owned()).spawn(body));
    thread
        .map(|_| ended)
        .map_err(|error| Class::Internal.error(py, format!("cannot start a thread: {error}")))
}

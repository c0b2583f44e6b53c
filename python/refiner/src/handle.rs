//! The thread of a refiner in the hands of Python.

use crate::waiting::{self, Listener};
use crate::worker::{self, Worker};
use diver_loaders::refine::Progress;
use diver_loaders::{CancelToken, Result};
use diver_python::errors::Class;
use diver_python::wait::SLICE;
use pyo3::prelude::*;
use std::mem::ManuallyDrop;

/// A thread with a refiner, once a job has put one there. Dropped, it ends the thread.
pub struct Handle(ManuallyDrop<Worker<diver::Refiner>>);

impl Handle {
    /// Starts the thread.
    pub fn start(py: Python<'_>) -> PyResult<Self> {
        match Worker::spawn("diver-refiner") {
            Ok(worker) => Ok(Self(ManuallyDrop::new(worker))),
            Err(error) => Err(Class::Internal.error(py, format!("cannot start a thread: {error}"))),
        }
    }

    /// Refuses a refiner that was closed or belongs to another process.
    pub fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        let reason = if !self.0.thread().is_of_this_process() {
            "the refiner belongs to the process that this one was forked from, whose threads are not here: make it in \
             this process, or start processes with the method `spawn`"
        } else if self.0.thread().is_stopping() {
            "the refiner is closed"
        } else {
            return Ok(());
        };
        Err(Class::Closed.error(py, reason))
    }

    /// Whether the thread is there, and neither works nor has work waiting.
    pub fn is_idle(&self) -> bool {
        let thread = self.0.thread();
        thread.is_of_this_process() && !thread.is_stopping() && self.0.is_idle()
    }

    /// Has the thread do `work`, and waits for the result. What the work owns stays until it has ended, which after
    /// an exception may be later than this returns.
    pub fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        listener: &impl Listener,
        work: impl FnOnce(&mut Option<diver::Refiner>, &CancelToken, &dyn Progress) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        self.check_open(py)?;
        listener.slice(py)?;
        let cancel = CancelToken::new();
        let its = cancel.clone();
        // OpenMP has a number for each thread: the thread computes with as many as its caller would.
        let threads = tch::get_num_threads();
        let events = self.0.submit(&cancel, move |refiner, progress| {
            if tch::get_num_threads() != threads {
                tch::set_num_threads(threads);
            }
            work(refiner, &its, progress)
        });
        let events = events.map_err(|_| Class::Closed.error(py, "the refiner is closed"))?;
        waiting::result(py, &events, &cancel, listener)
    }

    /// Ends the thread: cancels what runs, and waits for it. In a forked child, does nothing.
    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        let thread = self.0.thread();
        if thread.is_of_this_process() {
            thread.stop();
            wait_for(py, thread)?;
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let thread = self.0.thread();
        if !thread.is_of_this_process() {
            // Its channels may have been locked when the process forked: they are left alone.
            return;
        }
        let is_idle = self.0.is_idle();
        thread.stop();
        // A job that still runs is one that nobody waits for, after Ctrl-C: it is waited for at exit.
        if is_idle {
            Python::attach(|py| {
                py.detach(|| thread.join());
                thread.forget();
            });
        }
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

/// Ends the threads of all refiners of this process, those included whose callers were interrupted.
pub fn close_all(py: Python<'_>) -> PyResult<()> {
    let threads = worker::live();
    threads.iter().for_each(|thread| thread.stop());
    threads.iter().try_for_each(|thread| wait_for(py, thread))
}

fn wait_for(py: Python<'_>, thread: &worker::Thread) -> PyResult<()> {
    while !py.detach(|| thread.has_ended_within(SLICE)) {
        py.check_signals()?;
    }
    thread.forget();
    Ok(())
}

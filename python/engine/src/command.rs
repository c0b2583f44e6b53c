//! The `diver` command.

use crate::refiner::PyRefine;
use crossbeam::channel::{RecvTimeoutError, bounded};
use diver_loaders::cli::{self, RefinerArgs, RefinerFactory};
use diver_loaders::{CancelToken, Error, Refine, Result};
use diver_python::errors::Class;
use diver_python::wait::SLICE;
use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the command line `args`, the program's name first, and returns its exit code. `make_refiner` turns the
/// refiner's options, as JSON, into an adapter.
///
/// As in the binary, the first Ctrl-C lets the current step end and the cache close, and a second one does not wait.
#[pyfunction]
pub fn run_command(py: Python<'_>, args: Vec<OsString>, make_refiner: Py<PyAny>) -> PyResult<u8> {
    let cancel = CancelToken::new();
    let (sender, codes) = bounded(1);
    let token = cancel.clone();
    std::thread::Builder::new()
        .name("diver-command".to_owned())
        .spawn(move || {
            // The main thread listens until it hears or the process ends.
            let _ = sender.send(cli::run(args, &Factory(make_refiner), &token));
        })
        .map_err(|error| Class::Internal.error(py, format!("cannot start a thread: {error}")))?;
    loop {
        match py.detach(|| codes.recv_timeout(SLICE)) {
            Ok(code) => return Ok(code),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Class::Internal.error(py, "the command ended without an exit code"));
            }
        }
        if py.check_signals().is_err() {
            if cancel.is_cancelled() {
                py.import("os")?.call_method1("_exit", (130,))?;
            }
            cancel.cancel();
        }
    }
}

struct Factory(Py<PyAny>);

impl RefinerFactory for Factory {
    fn build(&self, args: &RefinerArgs) -> Result<Box<dyn Refine>> {
        let json = serde_json::to_string(args).map_err(|error| Error::NoRefiner(error.into()))?;
        Python::attach(|py| -> PyResult<Box<dyn Refine>> {
            Ok(Box::new(PyRefine::made_here(py, || self.0.call1(py, (json,)))?))
        })
        // The message alone: a command has no use for the exception's class.
        .map_err(|error| Error::NoRefiner(Python::attach(|py| error.value(py).to_string()).into()))
    }
}

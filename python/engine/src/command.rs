//! The `diver` command.

use crate::adapter;
use crate::refiner::PyRefine;
use crate::teacher::PyTeach;
use crossbeam::channel::{RecvTimeoutError, bounded};
use diver_loaders::cli::{self, DemoArgs, DemoReport, Host, RefinerArgs, TeacherArgs};
use diver_loaders::{CancelToken, Error, Refine, Result, Teach};
use diver_python::errors::Class;
use diver_python::wait::SLICE;
use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the command line `args`, the program's name first, and returns its exit code. `make_refiner` turns the
/// refiner's options, as JSON, into an adapter, and `make_teacher` the teacher's; `demo` those of the demonstration, and a
/// token, into its report as JSON.
///
/// As in the binary, the first Ctrl-C lets the current step end and the cache close, and a second one does not wait.
#[pyfunction]
pub fn run_command(
    py: Python<'_>,
    args: Vec<OsString>,
    make_refiner: Py<PyAny>,
    make_teacher: Py<PyAny>,
    demo: Py<PyAny>,
) -> PyResult<u8> {
    let cancel = CancelToken::new();
    let (sender, codes) = bounded(1);
    let token = cancel.clone();
    std::thread::Builder::new()
        .name("diver-command".to_owned())
        .spawn(move || {
            // The main thread listens until it hears or the process ends.
            let host = PythonHost { make_refiner, make_teacher, demo };
            let _ = sender.send(cli::run(args, &host, &token));
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

/// The packages that are installed.
struct PythonHost {
    make_refiner: Py<PyAny>,
    make_teacher: Py<PyAny>,
    demo: Py<PyAny>,
}

impl Host for PythonHost {
    fn refiner(&self, args: &RefinerArgs, cancel: &CancelToken) -> Result<Box<dyn Refine>> {
        let json = serde_json::to_string(args).map_err(|error| Error::NoRefiner(error.into()))?;
        let token = adapter::CancelToken::new_of(cancel);
        let made = Python::attach(|py| -> PyResult<Box<dyn Refine>> {
            Ok(Box::new(PyRefine::made_here(py, || self.make_refiner.call1(py, (json, token)))?))
        });
        // Whatever came of it: a cancelled download ends with an exception of its own.
        cancel.check()?;
        made.map_err(message)
    }

    fn teacher(&self, args: &TeacherArgs, cancel: &CancelToken) -> Result<Box<dyn Teach>> {
        let json = serde_json::to_string(args).map_err(|error| Error::NoRefiner(error.into()))?;
        let made = Python::attach(|py| -> PyResult<Box<dyn Teach>> {
            Ok(Box::new(PyTeach::made_here(py, || self.make_teacher.call1(py, (json,)))?))
        });
        cancel.check()?;
        made.map_err(message)
    }

    fn demo(&self, args: &DemoArgs, cancel: &CancelToken) -> Result<DemoReport> {
        let json = serde_json::to_string(args).map_err(|error| Error::NoRefiner(error.into()))?;
        let token = adapter::CancelToken::new_of(cancel);
        let report =
            Python::attach(|py| -> PyResult<String> { self.demo.call1(py, (json, token))?.extract(py) });
        // Whatever came of it: a cancelled demonstration ends with an exception of its own.
        cancel.check()?;
        serde_json::from_str(&report.map_err(message)?).map_err(|error| Error::NoRefiner(error.into()))
    }
}

/// The message alone: a command has no use for the exception's class.
fn message(error: PyErr) -> Error {
    Error::NoRefiner(Python::attach(|py| error.value(py).to_string()).into())
}

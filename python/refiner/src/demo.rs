//! The demonstration, for the command `diver` of the Python package.

use crate::handle::Handle;
use crate::waiting::{self, Listener};
use diver::TchHost;
use diver_loaders::Error;
use diver_loaders::cli::{DemoArgs, Host as _};
use diver_python::errors::Class;
use pyo3::prelude::*;

/// The report, as JSON, of the demonstration that `args` asks for: `diver_loaders::cli::DemoArgs` as JSON. Ends soon
/// after `cancel` is set.
#[pyfunction]
pub fn demo(py: Python<'_>, args: &str, cancel: &Bound<'_, PyAny>) -> PyResult<String> {
    let args: DemoArgs =
        serde_json::from_str(args).map_err(|error| Class::Option.error(py, error.to_string()))?;
    // A thread as refiners have one: it is waited for at exit, also when the wait here ends early.
    Handle::start(py)?.run(py, &Caller(cancel), move |_, cancel, _| {
        let report = TchHost.demo(&args, cancel)?;
        serde_json::to_string(&report).map_err(|error| Error::config("json", error.to_string()))
    })
}

/// Whoever called, who may cancel.
struct Caller<'a, 'py>(&'a Bound<'py, PyAny>);

impl Listener for Caller<'_, '_> {
    fn slice(&self, _py: Python<'_>) -> PyResult<()> {
        waiting::check(self.0)
    }
}

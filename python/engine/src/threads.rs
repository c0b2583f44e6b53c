//! Threads that are left when the program ends.

use diver_python::wait;
use pyo3::prelude::*;

/// Waits for the threads that Ctrl-C has left in the middle of work that needs the interpreter.
#[pyfunction]
pub fn join_threads(py: Python<'_>) -> PyResult<()> {
    wait::join(py)
}

//! Messages of the engine as records of Python's `logging`.

use pyo3::prelude::*;
use pyo3_log::{Caching, Logger};

/// Sends what the calling extension logs to Python's loggers, named after the modules that it comes from. For the
/// initialisation of an extension: each has its own globals.
///
/// # Errors
/// If Python's `logging` cannot be imported.
pub fn to_python(py: Python<'_>) -> PyResult<()> {
    // Levels are asked for each time, as programs change them. Fails if this library logs already, which is as well.
    let _ = Logger::new(py, Caching::Loggers)?.install();
    Ok(())
}

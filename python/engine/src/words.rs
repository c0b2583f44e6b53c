//! What the engine says of arguments that Python checks.

use diver_loaders::{paths, wording};
use pyo3::prelude::*;
use std::path::PathBuf;

/// Why a path is not a local one; `None` if it is.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // As Python gives it.
pub fn refused_path(path: PathBuf) -> Option<String> {
    paths::refused(&path)
}

/// Why a name is refused that is not one of `known`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // As Python gives it.
pub fn unknown_name(name: &str, known: Vec<String>) -> String {
    wording::unknown(name, &known.iter().map(String::as_str).collect::<Vec<_>>())
}

//! Options: what Python checks its keywords against.

use diver_loaders::cache::CacheOptions;
use diver_loaders::cli::RefinerArgs;
use diver_loaders::method::KnobsBuilder;
use diver_loaders::{LoaderOptions, OpenOptions, options};
use diver_python::errors::Class;
use pyo3::prelude::*;

/// The JSON Schema of a group of options: names, types, ranges, choices, defaults and help.
#[pyfunction]
pub fn schema(py: Python<'_>, group: &str) -> PyResult<String> {
    let schema = match group {
        "open" => options::schema::<OpenOptions>(),
        "cache" => options::schema::<CacheOptions>(),
        "loader" => options::schema::<LoaderOptions>(),
        "refiner" => options::schema::<RefinerArgs>(),
        "knobs" => options::schema::<KnobsBuilder>(),
        _ => return Err(Class::Internal.error(py, format!("there are no options of `{group}`"))),
    };
    Ok(schema.to_string())
}

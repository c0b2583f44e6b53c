//! The engine's conformance suite, for refiners written in Python.

use crate::refiner::PyRefine;
use diver_loaders::refine::conformance;
use diver_loaders::{CancelToken, Conditioning};
use diver_python::wait;
use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs every check of the suite against `adapter` with images of `side` x `side` and the given known classes.
#[pyfunction]
pub fn check_refiner(
    py: Python<'_>,
    adapter: &Bound<'_, PyAny>,
    side: usize,
    classes: Vec<usize>,
) -> PyResult<()> {
    let mut refiner = PyRefine::new(adapter)?;
    let conditionings: Vec<_> = classes.into_iter().map(Conditioning::Class).collect();
    let check = move || {
        let checked =
            catch_unwind(AssertUnwindSafe(|| conformance::check(&mut refiner, side, &conditionings)));
        checked.map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
        })
    };
    wait::on_thread(py, "diver-check", &CancelToken::new(), check)?.map_err(PyAssertionError::new_err)
}

//! What a launcher says of this process.

use diver_loaders::{Ranks, cards};
use diver_python::errors::to_python;
use pyo3::prelude::*;

/// Rank, world size, and the variables that said so; no variables if there is one process because nothing says
/// otherwise.
#[pyfunction]
pub fn ranks_from_env(py: Python<'_>) -> PyResult<(usize, usize, Option<String>)> {
    let ranks = Ranks::from_env().map_err(|error| to_python(py, &error))?;
    Ok((ranks.rank(), ranks.world_size(), ranks.origin()))
}

/// The card of this process among the `visible` ones.
#[pyfunction]
pub fn own_card(py: Python<'_>, visible: usize) -> PyResult<usize> {
    cards::own(visible).map_err(|error| to_python(py, &error))
}

/// All `visible` cards, for a process that shares them with no other.
#[pyfunction]
pub fn all_cards(py: Python<'_>, visible: usize) -> PyResult<Vec<usize>> {
    Ok(cards::all(visible).map_err(|error| to_python(py, &error))?.collect())
}

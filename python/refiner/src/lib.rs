//! The extension `diver_refiner._refiner`: DIVER on the libtorch that Python's torch has loaded.
//!
//! The package `diver_refiner` checks arguments and makes tensors; this is what it stands on, and not for users.

// What is public here is public to Python.
#![allow(unreachable_pub, missing_docs, missing_debug_implementations)]

mod demo;
mod handle;
mod knobs;
mod refiner;
mod stages;
mod tensors;
mod waiting;
mod worker;

use pyo3::prelude::*;

#[pymodule]
mod _refiner {
    #[pymodule_export]
    use super::demo::demo;
    #[pymodule_export]
    use super::refiner::{Refiner, close_all};
    #[pymodule_export]
    use diver_python::tensor::Tensor;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        diver_python::messages::to_python(module.py())
    }
}

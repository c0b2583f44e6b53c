//! The extension `diver._engine`: the loading engine in Python, without torch.
//!
//! The package `diver` checks arguments and makes tensors; this is what it stands on, and not for users.

// What is public here is public to Python.
#![allow(unreachable_pub, missing_docs, missing_debug_implementations)]

mod adapter;
mod augment;
mod batch;
mod bulk;
mod cache;
mod command;
mod conformance;
mod labels;
mod loader;
mod mix;
mod options;
mod pixels;
mod ranks;
mod refiner;
mod sink;
mod soft_labels;
mod source;
mod teacher;
mod threads;
mod words;

use pyo3::prelude::*;

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::adapter::CancelToken;
    #[pymodule_export]
    use super::augment::Augment;
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::bulk::{export, preview, refine};
    #[pymodule_export]
    use super::cache::{Cache, parse_duration, parse_size};
    #[pymodule_export]
    use super::command::run_command;
    #[pymodule_export]
    use super::conformance::{check_refiner, check_teacher};
    #[pymodule_export]
    use super::labels::Targets;
    #[pymodule_export]
    use super::loader::Loader;
    #[pymodule_export]
    use super::mix::Mix;
    #[pymodule_export]
    use super::options::schema;
    #[pymodule_export]
    use super::pixels::source_pixels;
    #[pymodule_export]
    use super::ranks::{all_cards, own_card, ranks_from_env};
    #[pymodule_export]
    use super::refiner::Progress;
    #[pymodule_export]
    use super::soft_labels::{Making, SoftLabels};
    #[pymodule_export]
    use super::source::{Source, concat, open, subset};
    #[pymodule_export]
    use super::threads::join_threads;
    #[pymodule_export]
    use super::words::{refused_path, unknown_name};
    #[pymodule_export]
    use diver_python::tensor::Tensor;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        diver_python::messages::to_python(module.py())
    }
}

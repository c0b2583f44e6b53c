//! Errors as exceptions.
//!
//! The classes are Python's (`diver.errors`), so that both extensions raise the same ones.

use diver_loaders::Error;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::fmt;

/// A class of `diver.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The operating system refused a file operation.
    File,
    /// There is no such file.
    MissingFile,
    /// A file operation is not permitted.
    ForbiddenFile,
    /// A dataset or a file of weights is damaged or unknown.
    Data,
    /// An option or argument has a value that it cannot have.
    Option,
    /// A saved state does not belong to this loader.
    State,
    /// The refiner failed.
    Refine,
    /// The teacher failed.
    Teach,
    /// The object was closed, or belongs to another process.
    Closed,
    /// A defect in diver.
    Internal,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::File => "FileError",
            Self::MissingFile => "MissingFileError",
            Self::ForbiddenFile => "ForbiddenFileError",
            Self::Data => "DataError",
            Self::Option => "OptionError",
            Self::State => "StateError",
            Self::Refine => "RefineError",
            Self::Teach => "TeachError",
            Self::Closed => "ClosedError",
            Self::Internal => "InternalError",
        }
    }

    /// An exception of this class.
    pub fn error(self, py: Python<'_>, message: impl Into<String>) -> PyErr {
        let class = py
            .import(pyo3::intern!(py, "diver.errors"))
            .and_then(|module| module.getattr(self.name()))
            .and_then(|class| Ok(class.cast_into::<PyType>()?));
        match class {
            Ok(class) => PyErr::from_type(class, message.into()),
            Err(error) => {
                let unusable = PyImportError::new_err("the package `diver` is damaged: install it again");
                unusable.set_cause(py, Some(error));
                unusable
            }
        }
    }
}

/// A Python exception on its way through the engine, as the source of [`Error::Refine`] or [`Error::Teach`].
#[derive(Debug)]
pub struct Raised(pub PyErr);

impl fmt::Display for Raised {
    /// Those of diver speak for themselves; of others, the class is part of what they say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Python::attach(|py| {
            if is_a(py, &self.0, "DiverError") {
                write!(f, "{}", self.0.value(py))
            } else {
                write!(f, "{}", self.0)
            }
        })
    }
}

fn is_a(py: Python<'_>, raised: &PyErr, class: &str) -> bool {
    let class = py.import("diver.errors").and_then(|module| module.getattr(class));
    class.and_then(|class| raised.value(py).is_instance(&class)).unwrap_or(false)
}

impl std::error::Error for Raised {}

/// The exception for an error of the engine. One that began as a Python exception has it as its cause.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => Class::MissingFile,
            std::io::ErrorKind::PermissionDenied => Class::ForbiddenFile,
            _ => Class::File,
        },
        Error::Format { .. } | Error::Field { .. } | Error::Sample { .. } => Class::Data,
        Error::Config { .. } => Class::Option,
        Error::State { .. } => Class::State,
        Error::Refine(_) | Error::NoRefiner(_) => Class::Refine,
        Error::Teach(_) => Class::Teach,
        Error::Cancelled => Class::Closed,
        Error::Shared(shared) => return to_python(py, shared),
        _ => Class::Internal,
    };
    let raised = match error {
        Error::Refine(source) | Error::Teach(source) => source.downcast_ref().map(|Raised(raised)| raised),
        _ => None,
    };
    if let Some(raised) = raised.filter(|raised| is_a(py, raised, class.name())) {
        return raised.clone_ref(py);
    }
    let exception = class.error(py, error.to_string());
    exception.set_cause(py, raised.map(|raised| raised.clone_ref(py)));
    if let Error::Io { path, source, .. } = error {
        // As of Python's own OSError. A message alone is no less of an error.
        let _ = exception.value(py).setattr("filename", path.as_os_str());
        let _ = exception.value(py).setattr("errno", source.raw_os_error());
    }
    exception
}

//! The one error type of the engine.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can go wrong between a file on disk and a batch. Every message names the file, sample or option at
/// fault and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as in "cannot read".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file or folder is damaged, or not what it was taken for.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// One field of a file (a tensor, a key, a column) is not what it must be.
    #[error("{}: `{field}`: {reason}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The tensor, key or column.
        field: String,
        /// What was found, and what was expected.
        reason: String,
    },
    /// One sample of a dataset cannot be used.
    #[error("{}: sample {index}: {reason}", path.display())]
    Sample {
        /// The dataset.
        path: PathBuf,
        /// Position of the sample in the dataset, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An option has a value that it cannot have.
    #[error("{option}: {reason}")]
    Config {
        /// The option, by the name that users write.
        option: &'static str,
        /// What was given, and what is allowed.
        reason: String,
    },
    /// A saved loader state does not belong to this loader.
    #[error("loader state: `{field}` is {found} in the state, {expected} in this loader")]
    State {
        /// The field that differs.
        field: &'static str,
        /// This loader's value.
        expected: String,
        /// The state's value.
        found: String,
    },
    /// The refiner failed.
    #[error("refiner: {0}")]
    Refine(Box<dyn std::error::Error + Send + Sync>),
    /// The teacher failed, or returned something that is not logits.
    #[error("teacher: {0}")]
    Teach(Box<dyn std::error::Error + Send + Sync>),
    /// There is no refiner: whoever makes them could not.
    #[error("{0}")]
    NoRefiner(Box<dyn std::error::Error + Send + Sync>),
    /// The work was cancelled before it was done.
    #[error("cancelled")]
    Cancelled,
    /// A worker thread panicked: a defect in diver or in a refiner.
    #[error("thread {thread} panicked: {message}")]
    Panicked {
        /// The thread's name.
        thread: String,
        /// The panic's message.
        message: String,
    },
    /// An error that several batches meet: all of them waited for the same refinement.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
}

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`; for `map_err`.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// An [`Error::Format`] for `path`.
    pub fn format(path: &Path, reason: impl Into<String>) -> Error {
        Error::Format { path: path.to_owned(), reason: reason.into() }
    }

    /// An [`Error::Field`] for `path` and `field`.
    pub fn field(path: &Path, field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Field { path: path.to_owned(), field: field.into(), reason: reason.into() }
    }

    /// An [`Error::Sample`] for sample `index` of `path`.
    pub fn sample(path: &Path, index: usize, reason: impl Into<String>) -> Error {
        Error::Sample { path: path.to_owned(), index, reason: reason.into() }
    }

    /// An [`Error::Config`] for `option`.
    pub fn config(option: &'static str, reason: impl Into<String>) -> Error {
        Error::Config { option, reason: reason.into() }
    }

    /// An [`Error::Panicked`] of `thread`, from what `catch_unwind` caught.
    pub fn panicked(thread: &str, panic: &(dyn Any + Send)) -> Error {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Error::Panicked { thread: thread.to_owned(), message: text.unwrap_or("no message").to_owned() }
    }

    /// An [`Error::Refine`] from any error or message.
    pub fn refine(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Refine(source.into())
    }
    /// An [`Error::Teach`] from any error or message.
    pub fn teach(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Teach(source.into())
    }
}

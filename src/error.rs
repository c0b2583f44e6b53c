//! The one error type of this crate.

use std::path::{Path, PathBuf};
use tch::TchError;

/// What can go wrong between a folder of weights and a refined image. Every message names the file, knob, device
/// or tensor at fault and, where there is one, the way out.
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
    /// A file of a backbone is damaged, incomplete, or not what it was taken for.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// What the engine's readers say of a file.
    #[error(transparent)]
    Engine(#[from] diver_loaders::Error),
    /// A repository of the Hugging Face hub could not be fetched, or is not what it was taken for.
    #[error("{repository}: {reason}")]
    Hub {
        /// The repository, as `owner/name` or `owner/name@revision`.
        repository: String,
        /// What is wrong, with which file, and what to do.
        reason: String,
    },
    /// A knob has a value that it cannot have.
    #[error("{knob}: {reason}")]
    Knob {
        /// The knob, by the name that users write.
        knob: &'static str,
        /// What was given, and what is allowed.
        reason: String,
    },
    /// The device asked for cannot be used.
    #[error("device `{device}`: {reason}")]
    Device {
        /// The device, as it was asked for.
        device: String,
        /// What is missing, and what works instead.
        reason: String,
    },
    /// A tensor given by the caller has the wrong shape or dtype.
    #[error("{what}: {found} was given, {expected} is expected")]
    Tensor {
        /// Which tensor.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The refiner does not know what the caller wants to see.
    #[error("{conditioning}: {reason}")]
    Conditioning {
        /// The conditioning, in words.
        conditioning: String,
        /// What the refiner does know.
        reason: String,
    },
    /// A refined image is none.
    #[error(
        "image {image} of the batch has values that are not finite: the settings are too strong (gamma, cfg_scale), the \
         precision is too low, or the weights are damaged"
    )]
    NotFinite {
        /// Position of the image in the batch, from 0.
        image: usize,
    },
    /// Networks that were released could not be read again.
    #[error(
        "the networks were released once nothing was left to refine, and cannot be read again: {0}; make a new refiner"
    )]
    Reload(#[source] Box<Error>),
    /// libtorch failed.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] TchError),
    /// The work was cancelled before it was done.
    #[error("cancelled")]
    Cancelled,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Error {
        Error::File { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn knob(knob: &'static str, reason: impl Into<String>) -> Error {
        Error::Knob { knob, reason: reason.into() }
    }

    pub(crate) fn tensor(what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Tensor { what, expected: expected.into(), found: found.into() }
    }

    /// Whether a smaller batch may succeed where this failed: the device's memory ran out.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        // The CUDA allocator's words, the CPU's on Linux and elsewhere, those of cuBLAS and cuDNN, and those of a
        // convolution for which no plan of cuDNN's finds the memory that it works in.
        const WORDS: [&str; 5] = [
            "out of memory",
            "can't allocate memory",
            "not enough memory",
            "STATUS_ALLOC_FAILED",
            "unable to find an engine to execute this computation",
        ];
        match self {
            Error::Torch(TchError::Torch(message)) => WORDS.iter().any(|words| message.contains(words)),
            _ => false,
        }
    }
}

/// libtorch appends its C++ stack to every message.
fn first_line(error: &TchError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("Internal torch error: ").unwrap_or(&text);
    text.lines().next().unwrap_or_default().to_owned()
}

impl From<Error> for diver_loaders::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { path, action, source } => Self::Io { path, action, source },
            Error::File { path, reason } => Self::Format { path, reason },
            Error::Knob { knob, reason } => Self::Config { option: knob, reason },
            Error::Device { device, reason } => {
                Self::Config { option: "device", reason: format!("`{device}`: {reason}") }
            }
            Error::Tensor { what, expected, found } => {
                Self::Config { option: what, reason: format!("{found} was given, {expected} is expected") }
            }
            Error::Conditioning { conditioning, reason } => {
                Self::Config { option: "labels", reason: format!("{conditioning}: {reason}") }
            }
            Error::Engine(error) => error,
            Error::Cancelled => Self::Cancelled,
            hub @ Error::Hub { .. } => Self::NoRefiner(hub.into()),
            other => Self::refine(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use tch::TchError;

    #[test]
    fn torch_messages_are_one_line() {
        let error = Error::from(TchError::Torch("CUDA out of memory. Tried\nframe #0: c10".to_owned()));
        assert_eq!(error.to_string(), "libtorch: CUDA out of memory. Tried");
        assert!(error.is_out_of_memory());
    }

    #[test]
    fn memory_runs_out_in_many_words() {
        let is_out = |message: &str| Error::from(TchError::Torch(message.to_owned())).is_out_of_memory();
        for message in [
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which \
             11.94 GiB is free.",
            "CUDA error: out of memory",
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
             allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)",
            "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate \
             4398046511104 bytes.",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "GET was unable to find an engine to execute this computation",
        ] {
            assert!(is_out(message), "{message}");
        }
        assert!(!is_out("CUDA error: an illegal memory access was encountered"));
        assert!(!Error::Cancelled.is_out_of_memory());
    }

    #[test]
    fn the_engine_gets_the_matching_variant() {
        use diver_loaders::Error as Engine;
        assert!(matches!(Engine::from(Error::Cancelled), Engine::Cancelled));
        assert!(matches!(Engine::from(Error::knob("gamma", "x")), Engine::Config { option: "gamma", .. }));
        let device = Error::Device { device: "cuda:0".to_owned(), reason: "x".to_owned() };
        assert_eq!(Engine::from(device).to_string(), "device: `cuda:0`: x");
        assert_eq!(Engine::from(Error::tensor("z0", "a", "b")).to_string(), "z0: b was given, a is expected");
        let other = Error::NotFinite { image: 1 };
        assert!(matches!(Engine::from(other), Engine::Refine(_)));
    }
}

//! Reads the files of `torch.save` without torch and without executing them.
//!
//! [`TorchFile::open`] reads the object; a tensor's data is read when it is asked for.

mod globals;
mod legacy;
mod object;
mod pickle;
mod tensor;
mod zip;

pub(super) use object::Value;
pub(super) use tensor::TensorRef;

use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use tensor::Element;

const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46";

/// Whether a file that begins with `head` may be one of `torch.save`.
pub(super) fn is_torch(head: &[u8]) -> bool {
    head.starts_with(ZIP_MAGIC) || head.starts_with(LEGACY_MAGIC)
}

/// An open file of `torch.save`, of either container.
#[derive(Debug)]
pub(super) struct TorchFile {
    path: PathBuf,
    pickle: object::Pickle,
    container: Container,
}

#[derive(Debug)]
enum Container {
    Zip(zip::Zip),
    Legacy(legacy::Legacy),
}

impl TorchFile {
    /// Opens a file and reads its object.
    ///
    /// # Errors
    /// If it is no file of `torch.save`, is damaged, or holds more than tensors in lists, tuples and dicts,
    /// numbers and strings.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, "cannot read")(e);
        let mut file = BufReader::new(File::open(path).map_err(Error::io(path, "cannot open"))?);
        let mut head = Vec::new();
        file.by_ref().take(8).read_to_end(&mut head).map_err(io)?;
        file.rewind().map_err(io)?;
        let (container, pickle) = if head.starts_with(ZIP_MAGIC) {
            let (zip, pickle) = zip::Zip::open(path, file)?;
            (Container::Zip(zip), pickle)
        } else if head.starts_with(LEGACY_MAGIC) {
            let (legacy, pickle) = legacy::Legacy::open(path, file)?;
            (Container::Legacy(legacy), pickle)
        } else {
            return Err(Error::format(
                path,
                "not a file of torch.save: neither its zip nor its legacy container",
            ));
        };
        Ok(Self { path: path.to_owned(), pickle, container })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The object that was saved.
    pub(super) fn root(&self) -> Value<'_> {
        self.pickle.root()
    }

    /// The elements of one of the file's tensors, in row-major order; `field` is its name in errors.
    ///
    /// # Errors
    /// If its storage is missing, damaged or of another size.
    pub(super) fn read<T: Element>(&mut self, tensor: &TensorRef, field: &str) -> Result<Vec<T>> {
        let (path, storage) = (&self.path, &tensor.storage);
        let values = match &mut self.container {
            Container::Zip(zip) => tensor.read(zip.storage(path, storage)?),
            Container::Legacy(legacy) => tensor.read(legacy.storage(path, storage)?),
        };
        values.map_err(|e| Error::field(path, field, format!("damaged: {e}")))
    }
}

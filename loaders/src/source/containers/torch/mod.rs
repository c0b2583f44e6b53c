//! Reads the files of `torch.save` without torch and without executing them.
//!
//! [`open`] reads the object; a tensor's data is read when it is asked for.

mod globals;
mod legacy;
mod object;
mod pickle;
mod state_dict;
mod zip;

pub(crate) use object::{Pickle, Value};
pub use state_dict::StateDict;

use super::tensor::TensorFile;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46";

/// Whether a file that begins with `head` may be one of `torch.save`.
pub(crate) fn is_torch(head: &[u8]) -> bool {
    head.starts_with(ZIP_MAGIC) || head.starts_with(LEGACY_MAGIC)
}

/// Opens a file of either container: its tensors, and the object that was saved.
///
/// # Errors
/// If it is no file of `torch.save`, is damaged, or holds more than tensors in lists, tuples and dicts, numbers and
/// strings.
pub(crate) fn open(path: &Path) -> Result<(TensorFile, Pickle)> {
    let io = |e| Error::io(path, "cannot read")(e);
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let mut reader = BufReader::new(file.try_clone().map_err(io)?);
    let mut head = Vec::new();
    reader.by_ref().take(8).read_to_end(&mut head).map_err(io)?;
    reader.rewind().map_err(io)?;
    let (places, pickle) = if head.starts_with(ZIP_MAGIC) {
        zip::open(path, reader)?
    } else if head.starts_with(LEGACY_MAGIC) {
        legacy::open(path, reader)?
    } else {
        return Err(Error::format(
            path,
            "not a file of torch.save: neither its zip nor its legacy container",
        ));
    };
    Ok((TensorFile::new(path, file, places), pickle))
}

//! numpy's npz: a zip file of arrays.

use super::npy::Header;
use super::tensor::{Place, TensorFile, TensorRef, Tensors};
use super::zip;
use crate::{Error, Result};
use ::zip::CompressionMethod;
use ::zip::read::ZipFile;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Stored arrays of at most this many bytes have their checksums compared when a file is opened.
const CHECKED: u64 = 1 << 28;
/// The most that is unpacked of one file, from `savez_compressed`, in bytes.
const MOST_UNPACKED: u64 = 1 << 30;

/// The names of a file's arrays.
///
/// # Errors
/// If it is no zip file.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let names = zip::names(path)?;
    Ok(names.into_iter().filter_map(|name| Some(name.strip_suffix(".npy")?.to_owned())).collect())
}

/// Opens an npz file, and finds the arrays of these names in it.
///
/// # Errors
/// If it is no zip file, or one of the arrays is damaged or of a kind that is not read.
pub(crate) fn open(path: &Path, names: &[&str]) -> Result<(TensorFile, Tensors)> {
    let mut archive = zip::open(path)?;
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
    let (mut places, mut arrays) = (HashMap::new(), Tensors::new());
    let mut budget = MOST_UNPACKED;
    for name in names {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else { continue };
        let entry = archive.by_index(index).map_err(|e| zip::damaged(path, &e))?;
        let (tensor, place) =
            array(name, entry, length, &mut budget).map_err(|reason| Error::field(path, *name, reason))?;
        places.insert((*name).to_owned(), place);
        arrays.insert((*name).to_owned(), tensor);
    }
    Ok((TensorFile::new(path, file, places), arrays))
}

/// One array of a file of `length` bytes. What is unpacked counts toward the `budget`.
fn array(
    name: &str,
    mut entry: ZipFile<'_, BufReader<File>>,
    length: u64,
    budget: &mut u64,
) -> Result<(TensorRef, Place), String> {
    let is_stored = entry.compression() == CompressionMethod::Stored;
    let start = entry.data_start().ok_or("it cannot be found: the file is damaged")?;
    let end = start.checked_add(entry.compressed_size());
    if end.is_none_or(|end| end > length) || (is_stored && entry.size() != entry.compressed_size()) {
        return Err(format!("{} bytes in a file of {length}: the file is damaged", entry.size()));
    }
    let (header, head) = Header::read(&mut entry)?;
    let bytes = entry.size().saturating_sub(head);
    let tensor = header.tensor(name, bytes)?;
    let damaged = |e: std::io::Error| format!("damaged: {e}");
    if is_stored {
        if bytes <= CHECKED {
            // To the end, where the checksum is compared.
            std::io::copy(&mut entry, &mut std::io::sink()).map_err(damaged)?;
        }
        return Ok((tensor, Place::InFile { start: start + head, bytes, crc32: None }));
    }
    *budget = budget.checked_sub(bytes).ok_or_else(|| {
        format!(
            "{bytes} bytes, compressed: more than {MOST_UNPACKED} in a file are not unpacked; use numpy.savez"
        )
    })?;
    let mut unpacked = Vec::new();
    // One byte more than there should be, so that the end is seen, and the checksum compared.
    entry.take(bytes + 1).read_to_end(&mut unpacked).map_err(damaged)?;
    if unpacked.len() as u64 != bytes {
        return Err(format!("{} bytes where {bytes} are expected: the file is damaged", unpacked.len()));
    }
    Ok((tensor, Place::InMemory(unpacked)))
}

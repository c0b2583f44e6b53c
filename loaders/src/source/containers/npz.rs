//! numpy's npz: a zip file of arrays.
//!
//! The array header is parsed here, as the crate for it (npyz 0.9) multiplies sizes without a check and recurses as
//! deep as a header nests.

use super::super::tensors::MOST_IN_MEMORY;
use super::tensor::{DType, Place, StorageRef, TensorFile, TensorRef};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

/// The longest header that is read; numpy's are of 128 bytes.
const LONGEST_HEADER: usize = 1 << 12;
/// The most that is unpacked of one file, from `savez_compressed`, in bytes.
const MOST_UNPACKED: u64 = 1 << 30;

/// Opens an npz file, and finds the arrays of these names in it.
///
/// # Errors
/// If it is no zip file, or one of the arrays is damaged or of a kind that is not read.
pub(crate) fn open(path: &Path, names: &[&str]) -> Result<(TensorFile, BTreeMap<String, TensorRef>)> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
    let reader = BufReader::new(file.try_clone().map_err(Error::io(path, "cannot read"))?);
    let damaged = |e: &dyn std::fmt::Display| Error::format(path, format!("damaged zip file: {e}"));
    let mut archive = ZipArchive::new(reader).map_err(|e| damaged(&e))?;
    let (mut places, mut arrays) = (HashMap::new(), BTreeMap::new());
    let mut budget = MOST_UNPACKED;
    for name in names {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else { continue };
        let entry = archive.by_index(index).map_err(|e| damaged(&e))?;
        let (tensor, place) =
            array(name, entry, length, &mut budget).map_err(|reason| Error::field(path, *name, reason))?;
        places.insert((*name).to_owned(), place);
        arrays.insert((*name).to_owned(), tensor);
    }
    Ok((TensorFile::new(path, file, places), arrays))
}

/// The names of a file's arrays.
///
/// # Errors
/// If it is no zip file.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let archive = ZipArchive::new(BufReader::new(file));
    let archive = archive.map_err(|e| Error::format(path, format!("damaged zip file: {e}")))?;
    Ok(archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect())
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
    let elements = header.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
    if elements.and_then(|elements| elements.checked_mul(header.dtype.size())) != Some(bytes) {
        return Err(format!("{:?} {:?} in {bytes} bytes: the file is damaged", header.dtype, header.shape));
    }
    let storage =
        StorageRef { key: name.to_owned(), dtype: header.dtype, numel: bytes / header.dtype.size() };
    let mut shape = header.shape.clone();
    if header.fortran_order {
        shape.reverse();
    }
    let tensor = TensorRef::contiguous(storage, &shape).ok_or("its shape is too large")?;
    let tensor = if header.fortran_order { tensor.transposed() } else { tensor };
    let damaged = |e: std::io::Error| format!("damaged: {e}");
    if is_stored {
        if bytes <= MOST_IN_MEMORY as u64 {
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

/// What an array's header says.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Reads a header, with its length in bytes.
    fn read(mut array: impl Read) -> Result<(Self, u64), String> {
        let cut = |e: std::io::Error| format!("its header cannot be read: {e}");
        let mut head = [0; 8];
        array.read_exact(&mut head).map_err(cut)?;
        if !head.starts_with(b"\x93NUMPY") {
            return Err("not an array of numpy's".into());
        }
        let (length, before) = if head[6] == 1 {
            let mut length = [0; 2];
            array.read_exact(&mut length).map_err(cut)?;
            (usize::from(u16::from_le_bytes(length)), 10)
        } else {
            let mut length = [0; 4];
            array.read_exact(&mut length).map_err(cut)?;
            (usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX), 12)
        };
        if length > LONGEST_HEADER {
            return Err(format!("a header of {length} bytes"));
        }
        let mut text = vec![0; length];
        array.read_exact(&mut text).map_err(cut)?;
        let text = String::from_utf8_lossy(&text);
        let header = Self::parse(&text).ok_or_else(|| {
            let text: String = text.trim_end().chars().take(100).collect();
            format!("an array of a kind that is not read: {text}")
        })?;
        Ok((header, before + length as u64))
    }

    /// Parses the dict that numpy writes: `{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3), }`.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut dtype, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, value) = rest.strip_prefix('\'')?.split_once("':")?;
            let value = value.trim_start();
            let after = match key {
                "descr" => {
                    let (code, after) = value.strip_prefix('\'')?.split_once('\'')?;
                    dtype = Some(dtype_of(code)?);
                    after
                }
                "fortran_order" => {
                    fortran_order = Some(value.starts_with("True"));
                    value.strip_prefix("True").or_else(|| value.strip_prefix("False"))?
                }
                "shape" => {
                    let (sizes, after) = value.strip_prefix('(')?.split_once(')')?;
                    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
                    shape = Some(sizes.map(|size| size.parse().ok()).collect::<Option<Vec<u64>>>()?);
                    after
                }
                _ => return None,
            };
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self { dtype: dtype?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// numpy's codes; single bytes have no order.
fn dtype_of(code: &str) -> Option<DType> {
    Some(match code {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "<i2" => DType::I16,
        "|i1" => DType::I8,
        "|u1" => DType::U8,
        "|b1" => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed() {
        let header = |dtype, fortran_order, shape: &[u64]| {
            Some(Header { dtype, fortran_order, shape: shape.to_vec() })
        };
        for (text, expected) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3), }   \n",
                header(DType::F32, false, &[10, 3]),
            ),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (7,), }", header(DType::U8, true, &[7])),
            ("{'shape': (), 'descr': '<i8', 'fortran_order': False}", header(DType::I64, false, &[])),
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", None),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", None),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", None),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", None),
            ("{'descr': '<f4', 'fortran_order': False}", None),
            ("{'descr': '<f4", None),
            ("", None),
        ] {
            assert_eq!(Header::parse(text), expected, "{text}");
        }
    }
}

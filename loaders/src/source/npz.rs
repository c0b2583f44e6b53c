//! numpy's npz: a zip file of arrays.
//!
//! The array header is parsed here, as the crate for it (npyz 0.9) multiplies sizes without a check and recurses as
//! deep as a header nests.

use super::tensor::{DType, Place, StorageRef, TensorFile, TensorRef};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// The most arrays that are looked at.
const MOST_ARRAYS: usize = 64;
/// The longest header that is read; numpy's are of 128 bytes.
const LONGEST_HEADER: usize = 1 << 12;
/// The largest array that is unpacked from `savez_compressed`, in bytes.
const LARGEST_UNPACKED: u64 = 1 << 31;

/// Opens an npz file.
///
/// # Errors
/// If it is no zip file, or an array in it is damaged or of a kind that is not read.
pub(super) fn open(path: &Path) -> Result<(TensorFile, BTreeMap<String, TensorRef>)> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let reader = BufReader::new(file.try_clone().map_err(Error::io(path, "cannot read"))?);
    let damaged = |e: &dyn std::fmt::Display| Error::format(path, format!("damaged zip file: {e}"));
    let mut archive = ZipArchive::new(reader).map_err(|e| damaged(&e))?;
    let (mut places, mut arrays) = (HashMap::new(), BTreeMap::new());
    for index in 0..archive.len().min(MOST_ARRAYS) {
        let mut entry = archive.by_index(index).map_err(|e| damaged(&e))?;
        let Some(name) = entry.name().ok().and_then(|name| Some(name.strip_suffix(".npy")?.to_owned()))
        else {
            continue;
        };
        let refused = |reason: String| Error::field(path, &name, reason);
        let (header, length) = Header::read(&mut entry).map_err(&refused)?;
        let bytes = entry.size().saturating_sub(length);
        let storage =
            StorageRef { key: name.clone(), dtype: header.dtype, numel: bytes / header.dtype.size() };
        let tensor = if header.fortran_order {
            let reversed: Vec<u64> = header.shape.iter().rev().copied().collect();
            TensorRef::contiguous(storage, &reversed).map(|tensor| tensor.transposed())
        } else {
            TensorRef::contiguous(storage, &header.shape)
        };
        let tensor = tensor.ok_or_else(|| {
            refused(format!("{:?} {:?} in {bytes} bytes: the file is damaged", header.dtype, header.shape))
        })?;
        let place = match entry.data_start() {
            Some(start) if entry.compression() == CompressionMethod::Stored => {
                // The checksum covers the header, too; the archive is not needed to notice a short file.
                Place::InFile { start: start + length, bytes, crc32: None }
            }
            _ if bytes > LARGEST_UNPACKED => {
                return Err(refused(format!("{bytes} bytes, compressed: save it with numpy.savez")));
            }
            _ => {
                let mut unpacked = Vec::new();
                entry
                    .by_ref()
                    .take(bytes)
                    .read_to_end(&mut unpacked)
                    .map_err(|e| refused(format!("damaged: {e}")))?;
                Place::InMemory(unpacked)
            }
        };
        places.insert(name.clone(), place);
        arrays.insert(name, tensor);
    }
    Ok((TensorFile::new(path, file, places), arrays))
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

//! numpy's npy: the header of an array, and its elements.
//!
//! The header is parsed here, as the crate for it (npyz 0.9) multiplies sizes without a check and recurses as deep as a
//! header nests.

use super::tensor::{DType, Place, StorageRef, TensorFile, TensorRef};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header that is read; numpy's are of 128 bytes.
const LONGEST_HEADER: usize = 1 << 12;

/// Whether a file that begins with `head` may be one of `numpy.save`.
pub(crate) fn is_npy(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Opens a file of one array.
///
/// # Errors
/// If it is damaged, or the array is of a kind that is not read.
pub(crate) fn open(path: &Path) -> Result<(TensorFile, TensorRef)> {
    const KEY: &str = "array";
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
    let refused = |reason: String| Error::format(path, reason);
    let (header, head) = Header::read(BufReader::new(&file)).map_err(refused)?;
    let bytes = length.saturating_sub(head);
    let tensor = header.tensor(KEY, bytes).map_err(refused)?;
    let place = Place::InFile { start: head, bytes, crc32: None };
    Ok((TensorFile::new(path, file, [(KEY.to_owned(), place)].into()), tensor))
}

/// An array that lies in memory as a file would.
///
/// # Errors
/// As [`open`], without the path.
pub(crate) fn in_memory(bytes: &[u8]) -> Result<(TensorRef, Vec<u8>), String> {
    let (header, head) = Header::read(bytes)?;
    let data = bytes.get(usize::try_from(head).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec();
    Ok((header.tensor("array", data.len() as u64)?, data))
}

/// What an array's header says.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    dtype: DType,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// The array whose elements fill a storage of `bytes` under `key`.
    ///
    /// # Errors
    /// If they are more or fewer than the header says.
    pub(super) fn tensor(&self, key: &str, bytes: u64) -> Result<TensorRef, String> {
        let elements = self.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
        if elements.and_then(|elements| elements.checked_mul(self.dtype.size())) != Some(bytes) {
            return Err(format!("{:?} {:?} in {bytes} bytes: the file is damaged", self.dtype, self.shape));
        }
        let storage = StorageRef { key: key.to_owned(), dtype: self.dtype, numel: bytes / self.dtype.size() };
        let mut shape = self.shape.clone();
        if self.fortran_order {
            shape.reverse();
        }
        let tensor = TensorRef::contiguous(storage, &shape).ok_or("its shape is too large")?;
        Ok(if self.fortran_order { tensor.transposed() } else { tensor })
    }

    /// Reads a header, with its length in bytes.
    pub(super) fn read(mut array: impl Read) -> Result<(Self, u64), String> {
        let cut = |e: std::io::Error| format!("its header cannot be read: {e}");
        let mut head = [0; 8];
        array.read_exact(&mut head).map_err(cut)?;
        if !is_npy(&head) {
            return Err("it is not a numpy array".into());
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
            if text.contains("'|O'") {
                return "it is an array of Python objects, which would have to be unpickled: save plain arrays, as in \
                        numpy.savez(path, images=numpy.stack(images), labels=numpy.array(labels))"
                    .to_owned();
            }
            let advice = if text.contains("'<U") || text.contains("'|S") {
                ". Text is not read: save class indices, as in numpy.unique(labels, return_inverse=True)[1]"
            } else if text.contains("'>") {
                ". Big-endian values are not read: save array.astype(array.dtype.newbyteorder('<'))"
            } else {
                ""
            };
            format!("arrays of this kind are not read: {text}{advice}")
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
        "<u2" => DType::U16,
        "<u4" => DType::U32,
        "<u8" => DType::U64,
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

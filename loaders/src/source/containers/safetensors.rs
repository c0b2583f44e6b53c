//! safetensors: a header in JSON, and tensors one after another.

use super::tensor::{DType, Place, StorageRef, TensorFile, TensorRef, Tensors};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest header that is read, in bytes: sets have a handful of tensors, and at most a list of classes, quoted.
const LONGEST_HEADER: u64 = 1 << 23;

/// Whether a file that begins with `head` may be one of safetensors: a length, and JSON.
pub(crate) fn is_safetensors(head: &[u8]) -> bool {
    head.len() > 8 && head[8] == b'{'
}

/// A file's tensors, and its metadata.
pub(crate) type Safetensors = (TensorFile, Tensors, HashMap<String, String>);

/// Opens a file.
///
/// # Errors
/// If it is damaged.
pub(crate) fn open(path: &Path) -> Result<Safetensors> {
    let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
    let header = Header::read(path, &mut file, length)?;
    let place = |start, bytes| Place::InFile { start, bytes, crc32: None };
    let (places, tensors) = header.tensors(path, place)?;
    Ok((TensorFile::new(path, file, places), tensors, header.metadata()))
}

/// Opens what would be in a file; `path` stands for it in messages.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_bytes(path: &Path, bytes: &[u8]) -> Result<Safetensors> {
    let header = Header::read(path, bytes, bytes.len() as u64)?;
    let place = |start: u64, length: u64| {
        let start = usize::try_from(start).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(length).ok()?));
        // The header was checked against the length.
        let tensor = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        Place::InMemory(tensor.unwrap_or_default().to_vec())
    };
    let (places, tensors) = header.tensors(path, place)?;
    Ok((TensorFile::in_memory(path, places), tensors, header.metadata()))
}

/// The header of safetensors.
struct Header {
    read: safetensors::tensor::Metadata,
    /// Where the tensors begin, and how many bytes they have.
    start: u64,
    bytes: u64,
}

impl Header {
    /// Reads the front of a file of `length` bytes.
    fn read(path: &Path, mut file: impl Read, length: u64) -> Result<Self> {
        let damaged =
            |reason: String| Error::format(path, format!("cannot read the safetensors header: {reason}"));
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(Error::io(path, "cannot read"))?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER.min(length.saturating_sub(8)) {
            return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact(&mut header).map_err(Error::io(path, "cannot read"))?;
        let read = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { read, start: 8 + size, bytes: length - 8 - size })
    }

    fn metadata(&self) -> HashMap<String, String> {
        self.read.metadata().clone().unwrap_or_default()
    }

    /// The tensors that are read, and where each lies: `place` makes it from its first byte and their number.
    fn tensors(
        &self,
        path: &Path,
        place: impl Fn(u64, u64) -> Place,
    ) -> Result<(HashMap<String, Place>, Tensors)> {
        let (mut places, mut tensors) = (HashMap::new(), Tensors::new());
        for (name, info) in self.read.tensors() {
            // Tensors of other kinds may lie beside images and labels.
            let Some(dtype) = dtype(info.dtype) else { continue };
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let bytes = end.checked_sub(start).filter(|_| end <= self.bytes);
            let shape: Vec<u64> = info.shape.iter().map(|size| *size as u64).collect();
            let tensor = bytes.and_then(|bytes| {
                let storage = StorageRef { key: name.clone(), dtype, numel: bytes / dtype.size() };
                TensorRef::contiguous(storage, &shape)
            });
            let (Some(bytes), Some(tensor)) = (bytes, tensor) else {
                let reason = format!("{dtype:?} {shape:?} at bytes {start} to {end} of {}", self.bytes);
                return Err(Error::field(path, name, format!("{reason}: the file is damaged")));
            };
            places.insert(name.clone(), place(self.start + start, bytes));
            tensors.insert(name, tensor);
        }
        Ok((places, tensors))
    }
}

fn dtype(dtype: safetensors::Dtype) -> Option<DType> {
    use safetensors::Dtype;
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::U16 => DType::U16,
        Dtype::U32 => DType::U32,
        Dtype::U64 => DType::U64,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

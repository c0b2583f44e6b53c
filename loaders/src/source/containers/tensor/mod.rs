//! Tensors in files, read where they lie: torch's, numpy's and safetensors' containers differ in how they are found.

mod dtype;
mod view;

pub(crate) use dtype::{DType, Element};
pub(crate) use view::{StorageRef, TensorRef};

use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Tensors by their names in a file.
pub(crate) type Tensors = BTreeMap<String, TensorRef>;

/// Where the bytes of a storage are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the file, from `start`; with their checksum, where the container has one.
    InFile { start: u64, bytes: u64, crc32: Option<u32> },
    /// Unpacked.
    InMemory(Vec<u8>),
    /// Nowhere, for this reason.
    Missing(String),
}

impl Place {
    fn bytes(&self) -> u64 {
        match self {
            Self::InFile { bytes, .. } => *bytes,
            Self::InMemory(unpacked) => unpacked.len() as u64,
            Self::Missing(_) => 0,
        }
    }
}

/// An open file with tensors, or what would be one, in memory. It is read by position, and so from several threads at
/// once.
///
/// Not mapped into memory: a mapped file that is shortened meanwhile ends the process with a signal, where reading
/// it is an error like any other; and both touch nothing that is not asked for.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    /// None where every place is in memory.
    file: Option<File>,
    places: HashMap<String, Place>,
}

impl TensorFile {
    pub(crate) fn new(path: &Path, file: File, places: HashMap<String, Place>) -> Self {
        Self { path: path.to_owned(), file: Some(file), places }
    }

    /// Tensors in memory; `path` stands for them in errors.
    pub(crate) fn in_memory(path: &Path, places: HashMap<String, Place>) -> Self {
        Self { path: path.to_owned(), file: None, places }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The elements of a tensor, in row-major order; `field` is its name in errors. Its whole storage is read, so that
    /// a checksum over it is verified.
    ///
    /// # Errors
    /// If its storage is missing, damaged or of another size, or `T` is an integer type that cannot hold an element.
    pub(crate) fn read<T: Element>(&self, tensor: &TensorRef, field: &str) -> Result<Vec<T>> {
        let (window, crc32) = self.window(tensor, field)?;
        let mut storage = Summing { window, summed: crc32.map(|_| crc32fast::Hasher::new()) };
        let values = tensor.read(&mut storage).map_err(|e| self.unread(field, &e))?;
        let sum = storage.summed.map(crc32fast::Hasher::finalize);
        if sum == crc32 { Ok(values) } else { Err(self.damaged(field, &"invalid checksum")) }
    }

    /// The elements of one entry along a tensor's first dimension, in row-major order. Nothing else is read, and no
    /// checksum compared.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Panics
    /// If there is no such entry.
    pub(crate) fn read_row<T: Element>(&self, tensor: &TensorRef, row: usize, field: &str) -> Result<Vec<T>> {
        let (mut window, _) = self.window(tensor, field)?;
        let row = tensor.row(row);
        window.skip(row.first_byte());
        row.read_span(&mut window).map_err(|e| self.unread(field, &e))
    }

    /// As [`read_row`](Self::read_row), into `out`, of floats that lie in the file one after the other as they do in
    /// memory; says whether they do.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_row_into(
        &self,
        tensor: &TensorRef,
        row: usize,
        out: &mut [f32],
        field: &str,
    ) -> Result<bool> {
        let Some(place) = tensor.place_of_row(row, out.len()) else { return Ok(false) };
        let (mut window, _) = self.window(tensor, field)?;
        window.skip(place);
        window.read_exact(bytemuck::cast_slice_mut(out)).map_err(|e| self.unread(field, &e))?;
        Ok(true)
    }

    fn damaged(&self, field: &str, reason: &dyn std::fmt::Display) -> Error {
        Error::field(&self.path, field, format!("damaged: {reason}"))
    }

    fn unread(&self, field: &str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => Error::field(&self.path, field, error.to_string()),
            _ => self.damaged(field, error),
        }
    }

    /// The bytes of a tensor's storage.
    fn window(&self, tensor: &TensorRef, field: &str) -> Result<(Window<'_>, Option<u32>)> {
        let storage = tensor.storage();
        let refused = |reason: String| Err(Error::field(&self.path, field, reason));
        let Some(place) = self.places.get(&storage.key) else {
            return refused(format!("its storage {} is missing: the file is damaged", storage.key));
        };
        if let Place::Missing(reason) = place {
            return refused(reason.clone());
        }
        // References to one key may disagree on its size.
        if Some(place.bytes()) != storage.bytes() {
            let reason = format!(
                "{} bytes stored for {} {:?} elements: the file is damaged",
                place.bytes(),
                storage.numel,
                storage.dtype
            );
            return refused(reason);
        }
        Ok(match (place, &self.file) {
            (Place::InFile { start, bytes, crc32 }, Some(file)) => {
                (Window::File { file, at: *start, end: start.saturating_add(*bytes) }, *crc32)
            }
            (Place::InMemory(bytes), _) => (Window::Memory(bytes), None),
            (Place::InFile { .. } | Place::Missing(_), _) => (Window::Memory(&[]), None),
        })
    }
}

/// Bytes that are read from front to back.
enum Window<'a> {
    File { file: &'a File, at: u64, end: u64 },
    Memory(&'a [u8]),
}

impl Window<'_> {
    fn skip(&mut self, bytes: u64) {
        match self {
            Self::File { at, end, .. } => *at = at.saturating_add(bytes).min(*end),
            Self::Memory(slice) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(slice.len());
                *slice = &slice[bytes..];
            }
        }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File { file, at, end } => {
                let left = usize::try_from(*end - *at).unwrap_or(usize::MAX);
                let wanted = buffer.len().min(left);
                let read = read_at(file, &mut buffer[..wanted], *at)?;
                *at += read as u64;
                Ok(read)
            }
            Self::Memory(slice) => slice.read(buffer),
        }
    }
}

/// Fills `buffer` with the bytes of `file` from `at` on.
pub(crate) fn read_exactly_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match read_at(file, buffer, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                at += read as u64;
                buffer = &mut buffer[read..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads some of the bytes of `file` from `at` on.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

/// Reads some of the bytes of `file` from `at` on.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

/// Sums up what is read from a window.
struct Summing<'a> {
    window: Window<'a>,
    summed: Option<crc32fast::Hasher>,
}

impl Read for Summing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.window.read(buffer)?;
        if let Some(hasher) = &mut self.summed {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

//! Parquet files, on disk or in a store, on their way to the crate `parquet`.

mod footer;
mod format;
mod header;
mod thrift;

pub(crate) use footer::load;

use crate::source::containers::tensor::read_at;
use bytes::Bytes;
use header::PageHeader;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

/// How often a reader may be told that nothing is left.
const PATIENCE: u32 = 16;

/// How much is read ahead, in bytes: most reads are of a page's header.
const AHEAD: usize = 512;

/// Bytes that are read by position.
pub(crate) trait ReadAt {
    /// Reads some bytes from position `at` on, none at the end.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// The `length` bytes from position `at` on.
    ///
    /// # Errors
    /// If they cannot be read, or end before.
    fn bytes_at(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        At { file: self, position: at }.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        (**self).read_at(buffer, at)
    }

    fn bytes_at(&self, at: u64, length: usize) -> io::Result<Bytes> {
        (**self).bytes_at(at, length)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for Arc<R> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        (**self).read_at(buffer, at)
    }

    fn bytes_at(&self, at: u64, length: usize) -> io::Result<Bytes> {
        (**self).bytes_at(at, length)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        read_at(self, buffer, at)
    }
}

/// A file whose readers lose patience at its end, and which gives out no page whose header claims too much.
///
/// The crate (60.1) passes over fields of a page's header that it does not know, and does not look whether they are
/// there: in a damaged file it reads on at the end for each of the two billion numbers that a list may claim. And it
/// takes memory for as many values as a dictionary claims.
///
/// It is read by position: the crate's own reader of files moves a position that all threads share.
#[derive(Debug)]
pub(crate) struct ParquetFile<R = File> {
    file: Arc<R>,
    length: u64,
}

impl<R> Clone for ParquetFile<R> {
    fn clone(&self) -> Self {
        Self { file: Arc::clone(&self.file), length: self.length }
    }
}

impl ParquetFile {
    /// # Errors
    /// If the system does not tell the file's length.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self::of(file, length))
    }
}

impl<R: ReadAt> ParquetFile<R> {
    /// The file of so many bytes.
    pub(crate) fn of(file: R, length: u64) -> Self {
        Self { file: Arc::new(file), length }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &R {
        &self.file
    }

    fn reader(&self, start: u64) -> BufReader<At<Arc<R>>> {
        BufReader::with_capacity(AHEAD, At { file: Arc::clone(&self.file), position: start })
    }

    /// Bytes that are no page.
    ///
    /// # Errors
    /// If the file has not as many, or cannot be read.
    pub(crate) fn bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Before memory is taken for them.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let reason = format!("{length} bytes from {start} on, in a file of {}", self.length);
            return Err(ParquetError::EOF(reason));
        }
        Ok(self.file.bytes_at(start, length)?)
    }

    /// The header of the page that begins at `start`; none if it is not one.
    pub(crate) fn page_header(&self, start: u64) -> Option<PageHeader> {
        PageHeader::read(self.reader(start))
    }
}

impl<R> Length for ParquetFile<R> {
    fn len(&self) -> u64 {
        self.length
    }
}

impl<R: ReadAt + Send + Sync> ChunkReader for ParquetFile<R> {
    type T = Ending<BufReader<At<Arc<R>>>>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        // Most reads start at a header; what is none is let through.
        check(self.reader(start))?;
        Ok(Ending { reader: self.reader(start), ends: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.bytes(start, length)?;
        check(&bytes[..])?;
        Ok(bytes)
    }
}

fn check(header: impl Read) -> Result<()> {
    let reason = PageHeader::read(header).and_then(|header| header.refused());
    reason.map_or(Ok(()), |reason| Err(ParquetError::General(reason.to_owned())))
}

/// Reads a file from a position of its own on.
#[derive(Debug)]
pub(crate) struct At<R> {
    file: R,
    position: u64,
}

impl<R: ReadAt> Read for At<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// A reader that fails when it is asked on and on at its end.
#[derive(Debug)]
pub(crate) struct Ending<R> {
    reader: R,
    ends: u32,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.ends += 1;
            if self.ends > PATIENCE {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_some_times_and_then_refused() {
        let mut reader = Ending { reader: &b"ab"[..], ends: 0 };
        let mut buffer = [0; 8];
        assert_eq!(reader.read(&mut buffer).unwrap(), 2);
        for _ in 0..PATIENCE {
            assert_eq!(reader.read(&mut buffer).unwrap(), 0);
            assert_eq!(reader.read(&mut []).unwrap(), 0);
        }
        assert_eq!(reader.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

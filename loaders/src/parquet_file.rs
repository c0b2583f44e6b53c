//! Parquet files on disk, on their way to the crate `parquet`.

use crate::parquet_header;
use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{self, BufReader, Read};

/// How often a reader may be told that nothing is left.
const PATIENCE: u32 = 16;

/// A file whose readers lose patience at its end, and which gives out no page whose header claims too much.
///
/// The crate (60.1) passes over fields of a page's header that it does not know, and does not look whether they are
/// there: in a damaged file it reads on at the end for each of the two billion numbers that a list may claim. And it
/// takes memory for as many values as a dictionary claims.
#[derive(Debug)]
pub(crate) struct ParquetFile(File);

impl ParquetFile {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Length for ParquetFile {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for ParquetFile {
    type T = Ending<BufReader<File>>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        // Most reads start at a header; what is none is let through.
        check(self.0.get_read(start)?)?;
        Ok(Ending { reader: self.0.get_read(start)?, ends: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.0.get_bytes(start, length)?;
        check(&bytes[..])?;
        Ok(bytes)
    }
}

fn check(header: impl Read) -> Result<()> {
    parquet_header::refused(header).map_or(Ok(()), |reason| Err(ParquetError::General(reason.to_owned())))
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

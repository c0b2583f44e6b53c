//! The bytes of a pickle, read from front to back. A length is checked against what is left before anything is allocated.

use std::io::Read;

/// Shortest bytes that stay in the file: arrays are long, names are not.
const BLOB: u64 = 1 << 12;
/// As much of them is kept to tell what they are.
const HEAD: usize = 1 << 10;

/// A string of bytes in a pickle.
pub(super) enum Chunk {
    Read(Vec<u8>),
    /// From `start` to `start + length` of the file.
    Passed {
        start: u64,
        length: u64,
        head: Vec<u8>,
    },
}

pub(super) struct Input<R> {
    reader: R,
    /// Where the pickle begins in its file.
    start: u64,
    length: u64,
    left: u64,
}

impl<R: Read> Input<R> {
    /// A pickle of at most `left` bytes that begins at `start`.
    pub(super) fn new(reader: R, start: u64, left: u64) -> Self {
        Self { reader, start, length: left, left }
    }

    /// Bytes that were read.
    pub(super) fn read(&self) -> u64 {
        self.length - self.left
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        self.left = self.left.checked_sub(buffer.len() as u64).ok_or("the file ends too early")?;
        self.reader.read_exact(buffer).map_err(|e| format!("cannot read: {e}"))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// A little-endian number of `width` bytes.
    pub(super) fn number(&mut self, width: usize) -> Result<u64, String> {
        let mut number = [0; 8];
        self.take(&mut number[..width])?;
        Ok(u64::from_le_bytes(number))
    }

    fn counted(&mut self, width: usize) -> Result<u64, String> {
        let length = self.number(width)?;
        if length > self.left {
            return Err(format!("a string of {length} bytes where {} are left", self.left));
        }
        Ok(length)
    }

    /// Bytes preceded by their number, itself of `width` bytes.
    pub(super) fn bytes(&mut self, width: usize) -> Result<Vec<u8>, String> {
        let length = self.counted(width)?;
        let mut bytes = vec![0; length as usize];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// As [`bytes`](Self::bytes), but long ones are passed over.
    pub(super) fn chunk(&mut self, width: usize) -> Result<Chunk, String> {
        let length = self.counted(width)?;
        if length < BLOB {
            let mut bytes = vec![0; length as usize];
            self.take(&mut bytes)?;
            return Ok(Chunk::Read(bytes));
        }
        let start = self.start + self.read();
        let mut head = vec![0; HEAD];
        self.take(&mut head)?;
        self.skip(length - HEAD as u64)?;
        Ok(Chunk::Passed { start, length, head })
    }

    fn skip(&mut self, length: u64) -> Result<(), String> {
        // Read, not sought past, so that a checksum over all is verified.
        let skipped = std::io::copy(&mut self.reader.by_ref().take(length), &mut std::io::sink());
        if skipped.map_err(|e| format!("cannot read: {e}"))? != length {
            return Err("the file ends too early".into());
        }
        self.left -= length;
        Ok(())
    }

    /// A line without its end.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            match self.array()? {
                [b'\n'] => return Ok(line),
                [byte] => line.push(byte),
            }
        }
    }
}

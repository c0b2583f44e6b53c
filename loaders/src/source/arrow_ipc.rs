//! Arrow files of image datasets, as Hugging Face `datasets` caches them and `save_to_disk` writes them: streams of
//! Arrow's IPC format, or files of it.

use super::table::{self, Rows};
use super::{OpenOptions, Source};
use crate::{Error, Result};
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use std::path::{Path, PathBuf};

/// How a file of the IPC format begins, and, but for the zeros, ends. After it come zeros up to some boundary, then a stream, and then a footer,
/// which is not needed.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// How every message of a stream begins.
const MESSAGE: [u8; 4] = [0xff; 4];

/// Whether a file that begins with `head` may be one of Arrow.
pub(super) fn is_arrow(head: &[u8]) -> bool {
    head.starts_with(FILE_MAGIC) || head.starts_with(&MESSAGE)
}

/// Opens the files as one set; `path` is what the user named.
pub(super) fn open(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Box<dyn Source>> {
    table::open(path, files, "arrow", options, |file| {
        let bytes = std::fs::read(file).map_err(Error::io(file, "cannot read"))?;
        // A message's header is a flatbuffer, of which the crate takes some parts for granted.
        std::panic::catch_unwind(|| read(file, bytes))
            .unwrap_or_else(|_| Err(damaged(file, "its messages contradict its schema")))
    })
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("not an Arrow file that can be read: {reason}"))
}

fn read(path: &Path, bytes: Vec<u8>) -> Result<Rows> {
    let mut rest = Buffer::from_vec(bytes);
    let is_file = rest.starts_with(FILE_MAGIC);
    if is_file {
        // The decoder takes a cut between two messages for the end.
        if !rest.ends_with(b"ARROW1") {
            return Err(damaged(path, "it was cut short"));
        }
        let zeros = rest[FILE_MAGIC.len()..].iter().take_while(|byte| **byte == 0).count();
        rest.advance(FILE_MAGIC.len() + zeros);
    }
    let mut decoder = StreamDecoder::new();
    let mut rows = None;
    loop {
        let batch = match decoder.decode(&mut rest) {
            Ok(batch) => batch,
            // The footer, after the end of the stream.
            Err(_) if is_file && decoder.finish().is_ok() => break,
            Err(error) => return Err(damaged(path, error)),
        };
        let Some(batch) = batch else { break };
        let rows = match &mut rows {
            Some(rows) => rows,
            None => {
                table::columns(path, &batch.schema())?;
                rows.insert(Rows::new(&batch.schema()))
            }
        };
        rows.push(path, &batch)?;
    }
    decoder.finish().map_err(|e| damaged(path, e))?;
    rows.ok_or_else(|| Error::field(path, table::COLUMNS[0], "no rows"))
}

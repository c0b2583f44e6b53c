//! Arrow files of image datasets, as Hugging Face `datasets` caches them and `save_to_disk` writes them: streams of
//! Arrow's IPC format, or files of it, as Feather's are; their columns may be compressed.

use super::table::{self, Rows};
use super::{OpenOptions, Source};
use crate::wording::counted;
use crate::{Error, Result};
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{RecordBatch, root_as_message};
use std::path::{Path, PathBuf};

/// How a file of the IPC format begins, and, but for the zeros, ends. After it come zeros up to some boundary, then a
/// stream, and then a footer, which is not needed.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// How every message of a stream begins.
const MESSAGE: [u8; 4] = [0xff; 4];

/// What a file's compressed columns may unpack to: so many bytes, and so many for each byte of the file. Images hardly
/// shrink; the labels of a sorted set do a thousandfold.
const UNPACKED: u64 = 16 << 20;
const UNPACKED_OF_EACH: u64 = 1 << 10;

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
    let mut budget = UNPACKED.saturating_add(UNPACKED_OF_EACH.saturating_mul(rest.len() as u64));
    let mut decoder = StreamDecoder::new();
    let mut rows = None;
    let mut has_ended = false;
    while !has_ended && !rest.is_empty() {
        let length = match next_message(&rest, &mut budget).map_err(|reason| damaged(path, reason))? {
            Next::Message(length) => length,
            Next::End(length) => {
                has_ended = true;
                length
            }
        };
        let mut message = rest.slice_with_length(0, length);
        rest.advance(length);
        while !message.is_empty() {
            let Some(batch) = decoder.decode(&mut message).map_err(|e| damaged(path, e))? else { continue };
            let rows = match &mut rows {
                Some(rows) => rows,
                None => {
                    table::columns(path, &batch.schema())?;
                    rows.insert(Rows::new(&batch.schema()))
                }
            };
            rows.push(path, &batch)?;
        }
    }
    decoder.finish().map_err(|e| damaged(path, e))?;
    if !is_file && !rest.is_empty() {
        return Err(damaged(path, format!("it goes on after its end, for {}", counted(rest.len(), "byte"))));
    }
    rows.ok_or_else(|| Error::field(path, table::COLUMNS[0], "no rows"))
}

/// What a stream goes on with, and how many bytes that is.
enum Next {
    Message(usize),
    End(usize),
}

/// Looks at the message that `bytes` begin with, before it is decoded: the crate allocates whatever size a compressed
/// column claims to have. That is taken from the `budget`.
fn next_message(bytes: &[u8], budget: &mut u64) -> Result<Next, String> {
    let cut = || "it was cut short".to_owned();
    // Before Arrow 0.15, messages began with their size.
    let head = if bytes.starts_with(&MESSAGE) { 8 } else { 4 };
    let size = bytes.get(head - 4..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
    let size = u32::from_le_bytes(*size) as usize;
    if size == 0 {
        return Ok(Next::End(head));
    }
    let start = head.saturating_add(size);
    let message = bytes.get(head..start).ok_or_else(cut)?;
    let message = root_as_message(message).map_err(|e| e.to_string())?;
    let length = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
    let end = start.saturating_add(length);
    let body = bytes.get(start..end).ok_or_else(cut)?;
    let of_dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
    if let Some(batch) = message.header_as_record_batch().or(of_dictionary) {
        let claimed = unpacked(batch, body);
        *budget = budget.checked_sub(claimed).ok_or_else(|| {
            format!("its compressed columns claim to hold {claimed} bytes, too many for a file of its size")
        })?;
    }
    Ok(Next::Message(end))
}

/// The bytes that the compressed columns of a batch claim to unpack to.
fn unpacked(batch: RecordBatch<'_>, body: &[u8]) -> u64 {
    let buffers = batch.compression().and_then(|_| batch.buffers());
    let claims = buffers.into_iter().flatten().filter_map(|buffer| {
        let start = usize::try_from(buffer.offset()).ok()?;
        let claim = i64::from_le_bytes(*body.get(start..)?.first_chunk()?);
        // What is not compressed claims -1; nothing at all says nothing.
        u64::try_from(claim).ok().filter(|_| buffer.length() > 0)
    });
    claims.fold(0, u64::saturating_add)
}

//! Arrow's IPC format: streams, as Hugging Face `datasets` caches tables and saves them, and files, as Feather's are;
//! their columns may be compressed.
//!
//! Opening reads the headers of the messages. Of a message's body, only the buffers of columns that are wanted are
//! read; and of a column of bytes that is not compressed, only the rows that are wanted.

use super::arrow_body::{Body, Rows};
use super::table::{ColumnPath, KeptFile, TableFile, check_rows};
use crate::wording::counted;
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{Endianness, convert, root_as_footer, root_as_message};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// How a file of the IPC format begins, and, but for the zeros, ends.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// How every message of a stream begins.
const MESSAGE: [u8; 4] = [0xff; 4];

/// How many bytes a file ends with: the size of its footer, and what it began with.
const TAIL: u64 = 10;

/// Whether a file that begins with `head` may be one of Arrow.
pub(crate) fn is_arrow(head: &[u8]) -> bool {
    head.starts_with(FILE_MAGIC) || head.starts_with(&MESSAGE)
}

/// An Arrow file, of which the places of its messages are in memory.
#[derive(Debug)]
pub(crate) struct ArrowTable {
    kept: KeptFile,
    file: File,
    schema: SchemaRef,
    /// Those of record batches and of dictionaries, in the file's order.
    messages: Vec<Message>,
    /// Of each record batch, its place among the messages, and its first row.
    batches: Vec<(usize, usize)>,
    rows: usize,
}

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
struct Message {
    header: u64,
    body: u64,
    end: u64,
}

impl ArrowTable {
    /// Reads the headers of the file at `path`.
    ///
    /// # Errors
    /// If one is damaged, or the file was cut short.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (kept, file) = KeptFile::open(path)?;
        guarded(path, || Self::walk(kept, file))
    }

    fn walk(kept: KeptFile, file: File) -> Result<Self> {
        let head = kept.bytes(&file, 0..kept.length().min(FILE_MAGIC.len() as u64))?.unwrap_or_default();
        let schema = SchemaRef::new(Schema::empty());
        let table = Self { kept, file, schema, messages: Vec::new(), batches: Vec::new(), rows: 0 };
        if head.starts_with(FILE_MAGIC) { table.with_footer() } else { table.with_stream() }
    }

    /// Finds the messages of a file through its footer. (Most have a stream before it, whose first message polars leaves
    /// out.)
    fn with_footer(mut self) -> Result<Self> {
        let length = self.kept.length();
        let path = self.kept.path().to_owned();
        let damaged = |reason: String| damaged(&path, reason);
        let cut = || damaged("it was cut short".into());
        let tail = self.kept.bytes(&self.file, length.saturating_sub(TAIL)..length)?.ok_or_else(cut)?;
        let (size, magic) = tail.split_at(tail.len().min(4));
        if magic != &FILE_MAGIC[..6] {
            return Err(cut());
        }
        let size = size.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let start = (length - TAIL).checked_sub(u64::from(size)).ok_or_else(cut)?;
        let footer = self.kept.bytes(&self.file, start..length - TAIL)?.ok_or_else(cut)?;
        let footer = root_as_footer(&footer).map_err(|e| damaged(e.to_string()))?;
        let schema = footer.schema().ok_or_else(|| damaged("its schema is missing".into()))?;
        self.schema = Arc::new(read_schema(schema).map_err(damaged)?);
        for block in [footer.dictionaries(), footer.recordBatches()].into_iter().flatten().flatten() {
            let mut at = u64::try_from(block.offset()).unwrap_or(u64::MAX);
            let message = next_message(&self.kept, &self.file, &mut at)?;
            self.add(message.ok_or_else(|| damaged("its footer names a message that is not there".into()))?)?;
        }
        Ok(self)
    }

    /// Finds the messages of a stream, one after another.
    fn with_stream(mut self) -> Result<Self> {
        let (mut at, mut has_schema) = (0, false);
        while at < self.kept.length() {
            let Some(message) = next_message(&self.kept, &self.file, &mut at)? else { break };
            if has_schema {
                self.add(message)?;
                continue;
            }
            let bytes = header(&self.kept, &self.file, message)?;
            let schema = root_as_message(&bytes).ok().and_then(|message| message.header_as_schema());
            let schema = schema.ok_or_else(|| damaged(self.path(), "it does not begin with a schema"))?;
            self.schema = Arc::new(read_schema(schema).map_err(|reason| damaged(self.path(), reason))?);
            has_schema = true;
        }
        if at < self.kept.length() {
            let more = counted(usize::try_from(self.kept.length() - at).unwrap_or(usize::MAX), "byte");
            return Err(damaged(self.path(), format!("it goes on after its end, for {more}")));
        }
        if has_schema { Ok(self) } else { Err(damaged(self.path(), "it was cut short")) }
    }

    fn add(&mut self, message: Message) -> Result<()> {
        let bytes = header(&self.kept, &self.file, message)?;
        let found = root_as_message(&bytes).map_err(|e| damaged(self.path(), e))?;
        if let Some(batch) = found.header_as_record_batch() {
            let count = u64::try_from(batch.length()).unwrap_or(u64::MAX);
            let rows = check_rows(count.saturating_add(self.rows as u64), self.kept.length());
            self.batches.push((self.messages.len(), self.rows));
            self.rows = rows.map_err(|reason| damaged(self.path(), reason))?;
        } else if found.header_as_dictionary_batch().is_none() {
            return Err(damaged(self.path(), "a message that is no record batch where one is expected"));
        }
        self.messages.push(message);
        Ok(())
    }

    /// The record batch with a row.
    fn batch(&self, row: usize) -> usize {
        self.batches.partition_point(|(_, first)| *first <= row) - 1
    }

    /// The rows of a record batch.
    fn span(&self, batch: usize) -> Range<usize> {
        let end = self.batches.get(batch + 1).map_or(self.rows, |(_, first)| *first);
        self.batches[batch].1..end
    }

    /// Gives a message's header, and what of its body is asked for, to `read`.
    fn message<T>(
        &self,
        message: usize,
        read: impl FnOnce(arrow::ipc::Message<'_>, &Body<'_>) -> Result<T, String>,
    ) -> Result<T> {
        let message = self.messages[message];
        let bytes = header(&self.kept, &self.file, message)?;
        let header = root_as_message(&bytes).map_err(|e| damaged(self.path(), e))?;
        let body = Body { kept: &self.kept, file: &self.file, place: message.body..message.end };
        read(header, &body).map_err(|reason| damaged(self.path(), reason))
    }

    /// Whole columns of a record batch.
    fn read_batch(
        &self,
        batch: usize,
        columns: &[usize],
        dictionaries: &HashMap<i64, ArrayRef>,
    ) -> Result<RecordBatch> {
        self.message(self.batches[batch].0, |header, body| {
            let batch = header.header_as_record_batch().ok_or("no record batch")?;
            let bytes = body.of_columns(batch, &self.schema, header.version(), columns)?;
            let schema = Arc::clone(&self.schema);
            read_record_batch(&bytes, batch, schema, dictionaries, Some(columns), &header.version())
                .map_err(|e| e.to_string())
        })
    }

    /// Adds a dictionary, if it is of one of `columns`.
    fn add_dictionary(
        &self,
        message: usize,
        columns: &[usize],
        dictionaries: &mut HashMap<i64, ArrayRef>,
    ) -> Result<()> {
        self.message(message, |header, body| {
            let Some(batch) = header.header_as_dictionary_batch() else { return Ok(()) };
            #[expect(deprecated, reason = "a field's dictionary is found by nothing else")]
            let is_wanted = |column: &usize| self.schema.field(*column).dict_id() == Some(batch.id());
            if !columns.iter().any(is_wanted) {
                return Ok(());
            }
            let bytes = body.whole(batch.data())?;
            read_dictionary(&bytes, batch, &self.schema, dictionaries, &header.version())
                .map_err(|e| e.to_string())
        })
    }

    /// Where the values of a column of bytes lie in a record batch, if single rows can be read of it.
    fn by_rows(&self, batch: usize, path: ColumnPath) -> Result<Option<Rows>> {
        self.message(self.batches[batch].0, |header, _| {
            let batch = header.header_as_record_batch().ok_or("no record batch")?;
            Rows::find(batch, &self.schema, header.version(), path)
        })
    }
}

impl TableFile for ArrowTable {
    fn path(&self) -> &Path {
        self.kept.path()
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn scan(&self, columns: &[usize], each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let mut dictionaries = HashMap::new();
        let mut batches = 0;
        for message in 0..self.messages.len() {
            if self.batches.get(batches).is_some_and(|(place, _)| *place == message) {
                let read = guarded(self.path(), || self.read_batch(batches, columns, &dictionaries))?;
                each(&read)?;
                batches += 1;
            } else {
                guarded(self.path(), || self.add_dictionary(message, columns, &mut dictionaries))?;
            }
        }
        self.kept.check(&self.file)
    }

    fn block(&self, column: ColumnPath, row: usize) -> Result<Range<usize>> {
        let batch = self.batch(row);
        let by_rows = guarded(self.path(), || self.by_rows(batch, column))?;
        Ok(if by_rows.is_some() { row..row + 1 } else { self.span(batch) })
    }

    fn read(&self, column: ColumnPath, block: Range<usize>) -> Result<ArrayRef> {
        let batch = self.batch(block.start);
        let span = self.span(batch);
        let array = guarded(self.path(), || {
            if let Some(rows) = self.by_rows(batch, column)? {
                let rows = self.message(self.batches[batch].0, |_, body| {
                    rows.read(body, block.start - span.start..block.end - span.start)
                });
                return rows.map(|rows| Arc::new(rows) as ArrayRef);
            }
            if matches!(self.schema.field(column.column).data_type(), DataType::Dictionary(..)) {
                return Err(damaged(self.path(), "images in a dictionary"));
            }
            let whole = self.read_batch(batch, &[column.column], &HashMap::new())?;
            let whole = Arc::clone(whole.column(0));
            let Some(field) = column.field else { return Ok(whole) };
            let fields = whole.as_struct_opt().ok_or_else(|| damaged(self.path(), "no structs"))?;
            let inner = fields.column(field);
            let nulls = arrow::buffer::NullBuffer::union(fields.nulls(), inner.nulls());
            let inner = inner.to_data().into_builder().nulls(nulls).build();
            Ok(make_array(inner.map_err(|e| damaged(self.path(), e))?))
        })?;
        self.kept.check(&self.file)?;
        if array.len() != block.len() {
            return Err(damaged(self.path(), "a column is shorter than its record batch"));
        }
        Ok(array)
    }
}

/// Finds the message at `at`, and moves on to its end; none at the end of the stream.
fn next_message(kept: &KeptFile, file: &File, at: &mut u64) -> Result<Option<Message>> {
    let cut = || damaged(kept.path(), "it was cut short");
    let first = kept.bytes(file, *at..at.saturating_add(4))?.ok_or_else(cut)?;
    // Before Arrow 0.15, messages began with their size.
    let size = match first == MESSAGE {
        true => kept.bytes(file, at.saturating_add(4)..at.saturating_add(8))?.ok_or_else(cut)?,
        false => first.clone(),
    };
    let start = *at + if first == MESSAGE { 8 } else { 4 };
    let size = size.first_chunk().copied().map_or(0, u32::from_le_bytes);
    *at = start;
    if size == 0 {
        return Ok(None);
    }
    let body = start.saturating_add(u64::from(size));
    let bytes = kept.bytes(file, start..body)?.ok_or_else(cut)?;
    let message = root_as_message(&bytes).map_err(|e| damaged(kept.path(), e))?;
    let end = body.saturating_add(u64::try_from(message.bodyLength()).unwrap_or(u64::MAX));
    if end > kept.length() {
        return Err(cut());
    }
    *at = end;
    Ok(Some(Message { header: start, body, end }))
}

fn read_schema(schema: arrow::ipc::Schema<'_>) -> Result<Schema, String> {
    if schema.endianness() != Endianness::Little {
        return Err("its numbers are big-endian".into());
    }
    convert::try_fb_to_schema(schema).map_err(|e| e.to_string())
}

fn header(kept: &KeptFile, file: &File, message: Message) -> Result<Vec<u8>> {
    let bytes = kept.bytes(file, message.header..message.body)?;
    bytes.ok_or_else(|| damaged(kept.path(), "it was cut short"))
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("not an Arrow file that can be read: {reason}"))
}

/// Runs the decoder: a message's header is a flatbuffer, of which the crate takes some parts for granted.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(path, "its messages contradict its schema")))
}

//! One Parquet part: rows to bytes, and single rows back.
//!
//! The keys of a part's rows stand in its footer once more (`diver.keys`, one after the other in hex), so that one read
//! of its end tells what is in it. In parts that version 0.1 wrote they stand in the column `key` alone.

use super::artifact::Artifact;
use super::store::PartStore;
use super::{FORMAT, RowKey};
use crate::parquet_file::{self, ParquetFile, ReadAt};
use crate::{Digest, Error, Result};
use arrow::array::{AsArray as _, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::{KeyValue, PageIndexPolicy};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::Length as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const KEYS: &str = "diver.keys";
const ORDERS: &str = "diver.orders";
const VERSION: &str = "diver.format";

/// How many bytes of a part's end are read when it is opened: with them come the footer and the small columns.
const TAIL: u64 = 1 << 16;

/// Encodes `rows` as a Parquet file. `class_names` name the labels.
pub(super) fn encode<A: Artifact>(rows: &[A], class_names: &[String]) -> Result<Vec<u8>> {
    let keys: Vec<RowKey> = rows.iter().map(Artifact::key).collect();
    write(&A::table(rows, class_names)?, &keys, &[])
}

/// Encodes a table of rows with these keys. `orders` are the numbers of the parts in which the rows were first committed;
/// none if that is the one they are written to.
pub(super) fn write(table: &RecordBatch, keys: &[RowKey], orders: &[u32]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::config("cache", format!("cannot encode a part: {e}"));
    let keys: String = keys.iter().map(|key| key.digest().to_string()).collect();
    let mut metadata =
        vec![KeyValue::new(VERSION.to_owned(), FORMAT.to_string()), KeyValue::new(KEYS.to_owned(), keys)];
    if !orders.is_empty() {
        let orders: Vec<String> = orders.iter().map(u32::to_string).collect();
        metadata.push(KeyValue::new(ORDERS.to_owned(), orders.join(",")));
    }
    let properties = WriterProperties::builder()
        // PNG does not compress further. A page for each row lets one image be read without its neighbours.
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(1)
        .set_write_batch_size(1)
        .set_key_value_metadata(Some(metadata))
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties)).map_err(|e| failed(&e))?;
    writer.write(table).map_err(|e| failed(&e))?;
    writer.into_inner().map_err(|e| failed(&e))
}

/// What a part says of itself when it is opened.
#[derive(PartialEq)]
pub(super) struct Part {
    pub(super) keys: Vec<RowKey>,
    /// The numbers of the parts in which the rows were first committed, if that is not this one.
    pub(super) orders: Option<Vec<u32>>,
}

impl Part {
    /// The number of the part in which a row was first committed; `own` is this part's.
    pub(super) fn order(&self, row: usize, own: u32) -> u32 {
        self.orders.as_ref().and_then(|orders| orders.get(row).copied()).unwrap_or(own)
    }
}

/// What opening a part finds.
pub(super) enum Opened {
    Part(Part),
    /// A version of diver wrote it that this one does not know.
    Newer(String),
}

/// Reads the keys of a part's rows.
///
/// # Errors
/// [`Error::Io`] if the store does not give it out, [`Error::Format`] if it is damaged.
pub(super) fn open(store: &Arc<dyn PartStore>, name: &str) -> Result<Opened> {
    let file = file(store, name)?;
    guarded(store, name, |path| keys(path, &file, &metadata(path, &file, PageIndexPolicy::Skip)?))
}

/// The keys of the rows, as the footer has them or the column.
fn keys<R: ReadAt + Send + Sync + 'static>(
    path: &Path,
    file: &ParquetFile<R>,
    metadata: &ArrowReaderMetadata,
) -> Result<Opened> {
    let said = metadata.metadata().file_metadata().key_value_metadata();
    let value = |key: &str| said?.iter().find(|pair| pair.key == key)?.value.as_deref();
    if let Some(version) = value(VERSION).filter(|version| *version != FORMAT.to_string()) {
        return Ok(Opened::Newer(version.to_owned()));
    }
    let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX);
    let keys = match value(KEYS) {
        Some(keys) => keys
            .as_bytes()
            .chunks(64)
            .map(|key| parse_key(path, std::str::from_utf8(key).unwrap_or_default()))
            .collect::<Result<Vec<_>>>()?,
        None => column_keys(path, file, metadata)?,
    };
    let orders = value(ORDERS).map(|text| text.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>());
    let orders = orders.transpose().map_err(|e| damaged(path, e))?;
    if keys.len() != rows || orders.as_ref().is_some_and(|orders| orders.len() != rows) {
        return Err(damaged(path, format!("{} keys for {rows} rows", keys.len())));
    }
    Ok(Opened::Part(Part { keys, orders }))
}

/// What it takes to read single rows of a part with one read each: where their pages are, and what is in the small columns.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    metadata: ArrowReaderMetadata,
    /// The part's size in bytes.
    size: u64,
    keys: Arc<[RowKey]>,
    digests: Arc<[Digest]>,
}

impl Rows {
    fn of<R: ReadAt + Send + Sync + 'static>(path: &Path, file: &ParquetFile<R>) -> Result<Self> {
        let metadata = metadata(path, file, PageIndexPolicy::Required)?;
        let (mut keys, mut digests) = (Vec::new(), Vec::new());
        for batch in reader(path, file, &metadata, &["key", "digest"], None)? {
            let batch = batch?;
            for (key, digest) in text_column(path, &batch, "key")?.zip(text_column(path, &batch, "digest")?) {
                keys.push(parse_key(path, key)?);
                digests.push(digest.parse::<Digest>().map_err(|e| damaged(path, e))?);
            }
        }
        Ok(Self { metadata, size: file.len(), keys: keys.into(), digests: digests.into() })
    }

    /// Number of rows.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }
}

/// What is read when the first row of a part is.
///
/// # Errors
/// As [`open`].
pub(super) fn rows(store: &Arc<dyn PartStore>, name: &str) -> Result<Rows> {
    let file = file(store, name)?;
    guarded(store, name, |path| Rows::of(path, &file))
}

/// Reads what is in row `row`, and checks that it is what was written under `key`. `rows` are the part's.
///
/// # Errors
/// As [`open`].
pub(super) fn read<A: Artifact>(
    store: &Arc<dyn PartStore>,
    name: &str,
    rows: &Rows,
    row: usize,
    key: &RowKey,
) -> Result<A::Value> {
    let file = InStore::new(store, name, Bytes::new(), rows.size);
    guarded(store, name, |path| read_row::<A, _>(path, &file, rows, row, key))
}

fn read_row<A: Artifact, R: ReadAt + Send + Sync + 'static>(
    path: &Path,
    file: &ParquetFile<R>,
    rows: &Rows,
    row: usize,
    key: &RowKey,
) -> Result<A::Value> {
    let selection = RowSelection::from(vec![RowSelector::skip(row), RowSelector::select(1)]);
    let mut batches = reader(path, file, &rows.metadata, A::COLUMNS, Some(selection))?;
    let table = batches.next().ok_or_else(|| damaged(path, format!("no row {row}")))??;
    let (found, digest) = (rows.keys.get(row), rows.digests.get(row));
    let (Some(found), Some(digest)) = (found, digest) else {
        return Err(damaged(path, format!("no row {row}")));
    };
    check::<A>(path, &table, row, (found == key).then_some(digest))
}

/// Decodes row 0 of `table`, which is row `row` of its part, if it is sound: if it has this digest, and any.
fn check<A: Artifact>(
    path: &Path,
    table: &RecordBatch,
    row: usize,
    digest: Option<&Digest>,
) -> Result<A::Value> {
    let content = A::content(table).map_err(|reason| damaged(path, format!("row {row} {reason}")))?;
    if Some(&Digest::of(&content)) != digest {
        return Err(damaged(path, format!("row {row} does not match its digest")));
    }
    A::decode(&content).map_err(|e| damaged(path, format!("row {row}: {e}")))
}

/// A part that was read whole, at one time.
pub(super) struct WholePart {
    pub(super) part: Part,
    /// Its rows, with every column.
    pub(super) tables: Vec<RecordBatch>,
}

/// Reads a whole part, and checks every row of it.
///
/// # Errors
/// As [`open`]; also [`Error::Format`] if a newer version wrote it.
pub(super) fn whole<A: Artifact>(store: &Arc<dyn PartStore>, name: &str) -> Result<WholePart> {
    let bytes = store.get(name)?;
    guarded(store, name, |path| whole_of::<A>(path, &in_memory(bytes)))
}

/// Reads a whole part, and each of its rows once more as readers do, by the places of its pages: these may be damaged
/// where the rows are not.
///
/// # Errors
/// As [`whole`].
pub(super) fn sound<A: Artifact>(store: &Arc<dyn PartStore>, name: &str) -> Result<Part> {
    let bytes = store.get(name)?;
    guarded(store, name, |path| {
        let file = in_memory(bytes);
        let WholePart { part, .. } = whole_of::<A>(path, &file)?;
        let rows = Rows::of(path, &file)?;
        for (row, key) in part.keys.iter().enumerate() {
            read_row::<A, _>(path, &file, &rows, row, key)?;
        }
        Ok(part)
    })
}

fn whole_of<A: Artifact>(path: &Path, file: &ParquetFile<InMemory>) -> Result<WholePart> {
    let metadata = metadata(path, file, PageIndexPolicy::Skip)?;
    let part = match keys(path, file, &metadata)? {
        Opened::Part(part) => part,
        Opened::Newer(version) => {
            return Err(Error::format(path, format!("format {version} is not known")));
        }
    };
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata);
    let batches = builder.build().map_err(|e| damaged(path, e))?;
    let tables = batches.map(|batch| batch.map_err(|e| damaged(path, e))).collect::<Result<Vec<_>>>()?;
    let rows = tables.iter().flat_map(|table| (0..table.num_rows()).map(move |row| table.slice(row, 1)));
    for (at, (row, key)) in rows.zip(&part.keys).enumerate() {
        let found = text_column(path, &row, "key")?.next().unwrap_or_default();
        let digest = text_column(path, &row, "digest")?.next().unwrap_or_default().parse().ok();
        check::<A>(path, &row, at, digest.as_ref().filter(|_| key.digest().to_string() == found))?;
    }
    let rows: usize = tables.iter().map(RecordBatch::num_rows).sum();
    if rows != part.keys.len() {
        return Err(damaged(path, format!("{rows} rows for {} keys", part.keys.len())));
    }
    Ok(WholePart { part, tables })
}

fn in_memory(bytes: Bytes) -> ParquetFile<InMemory> {
    let length = bytes.len() as u64;
    ParquetFile::of(InMemory(bytes), length)
}

fn column_keys<R: ReadAt + Send + Sync + 'static>(
    path: &Path,
    file: &ParquetFile<R>,
    metadata: &ArrowReaderMetadata,
) -> Result<Vec<RowKey>> {
    let mut keys = Vec::new();
    for batch in reader(path, file, metadata, &["key"], None)? {
        for key in text_column(path, &batch?, "key")? {
            keys.push(parse_key(path, key)?);
        }
    }
    Ok(keys)
}

fn parse_key(path: &Path, text: &str) -> Result<RowKey> {
    text.parse::<Digest>().map(RowKey::from).map_err(|e| damaged(path, e))
}

fn metadata<R: ReadAt + Send + Sync + 'static>(
    path: &Path,
    file: &ParquetFile<R>,
    offsets: PageIndexPolicy,
) -> Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new().with_offset_index_policy(offsets);
    parquet_file::load(file, options).map_err(|e| damaged(path, e))
}

fn reader<'a, R: ReadAt + Send + Sync + 'static>(
    path: &'a Path,
    file: &ParquetFile<R>,
    metadata: &ArrowReaderMetadata,
    columns: &[&str],
    selection: Option<RowSelection>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'a, R>> {
    let schema = metadata.parquet_schema();
    let roots = schema.root_schema().get_fields();
    let positions: Vec<_> =
        columns.iter().filter_map(|c| roots.iter().position(|f| f.name() == *c)).collect();
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone())
        .with_projection(ProjectionMask::roots(schema, positions));
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let batches = builder.build().map_err(|e| damaged(path, e))?;
    Ok(batches.map(move |batch| batch.map_err(|e| damaged(path, e))))
}

fn text_column<'a>(path: &Path, batch: &'a RecordBatch, name: &str) -> Result<impl Iterator<Item = &'a str>> {
    let column = batch
        .column_by_name(name)
        .and_then(|column| column.as_string_opt::<i32>())
        .ok_or_else(|| damaged(path, format!("no string column `{name}`")))?;
    Ok(column.iter().map(Option::unwrap_or_default))
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("damaged part: {reason}"))
}

/// Runs a decoder over a file that may be damaged: should it panic, the file is the culprit.
fn guarded<T>(store: &Arc<dyn PartStore>, name: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let path = store.place(name);
    let result = catch_unwind(AssertUnwindSafe(|| read(&path)))
        .unwrap_or_else(|_| Err(damaged(&path, "the Parquet decoder gave up")));
    if matches!(result, Err(Error::Format { .. })) {
        // The decoder hides the store's errors among its own. A file that cannot be read may be sound.
        store.get(name)?;
    }
    result
}

/// A part, with its end at hand.
fn file(store: &Arc<dyn PartStore>, name: &str) -> Result<ParquetFile<InStore>> {
    let (tail, size) = store.tail(name, TAIL)?;
    Ok(InStore::new(store, name, tail, size))
}

/// A file of a store: its end, and the block that was read last, are kept.
#[derive(Debug)]
struct InStore {
    store: Arc<dyn PartStore>,
    name: String,
    tail: Bytes,
    /// Where `tail` begins.
    start: u64,
    size: u64,
    block: Mutex<(u64, Bytes)>,
}

impl InStore {
    /// A part of so many bytes, of which the last ones are at hand.
    fn new(store: &Arc<dyn PartStore>, name: &str, tail: Bytes, size: u64) -> ParquetFile<Self> {
        let start = size - tail.len() as u64;
        let (store, name) = (Arc::clone(store), name.to_owned());
        ParquetFile::of(Self { store, name, tail, start, size, block: Mutex::default() }, size)
    }
}

impl InStore {
    /// What is at hand from `at` on, if that is as much as `least`; else as much as `length`, or more, is read, and kept at
    /// hand.
    fn at_hand(&self, at: u64, least: usize, length: usize) -> io::Result<Bytes> {
        if at >= self.start {
            return Ok(from(&self.tail, self.start, at));
        }
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let known = from(&block.1, block.0, at);
        if known.len() >= least.min(usize::try_from(self.start - at).unwrap_or(usize::MAX)) {
            return Ok(known);
        }
        let length = length.max(self.store.block()) as u64;
        let end = at.saturating_add(length).min(self.start).min(self.size);
        let bytes = self.store.get_range(&self.name, at..end).map_err(|error| match error {
            Error::Io { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })?;
        *block = (at, bytes.clone());
        Ok(bytes)
    }
}

impl ReadAt for InStore {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let found = self.at_hand(at, 1.min(buffer.len()), buffer.len())?;
        Ok(copy(&found, buffer))
    }

    fn bytes_at(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let found = self.at_hand(at, length, length)?;
        if found.len() >= length {
            // As they lie there: an image is not copied on its way.
            return Ok(found.slice(..length));
        }
        // Across the beginning of the end.
        let mut bytes = found.to_vec();
        let left = length - found.len();
        let rest = self.at_hand(at + found.len() as u64, left, left)?;
        bytes.extend_from_slice(rest.get(..left).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(bytes.into())
    }
}

/// What `bytes`, which begin at `start`, have from `at` on.
fn from(bytes: &Bytes, start: u64, at: u64) -> Bytes {
    let from = at.checked_sub(start).and_then(|from| usize::try_from(from).ok());
    from.filter(|from| *from <= bytes.len()).map(|from| bytes.slice(from..)).unwrap_or_default()
}

/// Fills as much of a buffer as there is.
fn copy(bytes: &[u8], buffer: &mut [u8]) -> usize {
    let count = bytes.len().min(buffer.len());
    buffer[..count].copy_from_slice(&bytes[..count]);
    count
}

/// A file that is in memory.
#[derive(Debug)]
struct InMemory(Bytes);

impl ReadAt for InMemory {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        Ok(copy(&from(&self.0, 0, at), buffer))
    }

    fn bytes_at(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let found = from(&self.0, 0, at);
        if found.len() < length {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(found.slice(..length))
        }
    }
}

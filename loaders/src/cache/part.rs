//! One Parquet part: rows to bytes, and single rows back.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `image` | struct { `bytes`: binary, `path`: string } | the refined image as a PNG file; `path` is null |
//! | `label` | int64 | class in the dataset that was refined |
//! | `soft_label` | list of float32, or null | its logits, where the dataset has them |
//! | `key` | string | [`RowKey`] in hex |
//! | `digest` | string | BLAKE3 of `image.bytes` in hex |
//! | `index` | int64 | position in the dataset that was refined |
//! | `variant` | int32 | which of several refinements |
//! | `seconds` | float32 | share of the time that refining its batch took |

use super::RowKey;
use crate::image_table::ImageTable;
use crate::parquet_file::ParquetFile;
use crate::{Digest, Error, Label, Result, RgbImage};
use arrow::array::{
    Array, ArrayRef, AsArray as _, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One refined image with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its identity within the fingerprint.
    pub key: RowKey,
    /// The image at the refiner's size.
    pub image: Arc<RgbImage>,
    /// The label of the sample that was refined.
    pub label: Label,
    /// The position of that sample in its dataset.
    pub index: usize,
    /// Which of several refinements of the sample.
    pub variant: u32,
    /// Seconds: the sample's share of the time that its batch took.
    pub seconds: f32,
}

/// Encodes `rows` as a Parquet file. `class_names` become the dataset's `ClassLabel`.
pub(super) fn encode(rows: &[Row], class_names: &[String]) -> Result<Vec<u8>> {
    let pngs = rows.iter().map(|row| row.image.to_png()).collect::<Result<Vec<_>>>()?;
    let failed = |e: &dyn std::fmt::Display| Error::config("cache", format!("cannot encode a part: {e}"));
    let batch = record_batch(rows, &pngs, class_names).map_err(|e| failed(&e))?;
    let properties = WriterProperties::builder()
        // PNG does not compress further. A page for each row lets one image be read without its neighbours.
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(1)
        .set_write_batch_size(1)
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(|e| failed(&e))?;
    writer.write(&batch).map_err(|e| failed(&e))?;
    writer.into_inner().map_err(|e| failed(&e))
}

fn record_batch(rows: &[Row], pngs: &[Vec<u8>], class_names: &[String]) -> Result<RecordBatch, ArrowError> {
    let texts = |f: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows.len()).map(f)))
    };
    let indices = rows.iter().map(|row| i64::try_from(row.index).unwrap_or(i64::MAX));
    let variants = rows.iter().map(|row| i32::try_from(row.variant).unwrap_or(i32::MAX));
    let seconds = rows.iter().map(|row| row.seconds);
    ImageTable::new(pngs, rows.iter().map(|row| &row.label), true, class_names)?
        .with_values("key", "string", texts(&|row| rows[row].key.digest().to_string()))
        .with_values("digest", "string", texts(&|row| Digest::of(&pngs[row]).to_string()))
        .with_values("index", "int64", Arc::new(Int64Array::from_iter_values(indices)))
        .with_values("variant", "int32", Arc::new(Int32Array::from_iter_values(variants)))
        .with_values("seconds", "float32", Arc::new(Float32Array::from_iter_values(seconds)))
        .finish()
}

/// A committed part, opened: its footer and keys in memory, its images on disk.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    keys: Vec<RowKey>,
}

impl Part {
    /// Reads the footer and the keys.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io(&path, "cannot open the part"))?;
        let (metadata, keys) = guarded(&path, || {
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
            let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| damaged(&path, e))?;
            let file = file.try_clone().map_err(Error::io(&path, "cannot open the part"))?;
            let mut keys = Vec::new();
            for batch in reader(&path, file, &metadata, &["key"], None)? {
                for key in text_column(&path, &batch?, "key")? {
                    keys.push(RowKey::from(key.parse::<Digest>().map_err(|e| damaged(&path, e))?));
                }
            }
            Ok((metadata, keys))
        })?;
        Ok(Self { path, metadata, keys })
    }

    pub(super) fn keys(&self) -> &[RowKey] {
        &self.keys
    }

    /// Reads the image of row `row`, and checks that it is what was written under its key.
    pub(super) fn read(&self, row: usize) -> Result<RgbImage> {
        let path = &self.path;
        let file = File::open(path).map_err(Error::io(path, "cannot open the part"))?;
        guarded(path, || {
            let selection = RowSelection::from(vec![RowSelector::skip(row), RowSelector::select(1)]);
            let mut batches =
                reader(path, file, &self.metadata, &["image", "key", "digest"], Some(selection))?;
            let batch = batches.next().ok_or_else(|| damaged(path, format!("no row {row}")))??;
            let key = text_column(path, &batch, "key")?.next().unwrap_or_default();
            let digest = text_column(path, &batch, "digest")?.next().unwrap_or_default();
            let png = batch
                .column_by_name("image")
                .and_then(|image| image.as_struct_opt())
                .and_then(|image| image.column_by_name("bytes"))
                .and_then(|bytes| bytes.as_binary_opt::<i32>())
                .filter(|bytes| !bytes.is_empty() && bytes.is_valid(0))
                .map(|bytes| bytes.value(0))
                .ok_or_else(|| damaged(path, format!("row {row} has no image")))?;
            let sound = self.keys.get(row).is_some_and(|k| k.digest().to_string() == key)
                && Digest::of(png).to_string() == digest;
            if !sound {
                return Err(damaged(path, format!("row {row} does not match its digest")));
            }
            RgbImage::from_png(png).map_err(|e| damaged(path, format!("row {row}: {e}")))
        })
    }
}

fn reader<'a>(
    path: &'a Path,
    file: File,
    metadata: &ArrowReaderMetadata,
    columns: &[&str],
    selection: Option<RowSelection>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'a>> {
    let schema = metadata.parquet_schema();
    let roots = schema.root_schema().get_fields();
    let positions: Vec<_> =
        columns.iter().filter_map(|c| roots.iter().position(|f| f.name() == *c)).collect();
    let file = ParquetFile::new(file).map_err(Error::io(path, "cannot read the part"))?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
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
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(path, "the Parquet decoder gave up")));
    if matches!(result, Err(Error::Format { .. })) {
        // The decoder hides the system's errors among its own. A file that cannot be read may be sound.
        std::fs::read(path).map_err(Error::io(path, "cannot read the part"))?;
    }
    result
}

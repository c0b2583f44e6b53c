//! Image datasets in Hugging Face's Parquet layout: encoded images in `image`, class indices in `label`; and, as diver
//! writes them, logits in `soft_label`.

use super::encoded::{Encoded, EncodedSet};
use super::labels::{class_count, integers};
use super::normalization;
use super::{Label, LabelKind, OpenOptions, Source, SourceInfo, ValueSpace};
use crate::{Error, Result};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use std::fs::File;
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};

/// Rows read at a time: few enough for the 32-bit offsets of the images in one array.
const ROWS: usize = 256;

const SOFT_LABEL: &str = "soft_label";

/// Encoded images in memory.
#[derive(Debug)]
struct Table {
    /// What the user named.
    path: PathBuf,
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    /// Index of its first sample in the set.
    first: usize,
    images: BinaryArray,
}

/// Opens the files as one set; `path` is what the user named.
pub(super) fn open(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Box<dyn Source>> {
    let (mut chunks, mut labels, mut logits, mut class_names) = (Vec::new(), Vec::new(), Vec::new(), None);
    for file in files {
        // The crate `parquet` (60.1) panics at some kinds of damage, as at a dictionary page that is missing.
        let rows = std::panic::catch_unwind(|| read(file))
            .unwrap_or_else(|_| Err(damaged(file, "its pages contradict its footer")))?;
        for images in rows.images {
            let first = chunks.last().map_or(0, |chunk: &Chunk| chunk.first + chunk.images.len());
            chunks.push(Chunk { first, images });
        }
        labels.extend(rows.labels);
        logits.extend(rows.logits);
        if class_names.is_some() && rows.class_names.is_some() && class_names != rows.class_names {
            return Err(Error::field(file, "label", "class names differ from those of the files before it"));
        }
        class_names = rows.class_names.or(class_names);
    }
    let named = class_names.as_ref().map(Vec::len);
    let classes = class_count(path, &labels, options.class_count().or(named))?;
    // Classes without a name are called by their number.
    let class_names = class_names.map(|mut names| {
        names.extend((names.len()..classes).map(|class| class.to_string()));
        names.truncate(classes);
        names
    });
    let (kind, labels, notes) = join_labels(path, labels, logits, classes)?;
    let info = SourceInfo {
        format: "parquet".into(),
        method: None,
        path: path.to_owned(),
        samples: labels.len(),
        classes,
        class_names,
        class_map: options.classes.clone(),
        shape: [3, 0, 0],
        labels: kind,
        value_space: ValueSpace::Unit,
        normalize: normalization::wanted(path, "parquet", options)?,
        learning_rate: None,
        notes,
    };
    if labels.is_empty() {
        return Err(Error::field(path, "image", "no rows"));
    }
    let table = Table { path: path.to_owned(), chunks };
    Ok(Box::new(EncodedSet::new(info, labels, table)?))
}

/// The rows of one file.
struct Rows {
    images: Vec<BinaryArray>,
    labels: Vec<usize>,
    /// Of each row, if it has them.
    logits: Vec<Option<Vec<f32>>>,
    class_names: Option<Vec<String>>,
}

/// Logits where all rows have them, else class indices; with a note where only some have them, as in a cache that
/// several sets share.
fn join_labels(
    path: &Path,
    labels: Vec<usize>,
    logits: Vec<Option<Vec<f32>>>,
    classes: usize,
) -> Result<(LabelKind, Vec<Label>, Vec<String>)> {
    let rows = logits.len();
    let soft: Vec<Vec<f32>> = logits.into_iter().flatten().collect();
    if soft.is_empty() || soft.len() < rows {
        let notes = (!soft.is_empty()).then(|| {
            format!("{} of {rows} rows have soft labels: class indices are taken of all", soft.len())
        });
        let labels = labels.into_iter().map(Label::Hard).collect();
        return Ok((LabelKind::Hard, labels, notes.into_iter().collect()));
    }
    let label = |(index, logits): (usize, Vec<f32>)| {
        if logits.len() == classes && logits.iter().all(|logit| logit.is_finite()) {
            return Ok(Label::Logits(logits));
        }
        let reason = format!("{} logits in `soft_label`, {classes} finite ones are expected", logits.len());
        Err(Error::sample(path, index, reason))
    };
    let labels = soft.into_iter().enumerate().map(label).collect::<Result<_>>()?;
    Ok((LabelKind::Logits, labels, Vec::new()))
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("not a Parquet file that can be read: {reason}"))
}

fn read(path: &Path) -> Result<Rows> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    // Without the writer's Arrow schema, every kind of binary column (large, view, dictionary) reads as one.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|e| damaged(path, e))?;
    let mut columns: Vec<usize> = builder.schema().index_of(SOFT_LABEL).into_iter().collect();
    for name in ["image", "label"] {
        let index = builder.schema().index_of(name).map_err(|_| {
            let have: Vec<&str> = builder.schema().fields().iter().map(|f| f.name().as_str()).collect();
            Error::field(path, name, format!("no such column; there are {}", have.join(", ")))
        })?;
        columns.push(index);
    }
    // pyarrow puts this key into the file's metadata, arrow-rs into the Arrow schema within it.
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let schema = parquet_to_arrow_schema(builder.parquet_schema(), metadata).map_err(|e| damaged(path, e))?;
    let class_names = schema.metadata().get("huggingface").and_then(|json| class_names(json));

    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_batch_size(ROWS).build().map_err(|e| damaged(path, e))?;
    let mut rows = Rows { images: Vec::new(), labels: Vec::new(), logits: Vec::new(), class_names };
    for batch in reader {
        let batch = batch.map_err(|e| damaged(path, e))?;
        let first = rows.labels.len();
        let images = images(&batch).map_err(|reason| Error::field(path, "image", reason))?;
        if let Some(row) = (0..images.len()).find(|row| images.is_null(*row)) {
            let reason = "no image bytes: embed the images when the file is written";
            return Err(Error::sample(path, first + row, reason));
        }
        let labels =
            class_indices(&batch).map_err(|(row, reason)| Error::sample(path, first + row, reason))?;
        rows.labels.extend(labels);
        rows.logits.extend(logits(&batch).map_err(|reason| Error::field(path, SOFT_LABEL, reason))?);
        rows.images.push(images);
    }
    Ok(rows)
}

/// The column `image`: struct{bytes, path}, or the bytes themselves.
fn images(batch: &RecordBatch) -> Result<BinaryArray, String> {
    let column = batch.column_by_name("image").ok_or("no such column")?;
    let bytes = match column.as_struct_opt() {
        Some(fields) if column.null_count() == 0 => fields.column_by_name("bytes"),
        Some(_) => return Err("a row without an image".into()),
        None => Some(column),
    };
    bytes.and_then(|bytes| bytes.as_binary_opt()).cloned().ok_or_else(|| {
        format!("{}: a struct of `bytes` and `path`, or binary, is expected", column.data_type())
    })
}

/// The column `label`, or the first row whose label is no class index.
fn class_indices(batch: &RecordBatch) -> Result<Vec<usize>, (usize, String)> {
    let column = batch.column_by_name("label").ok_or((0, "no label".to_owned()))?;
    if !column.data_type().is_integer() {
        return Err((0, format!("labels of type {}: integers are expected", column.data_type())));
    }
    let column = cast(column, &DataType::Int64).map_err(|e| (0, format!("label: {e}")))?;
    integers(column.as_primitive::<Int64Type>().iter().map(|label| label.ok_or("null")))
        .map_err(|(row, label)| (row, format!("label {label}: integers from 0 are expected")))
}

/// The column `soft_label`, where there is one.
fn logits(batch: &RecordBatch) -> Result<Vec<Option<Vec<f32>>>, String> {
    let Some(column) = batch.column_by_name(SOFT_LABEL) else { return Ok(vec![None; batch.num_rows()]) };
    let expected = || format!("{}: a list of floats is expected", column.data_type());
    let rows = column.as_list_opt::<i32>().ok_or_else(expected)?;
    rows.iter()
        .map(|row| {
            let Some(row) = row else { return Ok(None) };
            let row = cast(&row, &DataType::Float32).map_err(|_| expected())?;
            let values = row.as_primitive::<Float32Type>().iter().map(|value| value.unwrap_or(f32::NAN));
            Ok(Some(values.collect()))
        })
        .collect()
}

/// `info.features.label.names`, of the JSON that `datasets` puts into the schema.
fn class_names(huggingface: &str) -> Option<Vec<String>> {
    let mut json: serde_json::Value = serde_json::from_str(huggingface).ok()?;
    serde_json::from_value(json.pointer_mut("/info/features/label/names")?.take()).ok()
}

impl Encoded for Table {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let chunk = &self.chunks[self.chunks.partition_point(|chunk| chunk.first <= index) - 1];
        Ok(Cursor::new(chunk.images.value(index - chunk.first)))
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        Error::sample(&self.path, index, reason)
    }
}

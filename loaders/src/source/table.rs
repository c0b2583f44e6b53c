//! Image datasets in Hugging Face's layout of columns: encoded images in `image`, class indices in `label`; and, as
//! diver writes them, logits in `soft_label`. Parquet and Arrow files hold such tables.

use super::adapters::{Encoded, EncodedSet};
use super::class_list::ClassList;
use super::normalization;
use super::{Label, LabelKind, OpenOptions, Source, SourceInfo};
use crate::labels::{class_count, integers};
use crate::wording::counted;
use crate::{Error, Result};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type, Schema};
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};

/// The columns that every table has, and the one that it may have.
pub(super) const COLUMNS: [&str; 2] = ["image", "label"];
pub(super) const SOFT_LABEL: &str = "soft_label";

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

/// Opens the files as one set, each read by `read`; `path` is what the user named.
pub(super) fn open(
    path: &Path,
    files: &[PathBuf],
    format: &'static str,
    options: &OpenOptions,
    read: fn(&Path) -> Result<Rows>,
) -> Result<Box<dyn Source>> {
    let (mut chunks, mut labels, mut logits, mut class_names) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut listed: Option<(&Path, ClassList)> = None;
    for file in files {
        let rows = read(file)?;
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
        if let Some(json) = rows.class_list {
            let list = ClassList::from_json(file, &json)?;
            if listed.as_ref().is_some_and(|(_, other)| *other != list) {
                let reason = "the classes differ from those of the files before it";
                return Err(Error::field(file, ClassList::KEY, reason));
            }
            listed = Some((file, list));
        }
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
    let space = normalization::pixels(path, format, options)?;
    let info = SourceInfo {
        format: format.into(),
        method: None,
        path: path.to_owned(),
        samples: labels.len(),
        classes,
        class_names,
        class_map: options.classes.clone(),
        shape: [3, 0, 0],
        labels: kind,
        value_space: space.values,
        normalize: space.normalize,
        learning_rate: None,
        notes: [space.notes, notes].concat(),
    };
    if labels.is_empty() {
        return Err(Error::field(path, "image", "no rows"));
    }
    let table = Table { path: path.to_owned(), chunks };
    let source = Box::new(EncodedSet::new(info, labels, table)?);
    match listed {
        Some((file, list)) => list.apply(file, source, options),
        None => Ok(source),
    }
}

/// The rows of one file.
#[derive(Default)]
pub(super) struct Rows {
    images: Vec<BinaryArray>,
    labels: Vec<usize>,
    /// Of each row, if it has them.
    logits: Vec<Option<Vec<f32>>>,
    class_names: Option<Vec<String>>,
    /// As JSON.
    class_list: Option<String>,
}

impl Rows {
    /// No rows yet, of a file whose schema this is.
    pub(super) fn new(schema: &Schema) -> Self {
        let class_names = schema.metadata().get("huggingface").and_then(|json| class_names(json));
        let class_list = schema.metadata().get(ClassList::KEY).cloned();
        Self { class_names, class_list, ..Self::default() }
    }

    /// Adds the rows of a batch of the file at `path`.
    pub(super) fn push(&mut self, path: &Path, batch: &RecordBatch) -> Result<()> {
        let first = self.labels.len();
        let images = images(batch).map_err(|reason| Error::field(path, "image", reason))?;
        if let Some(row) = (0..images.len()).find(|row| images.is_null(*row)) {
            let reason = "no image bytes: embed the images when the file is written";
            return Err(Error::sample(path, first + row, reason));
        }
        let labels =
            class_indices(batch).map_err(|(row, reason)| Error::sample(path, first + row, reason))?;
        self.labels.extend(labels);
        self.logits.extend(logits(batch).map_err(|reason| Error::field(path, SOFT_LABEL, reason))?);
        self.images.push(images);
        Ok(())
    }
}

/// The place of each column that is read.
///
/// # Errors
/// If one of [`COLUMNS`] is missing.
pub(super) fn columns(path: &Path, schema: &Schema) -> Result<Vec<usize>> {
    let mut columns: Vec<usize> = schema.index_of(SOFT_LABEL).into_iter().collect();
    for name in COLUMNS {
        let index = schema.index_of(name).map_err(|_| {
            let have: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::field(path, name, format!("no such column; there are {}", have.join(", ")))
        })?;
        columns.push(index);
    }
    Ok(columns)
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
            format!(
                "of {}, {} with soft labels: class indices are taken of all",
                counted(rows, "row"),
                soft.len()
            )
        });
        let labels = labels.into_iter().map(Label::Hard).collect();
        return Ok((LabelKind::Hard, labels, notes.into_iter().collect()));
    }
    let label = |(index, logits): (usize, Vec<f32>)| {
        if logits.len() == classes && logits.iter().all(|logit| logit.is_finite()) {
            return Ok(Label::Logits(logits));
        }
        let reason = format!(
            "{} in `soft_label`, where {classes} finite are expected",
            counted(logits.len(), "logit")
        );
        Err(Error::sample(path, index, reason))
    };
    let labels = soft.into_iter().enumerate().map(label).collect::<Result<_>>()?;
    Ok((LabelKind::Logits, labels, Vec::new()))
}

/// The column `image`: struct{bytes, path}, or the bytes themselves.
fn images(batch: &RecordBatch) -> Result<BinaryArray, String> {
    let column = batch.column_by_name("image").ok_or("no such column")?;
    let bytes = match column.as_struct_opt() {
        Some(fields) if column.null_count() == 0 => fields.column_by_name("bytes"),
        Some(_) => return Err("a row without an image".into()),
        None => Some(column),
    };
    let expected =
        || format!("{}: a struct of `bytes` and `path`, or binary, is expected", column.data_type());
    let bytes = bytes.ok_or_else(expected)?;
    if !matches!(bytes.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        return Err(expected());
    }
    let bytes = cast(bytes, &DataType::Binary).map_err(|e| e.to_string())?;
    Ok(bytes.as_binary().clone())
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
    let is_list = matches!(
        column.data_type(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    );
    if !is_list {
        return Err(expected());
    }
    let list = DataType::new_list(DataType::Float32, true);
    let rows = cast(column, &list).map_err(|_| expected())?;
    rows.as_list::<i32>()
        .iter()
        .map(|row| {
            let Some(row) = row else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, FixedSizeListArray, Int64Array, LargeListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Float64Type};
    use std::sync::Arc;

    const IMAGES: [&[u8]; 2] = [b"a first image, of some length", b"another"];

    fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<Rows> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut rows = Rows::new(&batch.schema());
        rows.push(Path::new("set"), &batch).map(|()| rows)
    }

    fn labels() -> ArrayRef {
        Arc::new(Int64Array::from(vec![1, 0]))
    }

    fn images(kind: &DataType) -> ArrayRef {
        cast(&BinaryArray::from_iter_values(IMAGES), kind).unwrap()
    }

    #[test]
    fn every_kind_of_binary_column_is_read() {
        for kind in [DataType::Binary, DataType::LargeBinary, DataType::BinaryView] {
            for text in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
                let path = cast(&StringArray::from(vec!["a.png", "b.png"]), &text).unwrap();
                let field =
                    |name, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
                let bytes = images(&kind);
                let fields = StructArray::from(vec![
                    (field("bytes", &bytes), Arc::clone(&bytes)),
                    (field("path", &path), path),
                ]);
                for column in [bytes, Arc::new(fields) as ArrayRef] {
                    let read = rows(vec![("image", column), ("label", labels())]).unwrap();
                    assert!(read.images[0].iter().eq(IMAGES.map(Some)), "{kind} {text}");
                    assert_eq!(read.labels, [1, 0]);
                }
            }
        }
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let error = rows(vec![("image", text), ("label", labels())]).err().unwrap().to_string();
        assert!(
            error.starts_with("set: `image`: Utf8: a struct of `bytes` and `path`, or binary"),
            "{error}"
        );
    }

    #[test]
    fn every_kind_of_list_is_read_as_logits() {
        let values = || [Some([Some(0.5), Some(-1.0)]), None];
        let fixed = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(values(), 2);
        let large = LargeListArray::from_iter_primitive::<Float64Type, _, _>(values());
        let list = arrow::array::ListArray::from_iter_primitive::<Float64Type, _, _>(values());
        for column in [Arc::new(fixed) as ArrayRef, Arc::new(large), Arc::new(list)] {
            let kind = column.data_type().to_string();
            let columns =
                vec![("image", images(&DataType::Binary)), ("label", labels()), (SOFT_LABEL, column)];
            let read = rows(columns).unwrap();
            assert_eq!(read.logits, [Some(vec![0.5, -1.0]), None], "{kind}");
        }
        let columns = vec![("image", images(&DataType::Binary)), ("label", labels()), (SOFT_LABEL, labels())];
        let error = rows(columns).err().unwrap().to_string();
        assert_eq!(error, "set: `soft_label`: Int64: a list of floats is expected");
    }
}

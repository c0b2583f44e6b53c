//! Parquet files as Hugging Face `datasets` writes images.

use super::{Writer, images};
use crate::{Error, Label, LabelKind, Result, Sample, SourceInfo};
use arrow::array::{
    Array as _, ArrayRef, BinaryArray, Float32Builder, Int64Array, ListBuilder, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a file.
const ROWS: usize = 10_000;
/// Rows that are held before they are written.
const GROUP: usize = 200;

pub(super) struct Parquet {
    folder: PathBuf,
    info: SourceInfo,
    pngs: Vec<Vec<u8>>,
    labels: Vec<Label>,
    file: Option<(PathBuf, ArrowWriter<std::fs::File>)>,
    files: usize,
}

impl Parquet {
    pub(super) fn new(info: &SourceInfo, folder: &Path) -> Self {
        let (pngs, labels) = (Vec::new(), Vec::new());
        Self { folder: folder.to_owned(), info: info.clone(), pngs, labels, file: None, files: 0 }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pngs.is_empty() {
            return Ok(());
        }
        let batch = self.batch().map_err(|e| self.failed(&e))?;
        self.pngs.clear();
        self.labels.clear();
        let (path, mut writer) = match self.file.take() {
            Some(open) => open,
            None => {
                let path = self.folder.join(format!("data-{:05}.parquet", self.files));
                self.files += 1;
                let file = std::fs::File::create(&path).map_err(Error::io(&path, "cannot write"))?;
                let writer = ArrowWriter::try_new(file, batch.schema(), None).map_err(|e| self.failed(&e))?;
                (path, writer)
            }
        };
        writer.write(&batch).map_err(|e| self.failed(&e))?;
        self.file = Some((path, writer));
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.flush()?;
        let Some((path, writer)) = self.file.take() else { return Ok(()) };
        let file = writer.into_inner().map_err(|e| self.failed(&e))?;
        file.sync_all().map_err(Error::io(&path, "cannot write"))
    }

    fn failed(&self, e: &dyn std::fmt::Display) -> Error {
        Error::format(&self.folder, format!("cannot write Parquet: {e}"))
    }

    fn batch(&self) -> Result<RecordBatch, ArrowError> {
        let image_fields = Fields::from(vec![
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ]);
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(&self.pngs));
        let paths: ArrayRef = Arc::new(StringArray::new_null(self.pngs.len()));
        let image = StructArray::try_new(image_fields.clone(), vec![bytes, paths], None)?;
        let classes = self.labels.iter().map(|label| label.class() as i64);
        let mut columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("image", DataType::Struct(image_fields), true), Arc::new(image)),
            (Field::new("label", DataType::Int64, true), Arc::new(Int64Array::from_iter_values(classes))),
        ];
        if self.info.labels == LabelKind::Logits {
            let mut logits = ListBuilder::new(Float32Builder::new());
            for label in &self.labels {
                match label {
                    Label::Logits(values) => logits.append_value(values.iter().copied().map(Some)),
                    Label::Hard(_) => logits.append_null(),
                }
            }
            let logits = logits.finish();
            columns.push((Field::new("soft_label", logits.data_type().clone(), true), Arc::new(logits)));
        }
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let metadata = HashMap::from([("huggingface".to_owned(), self.features())]);
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), arrays)
    }

    /// What `datasets` reads of the columns, as JSON.
    fn features(&self) -> String {
        let mut features = serde_json::json!({
            "image": { "_type": "Image" },
            "label": { "_type": "ClassLabel", "names": self.info.names() },
        });
        if self.info.labels == LabelKind::Logits {
            features["soft_label"] = serde_json::json!({ "_type": "Sequence", "feature": { "_type": "Value", "dtype": "float32" } });
        }
        serde_json::json!({ "info": { "features": features } }).to_string()
    }
}

impl Writer for Parquet {
    fn add(&mut self, index: usize, sample: Sample) -> Result<()> {
        if index.is_multiple_of(ROWS) {
            self.close()?;
        }
        self.pngs.push(images::png(&sample, &self.info.value_space)?);
        self.labels.push(sample.label);
        if self.pngs.len() >= GROUP { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.close()
    }
}

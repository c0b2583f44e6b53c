//! Parquet files as Hugging Face `datasets` writes images.

use super::{Writer, images};
use crate::hub_table::Table;
use crate::source::ClassList;
use crate::{Error, Label, LabelKind, Result, Sample, SourceInfo};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a file.
const ROWS: usize = 10_000;
/// Rows that are held before they are written.
const GROUP: usize = 200;

pub(super) struct Parquet {
    folder: PathBuf,
    info: SourceInfo,
    /// Their list, as JSON.
    classes: String,
    pngs: Vec<Vec<u8>>,
    labels: Vec<Label>,
    file: Option<(PathBuf, ArrowWriter<std::fs::File>)>,
    files: usize,
}

impl Parquet {
    pub(super) fn new(info: &SourceInfo, folder: &Path) -> Self {
        let (pngs, labels) = (Vec::new(), Vec::new());
        let classes = ClassList::of(info).without_names().to_json();
        Self { folder: folder.to_owned(), info: info.clone(), classes, pngs, labels, file: None, files: 0 }
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
        let has_logits = self.info.labels != LabelKind::Hard;
        let table =
            Table::of_images(&self.pngs, self.labels.iter(), has_logits, &self.info.names())?.finish()?;
        // Beside the names, which lie where `datasets` looks for them.
        let mut schema = (*table.schema()).clone();
        schema.metadata.insert(ClassList::KEY.to_owned(), self.classes.clone());
        table.with_schema(Arc::new(schema))
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

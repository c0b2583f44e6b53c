//! Files of columns, read a few rows at a time.

use super::tensor::read_exactly_at;
use crate::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A column of a table, or one field of a column of structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnPath {
    pub(crate) column: usize,
    pub(crate) field: Option<usize>,
}

/// A file with a table. It is read by position, and so from several threads at once.
pub(crate) trait TableFile: Debug + Send + Sync {
    fn path(&self) -> &Path;

    /// The columns, with the file's metadata.
    fn schema(&self) -> &SchemaRef;

    /// Number of rows.
    fn rows(&self) -> usize;

    /// Gives all rows of some columns to `each`, batch by batch.
    ///
    /// # Errors
    /// If the file is damaged, or `each` refuses a batch.
    fn scan(&self, columns: &[usize], each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()>;

    /// The rows of a column that lie together with `row` in the file: to read one of them is to read them all.
    ///
    /// # Errors
    /// If the file is damaged.
    fn block(&self, column: ColumnPath, row: usize) -> Result<Range<usize>>;

    /// Reads the rows of a [`block`](Self::block).
    ///
    /// # Errors
    /// If the file is damaged, or was changed since it was opened.
    fn read(&self, column: ColumnPath, block: Range<usize>) -> Result<ArrayRef>;
}

/// A file that is kept open, and whose later changes are noticed.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
}

impl KeptFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn open(path: &Path) -> Result<(Self, File)> {
        let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        let metadata = file.metadata().map_err(Error::io(path, "cannot read"))?;
        let kept = Self { path: path.to_owned(), length: metadata.len(), modified: metadata.modified().ok() };
        Ok((kept, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Checks that what was read from `file` is what lay in it when it was opened.
    ///
    /// # Errors
    /// If the file was written to.
    pub(crate) fn check(&self, file: &File) -> Result<()> {
        let metadata = file.metadata().map_err(Error::io(&self.path, "cannot read"))?;
        if (metadata.len(), metadata.modified().ok()) == (self.length, self.modified) {
            return Ok(());
        }
        Err(Error::format(&self.path, "the file was changed after it was opened: open it again"))
    }

    /// Some bytes of the file; none if it has not as many.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn bytes(&self, file: &File, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        // Before memory is taken for them.
        if range.start > range.end || range.end > self.length {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        read_exactly_at(file, &mut bytes, range.start).map_err(Error::io(&self.path, "cannot read"))?;
        Ok(Some(bytes))
    }
}

/// Refuses more rows than a file of images can have: each takes some bytes, and memory is taken for each.
pub(crate) fn check_rows(rows: u64, length: u64) -> Result<usize, String> {
    match usize::try_from(rows) {
        Ok(count) if rows <= length => Ok(count),
        _ => Err(format!("it claims {rows} rows in {length} bytes")),
    }
}

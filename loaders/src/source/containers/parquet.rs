//! Parquet files, read page by page.
//!
//! To read a row is to read the page that it lies in: pages of a row group are found through their headers, when a row
//! of the group is first asked for. (Of headers there are as many as pages, and a header tells what an offset index
//! tells; most writers write none.) Columns of lists, whose pages may end within a row, are read by row group.

use super::table::{ColumnPath, KeptFile, TableFile, check_rows};
use crate::parquet_file::{self, ParquetFile};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::compute::concat;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelectionPolicy, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::file::metadata::page_index::PageIndexBuilder;
use parquet::file::metadata::{
    FileMetaData, OffsetIndexBuilder, ParquetMetaData, ParquetStatisticsPolicy, RowGroupMetaData,
};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows read at a time: few enough for the 32-bit offsets of the images in one array.
const ROWS: usize = 256;

/// The most rows of a page that are read at once: a page of a dictionary may stand for any number of large values.
const MOST_ROWS: usize = 1 << 12;

/// A Parquet file, of which the footer is in memory.
#[derive(Debug)]
pub(crate) struct ParquetTable {
    kept: KeptFile,
    file: ParquetFile,
    metadata: ArrowReaderMetadata,
    /// What a row group needs to be read alone: the file's metadata without its many keys.
    bare: FileMetaData,
    schema: SchemaRef,
    /// The first row of each row group, and, in the end, the number of rows.
    starts: Vec<usize>,
    /// Of each row group, the column whose pages were looked for last, and these.
    pages: Vec<Mutex<Option<PagesOf>>>,
}

/// A leaf, and its pages in a row group.
type PagesOf = (usize, Arc<[Page]>);

/// A data page of a row group.
#[derive(Clone, Debug)]
struct Page {
    /// Where its header begins, and the bytes of both.
    offset: i64,
    stored: i32,
    /// Within the row group.
    rows: Range<usize>,
}

impl ParquetTable {
    /// Reads the footer of the file at `path`.
    ///
    /// # Errors
    /// If it is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (kept, file) = KeptFile::open(path)?;
        let file = ParquetFile::new(file).map_err(Error::io(path, "cannot read"))?;
        guarded(path, || {
            let metadata = parquet_file::load(&file, options()).map_err(|e| damaged(path, e))?;
            let footer = metadata.metadata().file_metadata();
            // pyarrow puts the names of the classes into the file's metadata, arrow-rs into the Arrow schema within it.
            let keys = parquet_to_arrow_schema(metadata.parquet_schema(), footer.key_value_metadata())
                .map_err(|e| damaged(path, e))?
                .metadata;
            let schema = Arc::new(Schema::new_with_metadata(metadata.schema().fields().clone(), keys));
            let bare = FileMetaData::new(
                footer.version(),
                footer.num_rows(),
                footer.created_by().map(str::to_owned),
                None,
                footer.schema_descr_ptr(),
                None,
            );
            let mut starts = vec![0];
            for group in metadata.metadata().row_groups() {
                let rows = u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
                let end = rows.saturating_add(starts.last().map_or(0, |start| *start as u64));
                starts.push(check_rows(end, kept.length()).map_err(|reason| damaged(path, reason))?);
            }
            let pages = metadata.metadata().row_groups().iter().map(|_| Mutex::default()).collect();
            Ok(Self { kept, file, metadata, bare, schema, starts, pages })
        })
    }

    /// The row group with a row, and the row's place in it.
    fn group(&self, row: usize) -> (usize, usize) {
        let group = self.starts.partition_point(|start| *start <= row) - 1;
        (group, row - self.starts[group])
    }

    /// The leaves below a column, or below a field of it.
    fn leaves(&self, path: ColumnPath) -> Vec<usize> {
        let schema = self.metadata.parquet_schema();
        let field = path.field.and_then(|field| match self.schema.field(path.column).data_type() {
            arrow::datatypes::DataType::Struct(fields) => fields.get(field).map(|field| field.name().clone()),
            _ => None,
        });
        let is_below = |leaf: &usize| {
            let parts = schema.column(*leaf).path().parts().to_vec();
            schema.get_column_root_idx(*leaf) == path.column
                && field.as_ref().is_none_or(|field| parts.get(1) == Some(field))
        };
        (0..schema.num_columns()).filter(is_below).collect()
    }

    /// The leaf of a column that has one value for each row.
    fn flat_leaf(&self, path: ColumnPath) -> Option<usize> {
        match self.leaves(path)[..] {
            [leaf] if self.metadata.parquet_schema().column(leaf).max_rep_level() == 0 => Some(leaf),
            _ => None,
        }
    }

    /// The pages of a flat column in a row group.
    fn pages(&self, group: usize, leaf: usize) -> Result<Arc<[Page]>> {
        let mut known = self.pages[group].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pages)) = known.as_ref().filter(|(of, _)| *of == leaf) {
            return Ok(Arc::clone(pages));
        }
        let pages: Arc<[Page]> = self.find_pages(group, leaf)?.into();
        *known = Some((leaf, Arc::clone(&pages)));
        Ok(pages)
    }

    fn find_pages(&self, group: usize, leaf: usize) -> Result<Vec<Page>> {
        let refused = |reason: &str| Err(damaged(self.path(), format!("row group {group}: {reason}")));
        let rows = self.starts[group + 1] - self.starts[group];
        let (mut at, length) = self.row_group(group).column(leaf).byte_range();
        let end = at.saturating_add(length);
        let (mut pages, mut first) = (Vec::new(), 0_usize);
        while first < rows {
            let Some((header, stored)) =
                self.file.page_header(at).and_then(|header| Some((header.clone(), header.stored()?)))
            else {
                return refused("its pages contradict its footer");
            };
            if let Some(reason) = header.refused() {
                return refused(reason);
            }
            let next = at.saturating_add(stored);
            let (Ok(offset), Ok(stored)) = (i64::try_from(at), i32::try_from(stored)) else {
                return refused("a page is larger than any can be");
            };
            if next > end {
                return refused("its pages end beyond it");
            }
            if let Some(count) = header.flat_rows().filter(|count| *count > 0) {
                let last = first.saturating_add(count);
                pages.push(Page { offset, stored, rows: first..last });
                first = last;
            }
            at = next;
        }
        if first == rows { Ok(pages) } else { refused("its pages have more rows than it") }
    }

    fn row_group(&self, group: usize) -> &RowGroupMetaData {
        self.metadata.metadata().row_group(group)
    }

    /// Reads some rows of one page.
    fn read_page(&self, group: usize, leaf: usize, rows: Range<usize>) -> Result<RecordBatch> {
        let pages = self.pages(group, leaf)?;
        let place = pages.partition_point(|page| page.rows.end <= rows.start);
        let (Some(first), Some(page)) = (pages.first(), pages.get(place)) else {
            return Err(damaged(self.path(), format!("row group {group} lacks pages")));
        };
        // A row group of two pages, of which the first is passed over: what lies before it is the dictionary.
        let mut index = OffsetIndexBuilder::new();
        let mut skipped = rows.start - page.rows.start;
        let mut total = page.rows.len();
        for page in [Some(first).filter(|_| place > 0), Some(page)].into_iter().flatten() {
            index.append_row_count(page.rows.len() as i64);
            index.append_offset_and_size(page.offset, page.stored);
        }
        if place > 0 {
            skipped += first.rows.len();
            total += first.rows.len();
        }
        let columns = self.row_group(group).columns().to_vec();
        let mut indexes = PageIndexBuilder::new(1, columns.len());
        indexes.put_offset_index(index.build(), 0, leaf);
        let failed = |e: &dyn std::fmt::Display| damaged(self.path(), e);
        let alone = RowGroupMetaData::builder(self.bare.schema_descr_ptr())
            .set_num_rows(total as i64)
            .set_column_metadata(columns)
            .build()
            .map_err(|e| failed(&e))?;
        let metadata = ParquetMetaData::new(self.bare.clone(), vec![alone])
            .into_builder()
            .set_page_index(Some(Arc::new(indexes.build())))
            .build();
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options()).map_err(|e| failed(&e))?;
        let mask = ProjectionMask::leaves(self.bare.schema_descr(), [leaf]);
        let selection = vec![RowSelector::skip(skipped), RowSelector::select(rows.len())];
        let mut batches = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), metadata)
            .with_projection(mask)
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_row_selection(RowSelection::from(selection))
            .with_batch_size(rows.len())
            .build()
            .map_err(|e| failed(&e))?;
        match batches.next() {
            Some(Ok(batch)) if batch.num_rows() == rows.len() => Ok(batch),
            Some(Err(e)) => Err(failed(&e)),
            _ => Err(failed(&"a page has fewer rows than its header says")),
        }
    }

    /// Reads columns of row groups, batch by batch.
    fn read_groups(
        &self,
        groups: Option<usize>,
        leaves: Vec<usize>,
        each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), leaves);
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(ROWS);
        if let Some(group) = groups {
            builder = builder.with_row_groups(vec![group]);
        }
        for batch in builder.build().map_err(|e| damaged(self.path(), e))? {
            each(&batch.map_err(|e| damaged(self.path(), e))?)?;
        }
        Ok(())
    }
}

impl TableFile for ParquetTable {
    fn path(&self) -> &Path {
        self.kept.path()
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn scan(&self, columns: &[usize], each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let leaves =
            columns.iter().flat_map(|column| self.leaves(ColumnPath { column: *column, field: None }));
        let leaves = leaves.collect();
        guarded(self.path(), || self.read_groups(None, leaves, each))?;
        self.kept.check(self.file.file())
    }

    fn block(&self, column: ColumnPath, row: usize) -> Result<Range<usize>> {
        let (group, row) = self.group(row);
        let start = self.starts[group];
        let Some(leaf) = self.flat_leaf(column) else { return Ok(start..self.starts[group + 1]) };
        let pages = guarded(self.path(), || self.pages(group, leaf))?;
        let place = pages.partition_point(|page| page.rows.end <= row);
        let page = &pages.get(place).ok_or_else(|| damaged(self.path(), "a row group lacks pages"))?.rows;
        let first = page.start + (row - page.start) / MOST_ROWS * MOST_ROWS;
        Ok(start + first..start + page.end.min(first + MOST_ROWS))
    }

    fn read(&self, column: ColumnPath, block: Range<usize>) -> Result<ArrayRef> {
        let (group, first) = self.group(block.start);
        let array = guarded(self.path(), || match self.flat_leaf(column) {
            Some(leaf) => {
                let batch = self.read_page(group, leaf, first..first + block.len())?;
                Ok(Arc::clone(batch.column(0)))
            }
            None => {
                let mut arrays = Vec::new();
                self.read_groups(Some(group), self.leaves(column), &mut |batch| {
                    arrays.push(Arc::clone(batch.column(0)));
                    Ok(())
                })?;
                let arrays: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
                concat(&arrays).map_err(|e| damaged(self.path(), e))
            }
        })?;
        self.kept.check(self.file.file())?;
        if array.len() != block.len() {
            return Err(damaged(self.path(), format!("row group {group} has {} rows", array.len())));
        }
        Ok(match column.field {
            Some(_) => only_field(&array).ok_or_else(|| damaged(self.path(), "a column lacks a field"))?,
            None => array,
        })
    }
}

/// The one field of structs, null where the struct is.
fn only_field(array: &ArrayRef) -> Option<ArrayRef> {
    let fields = array.as_struct_opt()?;
    let field = fields.columns().first()?;
    let nulls = arrow::buffer::NullBuffer::union(fields.nulls(), field.nulls());
    Some(make_array(field.to_data().into_builder().nulls(nulls).build().ok()?))
}

fn options() -> ArrowReaderOptions {
    // Without the writer's Arrow schema, every kind of binary column (large, view, dictionary) reads as one.
    ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("not a Parquet file that can be read: {reason}"))
}

/// Runs the decoder: the crate `parquet` (60.1) panics at some kinds of damage, as at a dictionary page that is missing.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(path, "its pages contradict its footer")))
}

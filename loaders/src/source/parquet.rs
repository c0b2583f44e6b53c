//! Parquet files of image datasets.

use super::table::{self, Rows};
use super::{OpenOptions, Source};
use crate::parquet_file::ParquetFile;
use crate::{Error, Result};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows read at a time: few enough for the 32-bit offsets of the images in one array.
const ROWS: usize = 256;

/// Opens the files as one set; `path` is what the user named.
pub(super) fn open(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Box<dyn Source>> {
    // The crate `parquet` (60.1) panics at some kinds of damage, as at a dictionary page that is missing.
    table::open(path, files, "parquet", options, |file| {
        std::panic::catch_unwind(|| read(file))
            .unwrap_or_else(|_| Err(damaged(file, "its pages contradict its footer")))
    })
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::format(path, format!("not a Parquet file that can be read: {reason}"))
}

fn read(path: &Path) -> Result<Rows> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    // Without the writer's Arrow schema, every kind of binary column (large, view, dictionary) reads as one.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(ParquetFile::new(file), options)
        .map_err(|e| damaged(path, e))?;
    let columns = table::columns(path, builder.schema())?;
    // pyarrow puts the names of the classes into the file's metadata, arrow-rs into the Arrow schema within it.
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let schema = parquet_to_arrow_schema(builder.parquet_schema(), metadata).map_err(|e| damaged(path, e))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_batch_size(ROWS).build().map_err(|e| damaged(path, e))?;
    let mut rows = Rows::new(&schema);
    for batch in reader {
        rows.push(path, &batch.map_err(|e| damaged(path, e))?)?;
    }
    Ok(rows)
}

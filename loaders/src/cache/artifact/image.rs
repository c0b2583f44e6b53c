//! Rows that hold refined images.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `image` | struct { `bytes`: binary, `path`: string } | the refined image as a file of an [`ImageForm`]; `path` is null |
//! | `label` | int64 | class in the dataset that was refined |
//! | `soft_label` | list of float32, or null | its scores, where the dataset has them |
//! | `key` | string | [`RowKey`] in hex |
//! | `digest` | string | BLAKE3 of `image.bytes` in hex |
//! | `index` | int64 | position in the dataset that was refined |
//! | `variant` | int32 | which of several refinements |
//! | `seconds` | float32 | share of the time that refining its batch took |

use super::Artifact;
use super::form::{self, ImageForm};
use crate::cache::RowKey;
use crate::hub_table::Table;
use crate::{Digest, Error, Label, Result, RgbImage};
use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::error::ArrowError;
use std::borrow::Cow;
use std::sync::Arc;

/// One refined image with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRow {
    /// Its identity within the fingerprint.
    pub key: RowKey,
    /// The image at the refiner's size.
    pub image: Arc<RgbImage>,
    /// How the image is stored.
    pub form: ImageForm,
    /// The label of the sample that was refined.
    pub label: Label,
    /// The position of that sample in its dataset.
    pub index: usize,
    /// Which of several refinements of the sample.
    pub variant: u32,
    /// Seconds: the sample's share of the time that its batch took.
    pub seconds: f32,
}

impl Artifact for ImageRow {
    type Value = RgbImage;

    const PLURAL: &'static str = "refined images";

    const COLUMNS: &'static [&'static str] = &["image"];

    fn key(&self) -> RowKey {
        self.key
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.image.as_bytes().len() + self.label.scores().map_or(0, size_of_val)
    }

    fn table(rows: &[Self], class_names: &[String]) -> Result<RecordBatch> {
        let files = rows.iter().map(|row| row.form.encode(&row.image)).collect::<Result<Vec<_>>>()?;
        record_batch(rows, &files, class_names)
            .map_err(|e| Error::config("cache", format!("cannot encode a part: {e}")))
    }

    fn content(table: &RecordBatch) -> Result<Cow<'_, [u8]>, String> {
        table
            .column_by_name("image")
            .and_then(|image| image.as_struct_opt())
            .and_then(|image| image.column_by_name("bytes"))
            .and_then(|bytes| bytes.as_binary_opt::<i32>())
            .filter(|bytes| !bytes.is_empty() && bytes.is_valid(0))
            .map(|bytes| Cow::Borrowed(bytes.value(0)))
            .ok_or_else(|| "has no image".to_owned())
    }

    fn decode(content: &[u8]) -> Result<RgbImage, String> {
        form::decode(content).map_err(|e| e.to_string())
    }
}

fn record_batch(
    rows: &[ImageRow],
    files: &[Vec<u8>],
    class_names: &[String],
) -> Result<RecordBatch, ArrowError> {
    let texts = |f: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows.len()).map(f)))
    };
    let indices = rows.iter().map(|row| i64::try_from(row.index).unwrap_or(i64::MAX));
    let variants = rows.iter().map(|row| i32::try_from(row.variant).unwrap_or(i32::MAX));
    let seconds = rows.iter().map(|row| row.seconds);
    Table::of_images(files, rows.iter().map(|row| &row.label), true, class_names)?
        .with_values("key", "string", texts(&|row| rows[row].key.digest().to_string()))
        .with_values("digest", "string", texts(&|row| Digest::of(&files[row]).to_string()))
        .with_values("index", "int64", Arc::new(Int64Array::from_iter_values(indices)))
        .with_values("variant", "int32", Arc::new(Int32Array::from_iter_values(variants)))
        .with_values("seconds", "float32", Arc::new(Float32Array::from_iter_values(seconds)))
        .finish()
}

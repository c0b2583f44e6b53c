//! What the rows of a cache hold.

mod form;
mod image;
mod logits;

pub use form::ImageForm;
pub use image::ImageRow;
pub use logits::{LogitForm, LogitRow};

use super::RowKey;
use crate::Result;
use arrow::array::RecordBatch;
use std::borrow::Cow;

/// A row of a cache: a key, and what is found under it.
///
/// As a table, it is an ordinary Hugging Face dataset with two columns more: `key`, the row's [`RowKey`] in hex, and
/// `digest`, the BLAKE3 of its content in hex.
pub trait Artifact: Sized + 'static {
    /// What is found under the key.
    type Value;

    /// What messages call rows, as in "refined images".
    const PLURAL: &'static str;

    /// What a part is read for: the columns of the content.
    const COLUMNS: &'static [&'static str];

    /// The row's key.
    fn key(&self) -> RowKey;

    /// The bytes of memory that the row takes.
    fn size(&self) -> usize;

    /// Rows as a table. `class_names` name the labels.
    ///
    /// # Errors
    /// If a row cannot be encoded.
    fn table(rows: &[Self], class_names: &[String]) -> Result<RecordBatch>;

    /// The bytes of row 0 of a table that `digest` is of.
    ///
    /// # Errors
    /// Why there are none.
    fn content(table: &RecordBatch) -> Result<Cow<'_, [u8]>, String>;

    /// What content holds.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    fn decode(content: &[u8]) -> Result<Self::Value, String>;
}

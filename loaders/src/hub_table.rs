//! Tables of images, or of what is said of them, in Hugging Face's layout of columns, as the cache and the export write them: `datasets` opens them
//! as they are.

use crate::Label;
use arrow::array::{
    Array as _, ArrayRef, BinaryArray, Float32Builder, Int64Array, ListBuilder, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// The columns so far, and what `datasets` takes them for.
#[derive(Default)]
pub(crate) struct Table {
    columns: Vec<(Field, ArrayRef)>,
    features: serde_json::Map<String, serde_json::Value>,
}

impl Table {
    /// The columns `image` and `label`, and `soft_label` if it is wanted: null where a label has no logits.
    pub(crate) fn of_images<'a>(
        files: &[Vec<u8>],
        labels: impl Iterator<Item = &'a Label> + Clone,
        has_soft_labels: bool,
        class_names: &[String],
    ) -> Result<Self, ArrowError> {
        let fields = Fields::from(vec![
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ]);
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(files));
        let paths: ArrayRef = Arc::new(StringArray::new_null(files.len()));
        let images = StructArray::try_new(fields, vec![bytes, paths], None)?;
        let table = Self::default()
            .with("image", Arc::new(images), json!({ "_type": "Image" }))
            .with_labels(labels.clone().map(Label::class), class_names);
        if !has_soft_labels {
            return Ok(table);
        }
        let mut logits = ListBuilder::new(Float32Builder::new());
        for label in labels {
            match label.scores() {
                Some(scores) => logits.append_value(scores.iter().copied().map(Some)),
                None => logits.append_null(),
            }
        }
        Ok(table.with_lists("soft_label", "float32", Arc::new(logits.finish())))
    }

    /// The table with the column `label`.
    pub(crate) fn with_labels(self, labels: impl Iterator<Item = usize>, class_names: &[String]) -> Self {
        let labels = labels.map(|class| i64::try_from(class).unwrap_or(i64::MAX));
        let names = json!({ "_type": "ClassLabel", "names": class_names });
        self.with("label", Arc::new(Int64Array::from_iter_values(labels)), names)
    }

    /// The table with a column of lists, whose values `datasets` calls `dtype`.
    pub(crate) fn with_lists(self, name: &str, dtype: &str, values: ArrayRef) -> Self {
        let feature = json!({ "_type": "Sequence", "feature": { "_type": "Value", "dtype": dtype } });
        self.with(name, values, feature)
    }

    /// The table with a column of values that `datasets` calls `dtype`.
    pub(crate) fn with_values(self, name: &str, dtype: &str, values: ArrayRef) -> Self {
        self.with(name, values, json!({ "_type": "Value", "dtype": dtype }))
    }

    /// All columns are nullable, though nothing but soft labels ever is: `datasets` takes a column for another one else.
    fn with(mut self, name: &str, values: ArrayRef, feature: serde_json::Value) -> Self {
        self.columns.push((Field::new(name, values.data_type().clone(), true), values));
        self.features.insert(name.to_owned(), feature);
        self
    }

    /// The table as one batch.
    pub(crate) fn finish(self) -> Result<RecordBatch, ArrowError> {
        let (fields, arrays): (Vec<_>, Vec<_>) = self.columns.into_iter().unzip();
        // pyarrow, and with it `datasets`, looks for this in the Arrow schema, not among a file's own metadata.
        let features = json!({ "info": { "features": self.features } }).to_string();
        let metadata = HashMap::from([("huggingface".to_owned(), features)]);
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), arrays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_what_datasets_expects() {
        let labels = [Label::Hard(1), Label::Logits(vec![0.5, -1.0])];
        let names = ["cat".to_owned(), "dog".to_owned()];
        let table = Table::of_images(&[vec![1], vec![2, 3]], labels.iter(), true, &names).unwrap();
        let seconds = Arc::new(arrow::array::Float32Array::from(vec![0.5, 1.5]));
        let batch = table.with_values("seconds", "float32", seconds).finish().unwrap();
        let schema = batch.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(columns, ["image", "label", "soft_label", "seconds"]);
        assert_eq!(batch.column(2).null_count(), 1);
        let features: serde_json::Value = serde_json::from_str(&schema.metadata()["huggingface"]).unwrap();
        let expected = json!({
            "image": { "_type": "Image" },
            "label": { "_type": "ClassLabel", "names": ["cat", "dog"] },
            "soft_label": { "_type": "Sequence", "feature": { "_type": "Value", "dtype": "float32" } },
            "seconds": { "_type": "Value", "dtype": "float32" },
        });
        assert_eq!(features["info"]["features"], expected);
        let hard = Table::of_images(&[vec![1]], labels[..1].iter(), false, &names).unwrap().finish().unwrap();
        assert_eq!(hard.num_columns(), 2);
    }
}

//! Rows that hold a teacher's logits.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `label` | int64 | class in the dataset |
//! | `logits` | list of float32 or float16 | one for each class; of the top k, those of the classes in `classes` |
//! | `classes` | list of int32, or null | the k classes with the greatest logits; null if all are stored |
//! | `rest` | float32, or null | the logit of every class that is not in `classes` |
//! | `num_classes` | int32 | how many classes there are |
//! | `key` | string | [`LogitRow::key_of`] in hex |
//! | `digest` | string | BLAKE3 of the columns from `logits` to `num_classes`, as little-endian numbers of 32 bits, in hex |

use super::Artifact;
use crate::cache::RowKey;
use crate::hub_table::Table;
use crate::{Digest, Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray as _, Float16Builder, Float32Array, Float32Builder, Int32Array, Int32Builder,
    ListBuilder, RecordBatch, StringArray,
};
use arrow::datatypes::{Float16Type, Float32Type, Int32Type};
use arrow::error::ArrowError;
use half::f16;
use serde::Serialize;
use std::borrow::Cow;
use std::num::NonZero;
use std::sync::Arc;

/// The most classes of a row: from the top k of it, a few bytes can claim that there are any number.
const MOST_CLASSES: u32 = 1 << 24;

/// How logits are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogitForm {
    /// In float16 rather than float32: half the size, to three digits.
    pub half: bool,
    /// Only so many of the greatest. The probability of the others is spread evenly over them, so that the softmax of
    /// what is read is that of what was stored, but for how the others share theirs.
    pub top_k: Option<NonZero<usize>>,
}

/// Logits as they are stored.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    values: Vec<f32>,
    classes: Option<Vec<u32>>,
    rest: Option<f32>,
    num_classes: u32,
    half: bool,
}

/// A teacher's logits for one view of one image.
///
/// ```
/// use diver_loaders::cache::{LogitForm, LogitRow, MemoryStore};
/// use diver_loaders::{Cache, Digest};
///
/// let cache = Cache::on(MemoryStore::new());
/// let teacher = serde_json::json!({ "teacher": "resnet18", "view": "center crop" });
/// let logits = cache.logits(&teacher)?;
/// let key = LogitRow::key_of(Digest::of(b"an image"), 0);
/// logits.commit(&[LogitRow::new(key, 1, &[0.5, 2.0, -1.0], LogitForm::default())?], &[])?;
/// assert_eq!(logits.get(&key)?, Some(vec![0.5, 2.0, -1.0]));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LogitRow {
    key: RowKey,
    label: usize,
    stored: Stored,
}

impl LogitRow {
    /// The key of the logits of view number `view` of an image: `image` is the hash of what decides its pixels.
    #[must_use]
    pub fn key_of(image: Digest, view: u64) -> RowKey {
        let mut hasher = blake3::Hasher::new_derive_key("diver logits v1");
        hasher.update(image.as_bytes()).update(&view.to_le_bytes());
        RowKey::from(Digest::from(hasher.finalize()))
    }

    /// A row of `logits`, one for each class, for a sample of class `label`.
    ///
    /// # Errors
    /// If there are none, or more than 2^24, or one is not finite in the form that they are stored in.
    pub fn new(key: RowKey, label: usize, logits: &[f32], form: LogitForm) -> Result<Self> {
        let refused = |reason: String| Error::config("logits", reason);
        let num_classes = u32::try_from(logits.len()).ok();
        let num_classes =
            num_classes.filter(|classes| (1..=MOST_CLASSES).contains(classes)).ok_or_else(|| {
                refused(format!(
                    "{} logits were given for an image, from 1 to {MOST_CLASSES} are expected",
                    logits.len()
                ))
            })?;
        let round = |value: f32| if form.half { f16::from_f32(value).to_f32() } else { value };
        if let Some(class) = logits.iter().position(|value| !round(*value).is_finite()) {
            let range =
                if form.half { "is not finite in float16, which reaches to 65504" } else { "is not finite" };
            return Err(refused(format!("{} of class {class} {range}", logits[class])));
        }
        let stored = match form.top_k.filter(|k| k.get() < logits.len()) {
            None => Stored {
                values: logits.iter().copied().map(round).collect(),
                classes: None,
                rest: None,
                num_classes,
                half: form.half,
            },
            Some(k) => {
                let mut order: Vec<u32> = (0..num_classes).collect();
                // Of equal ones, the first class.
                order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
                let (top, others) = order.split_at(k.get());
                Stored {
                    values: top.iter().map(|class| round(logits[*class as usize])).collect(),
                    classes: Some(top.to_vec()),
                    rest: Some(spread(others.iter().map(|class| logits[*class as usize]))),
                    num_classes,
                    half: form.half,
                }
            }
        };
        Ok(Self { key, label, stored })
    }

    /// The logits of all classes, as they are read again.
    pub(crate) fn logits(&self) -> Vec<f32> {
        self.stored.whole()
    }
}

/// The logit that as many classes must have as there are `logits` for these to have the same probability together.
fn spread(logits: impl ExactSizeIterator<Item = f32> + Clone) -> f32 {
    let count = logits.len() as f64;
    let greatest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.map(|logit| f64::from(logit - greatest).exp()).sum();
    (f64::from(greatest) + (sum / count).ln()) as f32
}

impl Stored {
    /// The logits of all classes.
    fn whole(&self) -> Vec<f32> {
        let Some(classes) = &self.classes else { return self.values.clone() };
        let mut all = vec![self.rest.unwrap_or_default(); self.num_classes as usize];
        for (class, value) in classes.iter().zip(&self.values) {
            if let Some(place) = all.get_mut(*class as usize) {
                *place = *value;
            }
        }
        all
    }

    /// What the digest is of: counts, then values.
    fn bytes(&self) -> Vec<u8> {
        let classes = self.classes.as_deref().unwrap_or_default();
        let counts = [self.num_classes, self.values.len() as u32, classes.len() as u32];
        let rest = self.rest.unwrap_or_default().to_bits();
        let numbers = counts.into_iter().chain([rest]).chain(classes.iter().copied());
        numbers.chain(self.values.iter().map(|value| value.to_bits())).flat_map(u32::to_le_bytes).collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(4).map(|four| Some(u32::from_le_bytes(four.try_into().ok()?)));
        let mut next = || numbers.next().flatten();
        let (num_classes, values, classes, rest) = (next()?, next()?, next()?, f32::from_bits(next()?));
        let is_whole = classes == 0;
        if values == 0
            || num_classes > MOST_CLASSES
            || values > num_classes
            || (is_whole && values != num_classes)
            || (!is_whole && classes != values)
        {
            return None;
        }
        let classes: Vec<u32> =
            (0..classes).map(|_| next().filter(|class| *class < num_classes)).collect::<Option<_>>()?;
        let values: Vec<f32> = (0..values).map(|_| next().map(f32::from_bits)).collect::<Option<_>>()?;
        let classes = (!is_whole).then_some(classes);
        let rest = classes.is_some().then_some(rest);
        // As `LogitRow::new` stores none: one would spoil whatever is trained with it.
        if !values.iter().chain(&rest).all(|logit| logit.is_finite()) {
            return None;
        }
        Some(Self { values, classes, rest, num_classes, half: false })
    }
}

impl Artifact for LogitRow {
    type Value = Vec<f32>;

    const PLURAL: &'static str = "a teacher's logits";

    const COLUMNS: &'static [&'static str] = &["logits", "classes", "rest", "num_classes"];

    fn key(&self) -> RowKey {
        self.key
    }

    fn size(&self) -> usize {
        let Stored { values, classes, .. } = &self.stored;
        size_of::<Self>() + size_of_val(values.as_slice()) + classes.as_deref().map_or(0, size_of_val)
    }

    fn table(rows: &[Self], class_names: &[String]) -> Result<RecordBatch> {
        record_batch(rows, class_names)
            .map_err(|e| Error::config("cache", format!("cannot encode a part of logits: {e}")))
    }

    fn content(table: &RecordBatch) -> Result<Cow<'_, [u8]>, String> {
        stored(table).map(|stored| Cow::Owned(stored.bytes())).ok_or_else(|| "has no logits".to_owned())
    }

    fn decode(content: &[u8]) -> Result<Vec<f32>, String> {
        Stored::parse(content)
            .map(|stored| stored.whole())
            .ok_or_else(|| "has counts that do not fit, or a logit that is not finite".to_owned())
    }
}

/// Row 0 of a table.
fn stored(table: &RecordBatch) -> Option<Stored> {
    if table.num_rows() == 0 {
        return None;
    }
    let list = |name: &str| -> Option<ArrayRef> {
        let column = table.column_by_name(name)?.as_list_opt::<i32>()?;
        column.is_valid(0).then(|| column.value(0))
    };
    let logits = list("logits")?;
    let (values, half) = match logits.as_primitive_opt::<Float32Type>() {
        Some(values) => (values.values().to_vec(), false),
        None => {
            let values = logits.as_primitive_opt::<Float16Type>()?;
            (values.values().iter().map(|value| value.to_f32()).collect(), true)
        }
    };
    let classes = match list("classes") {
        Some(classes) => {
            let classes = classes.as_primitive_opt::<Int32Type>()?.values().to_vec();
            Some(classes.into_iter().map(u32::try_from).collect::<Result<Vec<_>, _>>().ok()?)
        }
        None => None,
    };
    let rest = table.column_by_name("rest")?.as_primitive_opt::<Float32Type>()?;
    let num_classes = table.column_by_name("num_classes")?.as_primitive_opt::<Int32Type>()?;
    Some(Stored {
        values,
        classes,
        rest: rest.is_valid(0).then(|| rest.value(0)),
        num_classes: u32::try_from(num_classes.value(0)).ok()?,
        half,
    })
}

fn record_batch(rows: &[LogitRow], class_names: &[String]) -> Result<RecordBatch, ArrowError> {
    let half = rows.first().is_some_and(|row| row.stored.half);
    if rows.iter().any(|row| row.stored.half != half) {
        return Err(ArrowError::InvalidArgumentError("rows of float16 and of float32 in one part".into()));
    }
    let logits: ArrayRef = if half {
        let mut lists = ListBuilder::new(Float16Builder::new());
        rows.iter()
            .for_each(|row| lists.append_value(row.stored.values.iter().map(|v| Some(f16::from_f32(*v)))));
        Arc::new(lists.finish())
    } else {
        let mut lists = ListBuilder::new(Float32Builder::new());
        rows.iter().for_each(|row| lists.append_value(row.stored.values.iter().copied().map(Some)));
        Arc::new(lists.finish())
    };
    let mut classes = ListBuilder::new(Int32Builder::new());
    for row in rows {
        match &row.stored.classes {
            Some(top) => classes.append_value(top.iter().map(|class| i32::try_from(*class).ok())),
            None => classes.append_null(),
        }
    }
    let texts = |text: &dyn Fn(&LogitRow) -> Digest| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| text(row).to_string())))
    };
    let count = |row: &LogitRow| i32::try_from(row.stored.num_classes).unwrap_or(i32::MAX);
    Table::default()
        .with_labels(rows.iter().map(|row| row.label), class_names)
        .with_lists("logits", if half { "float16" } else { "float32" }, logits)
        .with_lists("classes", "int32", Arc::new(classes.finish()))
        .with_values(
            "rest",
            "float32",
            Arc::new(Float32Array::from_iter(rows.iter().map(|row| row.stored.rest))),
        )
        .with_values("num_classes", "int32", Arc::new(Int32Array::from_iter_values(rows.iter().map(count))))
        .with_values("key", "string", texts(&|row| row.key.digest()))
        .with_values("digest", "string", texts(&|row| Digest::of(&row.stored.bytes())))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::cache::MemoryStore;
    use proptest::prelude::*;

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp: Vec<f64> = logits.iter().map(|logit| f64::from(logit - greatest).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(|one| one / sum).collect()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_stored(
            logits in prop::collection::vec(-30.0_f32..30.0, 1..40),
            half: bool,
            k in 0_usize..12,
        ) {
            let cache = Cache::on(MemoryStore::new());
            let table = cache.logits(&serde_json::json!({ "teacher": "t" })).unwrap();
            let key = LogitRow::key_of(Digest::of(b"x"), 3);
            let form = LogitForm { half, top_k: NonZero::new(k) };
            table.commit(&[LogitRow::new(key, 0, &logits, form).unwrap()], &[]).unwrap();
            let read = table.get(&key).unwrap().unwrap();
            let tolerance = if half { 0.02 } else { 1e-5 };
            prop_assert_eq!(read.len(), logits.len());
            let (before, after) = (softmax(&logits), softmax(&read));
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            let stored = if k == 0 { logits.len() } else { k.min(logits.len()) };
            for class in &order[..stored] {
                prop_assert!((before[*class] - after[*class]).abs() < tolerance);
            }
            let others = &order[stored..];
            prop_assert!(others.iter().all(|class| read[*class] == read[others[0]]), "evenly");
            if !half && k == 0 {
                prop_assert_eq!(read, logits);
            }
        }
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let key = LogitRow::key_of(Digest::of(b"x"), 0);
        let half = LogitForm { half: true, ..LogitForm::default() };
        for (logits, form, reason) in [
            (&[][..], LogitForm::default(), "0 logits"),
            (&[0.0, f32::NAN], LogitForm::default(), "class 1 is not finite"),
            (&[1e6], half, "65504"),
        ] {
            assert!(LogitRow::new(key, 0, logits, form).unwrap_err().to_string().contains(reason));
        }
        for bytes in [&[][..], &[0; 16], &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(LogitRow::decode(bytes).is_err());
        }
        // The counts, the rest, a class of the top 1 and its logit.
        let top = |classes: u32, rest: f32, logit: f32| {
            let numbers = [classes, 1, 1, rest.to_bits(), 0, logit.to_bits()];
            LogitRow::decode(&numbers.map(u32::to_le_bytes).concat())
        };
        assert_eq!(top(3, 1.0, 2.0).unwrap(), [2.0, 1.0, 1.0]);
        assert!(top(u32::MAX, 1.0, 2.0).is_err(), "16 GB from 24 bytes");
        assert!(top(3, f32::NAN, 2.0).is_err() && top(3, 1.0, f32::INFINITY).is_err());
    }
}

//! Labels as they lie beside images: class indices, one-hot rows, logits or probabilities.

use super::named::{Named, refuse_first_label};
use crate::source::containers::tensor::{TensorFile, TensorRef};
use crate::source::{Label, LabelKind, OpenOptions};
use crate::wording::counted;
use crate::{ClassMap, Error, Result};
use std::path::Path;

/// The most classes that labels alone can ask for: ImageNet-21K has 21,841. Every batch of soft labels is as
/// wide as there are classes, so one damaged label must not decide that.
pub(crate) const MAX_CLASSES: usize = 1 << 16;

/// How far the probabilities of a sample may be from a sum of 1: half precision, over many classes.
const SUM_TOLERANCE: f32 = 1e-2;

/// The labels of a set.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) labels: Vec<Label>,
    pub(crate) classes: usize,
    pub(crate) kind: LabelKind,
    /// The names of the classes, where labels are names.
    pub(crate) names: Option<Vec<String>>,
    /// The refiner's classes that these names are.
    pub(crate) class_map: Option<ClassMap>,
    /// What was assumed of them.
    pub(crate) notes: Vec<String>,
}

impl Labels {
    /// Reads the labels of `samples` images: class indices `[N]` or `[N, 1]`; or `[N, C]`, one-hot of any dtype, logits
    /// or probabilities. The options may widen the class count of hard labels.
    ///
    /// # Errors
    /// If the shape is another, or a label is not an integer below the class count.
    pub(crate) fn read(
        file: &TensorFile,
        tensor: &TensorRef,
        field: &str,
        samples: usize,
        options: &OpenOptions,
    ) -> Result<Self> {
        // Before they are read, as each takes more memory than in the file.
        if let Some(labels) = tensor.shape().first() {
            check_count(file.path(), field, *labels, samples)?;
        }
        match *tensor.shape() {
            [_] | [_, 1] => {
                let labels = if tensor.dtype().is_float() {
                    let values = file.read::<f32>(tensor, field)?;
                    integers(values.into_iter().map(|v| (v.fract() == 0.0).then_some(v as i64).ok_or(v)))
                } else {
                    integers(file.read::<i64>(tensor, field)?.into_iter().map(Ok::<_, i64>))
                };
                let labels = labels.map_err(|(index, found)| no_class(file.path(), index, &found, field))?;
                Self::of_classes(file.path(), labels, options)
            }
            [_, width] => Self::rows(file, tensor, field, width, options),
            _ => {
                let reason = format!(
                    "expected integers [N] or rows [N, classes] (one-hot, logits or probabilities), found {:?} of shape \
                     {:?}",
                    tensor.dtype(),
                    tensor.shape()
                );
                Err(Error::field(file.path(), field, reason))
            }
        }
    }

    /// Class indices of `samples` images that lie in a file as a list of numbers.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn listed(
        path: &Path,
        labels: Vec<i64>,
        field: &str,
        samples: usize,
        options: &OpenOptions,
    ) -> Result<Self> {
        check_count(path, field, labels.len(), samples)?;
        let labels = integers(labels.into_iter().map(Ok::<_, i64>));
        let labels = labels.map_err(|(index, found)| no_class(path, index, &found, field))?;
        Self::of_classes(path, labels, options)
    }

    /// Class indices as labels, counted from the first label that the options name.
    ///
    /// # Errors
    /// If one is out of range.
    pub(crate) fn of_classes(path: &Path, mut labels: Vec<usize>, options: &OpenOptions) -> Result<Self> {
        let first = options.first_label.unwrap_or(0);
        for (index, label) in labels.iter_mut().enumerate() {
            *label = label.checked_sub(first).ok_or_else(|| {
                Error::sample(path, index, format!("label {label} is below `first_label` ({first})"))
            })?;
        }
        let classes = class_count(path, &labels, options.class_count())?;
        let labels = labels.into_iter().map(Label::Hard).collect();
        Ok(Self { labels, classes, kind: LabelKind::Hard, names: None, class_map: None, notes: Vec::new() })
    }

    /// Labels that are names of classes, in the order of the class list that the options give, else of the names.
    ///
    /// # Errors
    /// As [`Named::new`].
    pub(crate) fn of_names(
        path: &Path,
        labels: &[String],
        field: &str,
        options: &OpenOptions,
    ) -> Result<Self> {
        let mut names: Vec<&str> = labels.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let named = Named::new(path, &names, options)?;
        let place = |label: &String| names.binary_search(&label.as_str()).map_or(0, |at| named.labels[at]);
        let mut read = Self::of_classes(path, labels.iter().map(place).collect(), options)?;
        if named.are_numbers {
            read.notes.push(format!("the labels in `{field}` are text, and are read as numbers"));
        }
        let first = options.first_label.unwrap_or(0);
        let mut class_names: Vec<String> =
            (0..read.classes).map(|class| (first + class).to_string()).collect();
        for (name, class) in names.iter().zip(&named.labels) {
            class_names[*class - first] = (*name).to_owned();
        }
        read.names = Some(class_names);
        read.class_map = named.class_map.as_indices().map(|_| named.class_map.clone());
        read.notes.extend(named.notes);
        Ok(read)
    }

    /// Rows of `width` values: what they are is told by all of them.
    fn rows(
        file: &TensorFile,
        tensor: &TensorRef,
        field: &str,
        width: usize,
        options: &OpenOptions,
    ) -> Result<Self> {
        if width == 0 {
            return Err(Error::field(file.path(), field, "the rows are empty"));
        }
        if let Some(classes) = options.class_count().filter(|n| *n != width) {
            let reason =
                format!("it says {classes}, but each row of `{field}` has {}", counted(width, "value"));
            return Err(Error::config(options.class_count_option(), reason));
        }
        refuse_first_label(
            options,
            &format!("the labels in `{field}` are rows with a value for each class"),
        )?;
        let values = file.read::<f32>(tensor, field)?;
        let rows = values.chunks_exact(width);
        let soft = |kind, labels: Vec<Label>, notes| Self {
            labels,
            classes: width,
            kind,
            names: None,
            class_map: None,
            notes,
        };
        if values.iter().all(|value| *value == 0.0 || *value == 1.0) {
            let ones = |row: &[f32]| row.iter().filter(|value| **value == 1.0).count();
            if let Some(index) = rows.clone().position(|row| ones(row) == 0) {
                let reason = format!("its row in `{field}` is all zeros, so it has no class");
                return Err(Error::sample(file.path(), index, reason));
            }
            if rows.clone().all(|row| ones(row) == 1) {
                let class = |row: &[f32]| row.iter().position(|value| *value == 1.0).unwrap_or(0);
                let labels = rows.map(|row| Label::Hard(class(row))).collect();
                return Ok(soft(LabelKind::Hard, labels, Vec::new()));
            }
            let several = rows.clone().filter(|row| ones(row) > 1).count();
            let share = |row: &[f32]| row.iter().map(|value| value / ones(row) as f32).collect();
            let labels = rows.map(|row| Label::Probabilities(share(row))).collect();
            let note = format!(
                "{} of `{field}` mark several classes (multi-hot): each sample's target is shared equally among its \
                 classes",
                counted(several, "row")
            );
            return Ok(soft(LabelKind::Probabilities, labels, vec![note]));
        }
        if !tensor.dtype().is_float() {
            let reason = format!(
                "expected class indices [N] or one-hot rows, found integer rows of {} that are not one-hot",
                counted(width, "value")
            );
            return Err(Error::field(file.path(), field, reason));
        }
        let (kind, notes) = kind_of(field, rows.clone());
        Ok(soft(kind, rows.map(|row| label(kind, row.to_vec())).collect(), notes))
    }

    /// Soft labels that lie beside class indices, in rows of one width; told as [`read`](Self::read) tells them.
    ///
    /// # Errors
    /// If rows differ in width, or are not of as many classes as the options say.
    pub(crate) fn of_rows(
        path: &Path,
        rows: Vec<Vec<f32>>,
        field: &str,
        options: &OpenOptions,
    ) -> Result<Self> {
        let width = rows.first().map_or(0, Vec::len);
        if let Some(index) = rows.iter().position(|row| row.len() != width) {
            let reason = format!(
                "`{field}` has {} where the first sample has {width}",
                counted(rows[index].len(), "value")
            );
            return Err(Error::sample(path, index, reason));
        }
        if let Some(classes) = options.class_count().filter(|n| *n != width) {
            let reason =
                format!("it says {classes}, but each row of `{field}` has {}", counted(width, "value"));
            return Err(Error::config(options.class_count_option(), reason));
        }
        if let Some(index) = rows.iter().position(|row| row.iter().any(|value| !value.is_finite())) {
            return Err(Error::sample(path, index, format!("`{field}` contains NaN or infinity")));
        }
        let (kind, notes) = kind_of(field, rows.iter().map(Vec::as_slice));
        let labels = rows.into_iter().map(|row| label(kind, row)).collect();
        Ok(Self { labels, classes: width, kind, names: None, class_map: None, notes })
    }

    /// The same samples with the class of their largest score as a hard label.
    ///
    /// # Errors
    /// If a score is not finite.
    pub(crate) fn hardened(self, path: &Path) -> Result<Self> {
        let is_finite =
            |label: &Label| label.scores().is_none_or(|scores| scores.iter().all(|s| s.is_finite()));
        if let Some(index) = self.labels.iter().position(|label| !is_finite(label)) {
            return Err(Error::sample(path, index, "its label contains NaN or infinity"));
        }
        let labels = self.labels.iter().map(|label| Label::Hard(label.class())).collect();
        Ok(Self { labels, kind: LabelKind::Hard, notes: Vec::new(), ..self })
    }
}

fn check_count(path: &Path, field: &str, labels: usize, samples: usize) -> Result<()> {
    if labels == samples {
        return Ok(());
    }
    let reason = format!("{} for {}", counted(labels, "label"), counted(samples, "image"));
    Err(Error::field(path, field, reason))
}

fn no_class(path: &Path, index: usize, found: &str, field: &str) -> Error {
    let reason = format!("label {found} in `{field}` is not a class index (an integer from 0)");
    Error::sample(path, index, reason)
}

fn are_probabilities(row: &[f32]) -> bool {
    let sum: f32 = row.iter().sum();
    row.iter().all(|value| (0.0..=1.0 + SUM_TOLERANCE).contains(value)) && (sum - 1.0).abs() <= SUM_TOLERANCE
}

/// What rows of scores are, with a note where other numbers would make them something else.
fn kind_of<'a>(field: &str, rows: impl Iterator<Item = &'a [f32]> + Clone) -> (LabelKind, Vec<String>) {
    let Some((index, odd)) = rows.clone().enumerate().find(|(_, row)| !are_probabilities(row)) else {
        let note = format!(
            "the rows of `{field}` are positive and sum to 1, so they are used as probabilities, without a softmax"
        );
        return (LabelKind::Probabilities, vec![note]);
    };
    // Probabilities that were rounded, or are percentages, are never negative; logits nearly always are somewhere.
    let are_positive = rows.flatten().all(|value| *value >= 0.0);
    let note = format!(
        "no value of `{field}` is negative, but row {index} sums to {}, not 1: the rows are used as logits, with a \
         softmax. If they are probabilities, divide each row by its sum",
        odd.iter().sum::<f32>()
    );
    (LabelKind::Logits, are_positive.then_some(note).into_iter().collect())
}

fn label(kind: LabelKind, row: Vec<f32>) -> Label {
    match kind {
        LabelKind::Probabilities => Label::Probabilities(row),
        _ => Label::Logits(row),
    }
}

/// Class indices, or the first sample whose label is none.
pub(crate) fn integers<F: ToString>(
    values: impl Iterator<Item = Result<i64, F>>,
) -> Result<Vec<usize>, (usize, String)> {
    let integer = |(index, value): (usize, Result<i64, F>)| match value {
        Ok(value) => usize::try_from(value).map_err(|_| (index, value.to_string())),
        Err(other) => Err((index, other.to_string())),
    };
    values.enumerate().map(integer).collect()
}

/// The number of classes: `wanted`, or one more than the largest label.
///
/// # Errors
/// If a label is beyond it.
fn class_count(path: &Path, labels: &[usize], wanted: Option<usize>) -> Result<usize> {
    let limit = wanted.unwrap_or(MAX_CLASSES);
    if let Some(index) = labels.iter().position(|label| *label >= limit) {
        let label = labels[index];
        let reason = match wanted {
            Some(classes) => format!(
                "label {label} is out of range: the set was opened with {} (labels 0 to {})",
                counted(classes, "class"),
                classes.saturating_sub(1)
            ),
            None => format!(
                "label {label} is out of range: more than {MAX_CLASSES} classes must be asked for with `num_classes`"
            ),
        };
        return Err(Error::sample(path, index, reason));
    }
    Ok(wanted.unwrap_or_else(|| labels.iter().max().map_or(0, |most| most + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_told_from_logits() {
        for row in [&[0.25, 0.75][..], &[1.0, 0.0, 0.0], &[0.3335, 0.3335, 0.3335], &[1.0]] {
            assert!(are_probabilities(row), "{row:?}");
        }
        for row in [&[0.5, 0.75][..], &[1.5, -0.5], &[f32::NAN, 1.0], &[0.2, 0.2], &[2.0, -1.0]] {
            assert!(!are_probabilities(row), "{row:?}");
        }
    }
}

//! Labels: class indices, logits or probabilities, and how many classes they make.

use crate::source::containers::tensor::{TensorFile, TensorRef};
use crate::source::{Label, LabelKind, OpenOptions};
use crate::wording::counted;
use crate::{Error, Result};
use std::path::Path;

/// The most classes that labels alone can ask for: ImageNet-21K has 21,841. Every batch of soft labels is as
/// wide as there are classes, so one damaged label must not decide that.
pub(crate) const MAX_CLASSES: usize = 1 << 16;

/// How far the probabilities of a sample may be from a sum of 1: half precision, over many classes.
const SUM_TOLERANCE: f32 = 1e-2;

/// Stands in for the logarithm of 0, which is not finite: its softmax is 0 all the same.
const LEAST_LOGIT: f32 = -1e4;

/// The labels of a set.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) labels: Vec<Label>,
    pub(crate) classes: usize,
    pub(crate) kind: LabelKind,
    /// What was assumed of them.
    pub(crate) notes: Vec<String>,
}

impl Labels {
    /// Reads the labels of `samples` images: class indices `[N]`, or logits or probabilities `[N, C]`. The options may
    /// widen the class count of the former.
    ///
    /// # Errors
    /// If the shape is another, or a label is not an integer from 0 below the class count.
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
            [_] => Self::hard(file, tensor, field, options),
            [_, width] if tensor.dtype().is_float() && width > 1 => {
                Self::soft(file, tensor, field, width, options)
            }
            _ => {
                let reason = format!(
                    "{:?} elements of shape {:?}: integers [N], or float logits [N, C] of two classes or more, are expected",
                    tensor.dtype(),
                    tensor.shape()
                );
                Err(Error::field(file.path(), field, reason))
            }
        }
    }

    fn hard(file: &TensorFile, tensor: &TensorRef, field: &str, options: &OpenOptions) -> Result<Self> {
        let labels = if tensor.dtype().is_float() {
            let values = file.read::<f32>(tensor, field)?;
            integers(values.into_iter().map(|v| (v.fract() == 0.0).then_some(v as i64).ok_or(v)))
        } else {
            integers(file.read::<i64>(tensor, field)?.into_iter().map(Ok::<_, i64>))
        };
        let labels = labels.map_err(|(index, found)| no_class(file.path(), index, &found, field))?;
        Self::of_classes(file.path(), labels, options)
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

    /// Class indices as labels.
    pub(crate) fn of_classes(path: &Path, labels: Vec<usize>, options: &OpenOptions) -> Result<Self> {
        let classes = class_count(path, &labels, options.class_count())?;
        let labels = labels.into_iter().map(Label::Hard).collect();
        Ok(Self { labels, classes, kind: LabelKind::Hard, notes: Vec::new() })
    }

    fn soft(
        file: &TensorFile,
        tensor: &TensorRef,
        field: &str,
        width: usize,
        options: &OpenOptions,
    ) -> Result<Self> {
        if let Some(classes) = options.class_count().filter(|n| *n != width) {
            let reason =
                format!("{classes}, where `{field}` holds {} for each sample", counted(width, "logit"));
            return Err(Error::config(options.class_count_option(), reason));
        }
        let mut values = file.read::<f32>(tensor, field)?;
        let mut notes = Vec::new();
        if !values.is_empty() && values.chunks_exact(width).all(are_probabilities) {
            notes.push(format!(
                "the rows of `{field}` are positive and sum to 1: they are taken for probabilities, not for logits"
            ));
            // The softmax of logarithms gives them back.
            for value in &mut values {
                *value = value.ln().max(LEAST_LOGIT);
            }
        }
        let labels = values.chunks_exact(width).map(|logits| Label::Logits(logits.to_vec())).collect();
        Ok(Self { labels, classes: width, kind: LabelKind::Logits, notes })
    }

    /// The same samples with their largest logit's class as a label.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub(crate) fn hardened(self, path: &Path) -> Result<Self> {
        let is_finite = |label: &Label| match label {
            Label::Logits(logits) => logits.iter().all(|logit| logit.is_finite()),
            Label::Hard(_) => true,
        };
        if let Some(index) = self.labels.iter().position(|label| !is_finite(label)) {
            return Err(Error::sample(path, index, "a label that is not finite"));
        }
        let labels = self.labels.iter().map(|label| Label::Hard(label.class())).collect();
        Ok(Self { labels, kind: LabelKind::Hard, ..self })
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
    Error::sample(path, index, format!("label {found} in `{field}`: integers from 0 are expected"))
}

fn are_probabilities(row: &[f32]) -> bool {
    let sum: f32 = row.iter().sum();
    row.iter().all(|value| (0.0..=1.0 + SUM_TOLERANCE).contains(value)) && (sum - 1.0).abs() <= SUM_TOLERANCE
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
pub(crate) fn class_count(path: &Path, labels: &[usize], wanted: Option<usize>) -> Result<usize> {
    let limit = wanted.unwrap_or(MAX_CLASSES);
    if let Some(index) = labels.iter().position(|label| *label >= limit) {
        let reason = match wanted {
            Some(classes) => {
                format!("label {} is out of range, of {} asked for", labels[index], counted(classes, "class"))
            }
            None => {
                format!("label {} is out of range: set the number of classes if it is meant", labels[index])
            }
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

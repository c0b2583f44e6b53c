//! Class indices: which are valid, and how many classes they make.

use crate::{Error, Result};
use std::path::Path;

/// The most classes that labels alone can ask for: ImageNet-21K has 21,841. Every batch of soft labels is as
/// wide as there are classes, so one damaged label must not decide that.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// Class indices, or the first sample whose label is none.
pub(super) fn integers<F: ToString>(
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
pub(super) fn class_count(path: &Path, labels: &[usize], wanted: Option<usize>) -> Result<usize> {
    let limit = wanted.unwrap_or(MAX_CLASSES);
    if let Some(index) = labels.iter().position(|label| *label >= limit) {
        let reason = match wanted {
            Some(classes) => {
                format!("label {} is out of range: {classes} classes were asked for", labels[index])
            }
            None => {
                format!("label {} is out of range: set the number of classes if it is meant", labels[index])
            }
        };
        return Err(Error::sample(path, index, reason));
    }
    Ok(wanted.unwrap_or_else(|| labels.iter().max().map_or(0, |most| most + 1)))
}

//! Images and labels held as tensors in torch files: what DC's, MTT's and their kin have in common.

use super::labels::{class_count, integers};
use super::torch::{TensorRef, TorchFile};
use super::{Label, LabelKind, MemorySource, SourceInfo, ValueSpace};
use crate::{Error, Normalize, Result};

/// Labels read from a tensor.
pub(super) struct Labels {
    labels: Vec<Label>,
    classes: usize,
    kind: LabelKind,
}

/// Reads labels: integers `[N]`, or logits `[N, C]`. `classes` widens the class count of the former.
///
/// # Errors
/// If the shape is another, or a label is not an integer from 0 below the class count.
pub(super) fn labels(
    file: &mut TorchFile,
    tensor: &TensorRef,
    field: &str,
    classes: Option<usize>,
) -> Result<Labels> {
    match *tensor.shape() {
        [_] => {
            let labels = if tensor.dtype().is_float() {
                let values = file.read::<f32>(tensor, field)?;
                integers(values.into_iter().map(|v| (v.fract() == 0.0).then_some(v as i64).ok_or(v)))
            } else {
                integers(file.read::<i64>(tensor, field)?.into_iter().map(Ok::<_, i64>))
            };
            let labels = labels.map_err(|(index, found)| {
                Error::sample(
                    file.path(),
                    index,
                    format!("label {found} in `{field}`: integers from 0 are expected"),
                )
            })?;
            let classes = class_count(file.path(), &labels, classes)?;
            Ok(Labels {
                labels: labels.into_iter().map(Label::Hard).collect(),
                classes,
                kind: LabelKind::Hard,
            })
        }
        [_, width] if tensor.dtype().is_float() && width > 0 => {
            if let Some(classes) = classes.filter(|n| *n != width) {
                let reason = format!("{classes}, where `{field}` holds {width} logits for each sample");
                return Err(Error::config("classes", reason));
            }
            let values = file.read::<f32>(tensor, field)?;
            let labels = values.chunks_exact(width).map(|logits| Label::Logits(logits.to_vec())).collect();
            Ok(Labels { labels, classes: width, kind: LabelKind::Logits })
        }
        _ => {
            let reason = format!(
                "{:?} elements of shape {:?}: integers [N] or float logits [N, C] are expected",
                tensor.dtype(),
                tensor.shape()
            );
            Err(Error::field(file.path(), field, reason))
        }
    }
}

/// Reads normalised images `[N, C, H, W]` and joins them with their labels.
///
/// # Errors
/// If the shape is another, or the numbers of images and labels differ.
pub(super) fn source(
    file: &mut TorchFile,
    images: &TensorRef,
    field: &str,
    labels: Labels,
    format: &str,
    (normalize, notes): (Normalize, Vec<String>),
) -> Result<MemorySource> {
    let &[samples, channels, height, width] = images.shape() else {
        let reason = format!("shape {:?}: images [N, C, H, W] are expected", images.shape());
        return Err(Error::field(file.path(), field, reason));
    };
    if !images.dtype().is_float() {
        let reason = format!("{:?} elements: normalised floats are expected", images.dtype());
        return Err(Error::field(file.path(), field, reason));
    }
    let values = file.read(images, field)?;
    let info = SourceInfo {
        format: format.into(),
        path: file.path().to_owned(),
        samples,
        classes: labels.classes,
        class_names: None,
        shape: [channels, height, width],
        labels: labels.kind,
        value_space: ValueSpace::Normalized(normalize),
        normalize,
        notes,
    };
    MemorySource::new(info, values, labels.labels)
}

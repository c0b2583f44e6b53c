//! A dataset held in memory.

use super::super::info::Format;
use super::super::sample::PixelsRef;
use super::super::{Label, LabelKind, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use crate::kernels::are_finite;
use crate::wording::counted;
use crate::{ClassMap, Error, Normalize, Result};
use std::path::{Path, PathBuf};

/// Samples in memory: what the torch-file formats are read into, and a source for sets made by a program.
///
/// ```
/// use diver_loaders::{MemorySource, Source};
///
/// let set = MemorySource::unit(2, [3, 1, 1], vec![0.0, 0.5, 1.0, 1.0, 0.5, 0.0], vec![0, 1])?;
/// assert_eq!(set.info().num_classes, 2);
/// assert_eq!(set.sample(1)?.label.class(), 1);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemorySource {
    info: SourceInfo,
    values: StoredPixels,
    labels: Vec<Label>,
}

impl MemorySource {
    /// Pixels in [0, 1], `[samples, C, H, W]`, with a class for each sample, to be normalised with ImageNet's
    /// constants when streamed.
    ///
    /// # Errors
    /// As [`MemorySource::new`].
    pub fn unit(samples: usize, shape: [usize; 3], values: Vec<f32>, labels: Vec<usize>) -> Result<Self> {
        let info = SourceInfo {
            format: Format::Memory,
            method: None,
            path: PathBuf::from("memory"),
            num_samples: samples,
            num_classes: labels.iter().max().map_or(0, |most| most + 1),
            classes: None,
            class_map: ClassMap::identity(),
            shape,
            labels: LabelKind::Hard,
            value_space: ValueSpace::Unit,
            normalize: Normalize::IMAGENET,
            learning_rate: None,
            facts: Vec::new(),
            notes: Vec::new(),
        };
        Self::new(info, values, labels.into_iter().map(Label::Hard).collect())
    }

    /// Values `[info.num_samples, C, H, W]` and labels that agree with `info`.
    ///
    /// # Errors
    /// If they do not, naming `info.path`; if there are no samples, or the channels are neither 1 nor 3.
    pub fn new(info: SourceInfo, values: Vec<f32>, labels: Vec<Label>) -> Result<Self> {
        Self::of_pixels(info, StoredPixels::F32(values), labels)
    }

    pub(crate) fn of_pixels(info: SourceInfo, values: StoredPixels, labels: Vec<Label>) -> Result<Self> {
        check(&info, &labels)?;
        let [channels, height, width] = info.shape;
        let expected = [info.num_samples, channels, height, width]
            .into_iter()
            .try_fold(1_usize, |product, n| product.checked_mul(n));
        if expected != Some(values.len()) {
            let reason = format!(
                "{} values do not make {} of shape {:?}",
                values.len(),
                counted(info.num_samples, "image"),
                info.shape
            );
            return Err(Error::field(&info.path, "images", reason));
        }
        Ok(Self { info, values, labels })
    }

    /// The values of sample `index`.
    fn pixels(&self, index: usize) -> PixelsRef<'_> {
        let size: usize = self.info.shape.iter().product();
        let range = index * size..(index + 1) * size;
        match &self.values {
            StoredPixels::F32(values) => PixelsRef::F32(&values[range]),
            StoredPixels::U8(values) => PixelsRef::U8(&values[range]),
        }
    }
}

/// Checks that there are images, and labels that agree with what `info` says.
pub(crate) fn check(info: &SourceInfo, labels: &[Label]) -> Result<()> {
    let path: &Path = &info.path;
    let [channels, height, width] = info.shape;
    if info.num_samples == 0 || height == 0 || width == 0 {
        return Err(Error::field(
            path,
            "images",
            format!("there are no images: the shape is {:?}", info.shape),
        ));
    }
    if channels != 1 && channels != 3 {
        return Err(Error::field(path, "images", format!("expected 1 or 3 channels, found {channels}")));
    }
    if labels.len() != info.num_samples {
        let reason = format!("{} for {}", counted(labels.len(), "label"), counted(info.num_samples, "image"));
        return Err(Error::field(path, "labels", reason));
    }
    for (index, label) in labels.iter().enumerate() {
        let valid = match label {
            Label::Hard(class) => *class < info.num_classes,
            Label::Logits(scores) | Label::Probabilities(scores) => {
                scores.len() == info.num_classes && scores.iter().all(|score| score.is_finite())
            }
        };
        if !valid {
            let reason = match label {
                Label::Hard(class) => {
                    format!(
                        "label {class} is out of range: the set has {}",
                        counted(info.num_classes, "class")
                    )
                }
                Label::Logits(scores) | Label::Probabilities(scores) => {
                    match scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
                        Some((class, score)) => {
                            format!("its score of class {class} is {score}: scores must be finite")
                        }
                        None => {
                            format!("expected {}, found {}", counted(info.num_classes, "score"), scores.len())
                        }
                    }
                }
            };
            return Err(Error::sample(path, index, reason));
        }
    }
    Ok(())
}

/// Writes the values of sample `index`, stored in `space`, as a network is trained on them.
///
/// # Errors
/// If `out` has room for another number of values, or they are not finite.
pub(crate) fn write(
    info: &SourceInfo,
    space: &ValueSpace,
    index: usize,
    pixels: PixelsRef<'_>,
    out: &mut [f32],
) -> Result<()> {
    let [channels, height, width] = info.shape;
    if out.len() != channels * height * width {
        let reason =
            format!("it has the shape {:?}, and room for {} values was given", info.shape, out.len());
        return Err(Error::sample(&info.path, index, reason));
    }
    if let PixelsRef::F32(values) = pixels {
        check_finite(info, index, values)?;
    }
    pixels.write_normalized(height * width, space, &info.normalize, out);
    Ok(())
}

/// Checks that the values of sample `index`, where they are floats, are finite.
pub(crate) fn check_pixels(info: &SourceInfo, index: usize, pixels: &StoredPixels) -> Result<()> {
    match pixels {
        StoredPixels::F32(pixels) => check_finite(info, index, pixels),
        StoredPixels::U8(_) => Ok(()),
    }
}

/// Checks that the values of sample `index` are finite.
pub(crate) fn check_finite(info: &SourceInfo, index: usize, pixels: &[f32]) -> Result<()> {
    // Where the culprit lies matters only if there is one.
    let Some(at) = (!are_finite(pixels)).then(|| pixels.iter().position(|v| !v.is_finite())).flatten() else {
        return Ok(());
    };
    let (area, columns) = (info.shape[1] * info.shape[2], info.shape[2]);
    let (channel, row, column) = (at / area, at % area / columns, at % columns);
    let reason = format!(
        "pixel value {} at channel {channel}, row {row}, column {column}: values must be finite",
        pixels[at]
    );
    Err(Error::sample(&info.path, index, reason))
}

impl Source for MemorySource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.labels.get(index).cloned().ok_or_else(|| self.info.no_sample(index))
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let label = self.label(index)?;
        let pixels = self.pixels(index).to_owned();
        check_pixels(&self.info, index, &pixels)?;
        Ok(Sample { pixels, shape: self.info.shape, label })
    }

    fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<()> {
        // So that there is such a sample.
        self.label(index)?;
        write(&self.info, &self.info.value_space, index, self.pixels(index), out)
    }
}

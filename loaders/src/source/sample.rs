//! One sample of a dataset, and what its stored values and label mean.

use crate::labels::write_softmax;
use crate::{Digest, Error, Normalize, Result};
use serde::Serialize;

/// The values of one image as its method stored them, planar `[C, H, W]`.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredPixels {
    /// Floats, in the [`ValueSpace`] of the source.
    F32(Vec<f32>),
    /// Bytes, 0 to 255.
    U8(Vec<u8>),
}

impl StoredPixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same, borrowed.
    pub(crate) fn borrow(&self) -> PixelsRef<'_> {
        match self {
            Self::F32(values) => PixelsRef::F32(values),
            Self::U8(values) => PixelsRef::U8(values),
        }
    }
}

/// [`StoredPixels`] that are somewhere else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PixelsRef<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

impl PixelsRef<'_> {
    pub(crate) fn to_owned(self) -> StoredPixels {
        match self {
            Self::F32(values) => StoredPixels::F32(values.to_vec()),
            Self::U8(values) => StoredPixels::U8(values.to_vec()),
        }
    }

    /// Writes them as the network is trained on them ([`Sample::into_normalized`]), to as many values; `area` is that of
    /// a plane.
    pub(crate) fn write_normalized(
        self,
        area: usize,
        space: &ValueSpace,
        normalize: &Normalize,
        out: &mut [f32],
    ) {
        let apply = |channel, unit| normalize.apply(channel, unit);
        match (self, space) {
            (Self::F32(values), ValueSpace::Normalized(own)) if own == normalize => {
                out.copy_from_slice(values)
            }
            (Self::F32(values), ValueSpace::Whitened) => out.copy_from_slice(values),
            (pixels, _) => pixels.map_units(area, space, out, apply),
        }
    }

    /// Writes `f` of each value's channel and its pixel value.
    fn map_units(self, area: usize, space: &ValueSpace, out: &mut [f32], f: impl Fn(usize, f32) -> f32) {
        match (self, space) {
            // Bytes are pixels in every space.
            (Self::U8(values), _) => {
                by_plane(values, area, out, |channel, v| f(channel, f32::from(v) / 255.0));
            }
            (Self::F32(values), ValueSpace::Normalized(own)) => {
                by_plane(values, area, out, |channel, v| f(channel, own.invert(channel, v)));
            }
            (Self::F32(values), ValueSpace::Unit | ValueSpace::Whitened | ValueSpace::Mixed) => {
                by_plane(values, area, out, f);
            }
        }
    }
}

/// Writes `f` of each value and its channel, for planes of `area` values: without a division for every value.
fn by_plane<T: Copy>(values: &[T], area: usize, out: &mut [f32], f: impl Fn(usize, T) -> f32) {
    let area = area.max(1);
    for (channel, (plane, out)) in values.chunks(area).zip(out.chunks_mut(area)).enumerate() {
        for (value, out) in plane.iter().zip(out) {
            *out = f(channel, *value);
        }
    }
}

/// The label of one sample.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Label {
    /// A class index.
    Hard(usize),
    /// One logit for each class, as EDF and DATM learn them (not softmaxed).
    Logits(Vec<f32>),
    /// One probability for each class; they sum to 1 and become a target as they are, whatever the temperature.
    Probabilities(Vec<f32>),
}

impl Label {
    /// The class: the label itself, or the position of its largest score (the first of equals).
    pub fn class(&self) -> usize {
        let scores = match self {
            Self::Hard(class) => return *class,
            Self::Logits(scores) | Self::Probabilities(scores) => scores,
        };
        let mut best = 0;
        for (class, score) in scores.iter().enumerate() {
            if *score > scores[best] {
                best = class;
            }
        }
        best
    }

    /// The scores of a soft label, one for each class.
    pub fn scores(&self) -> Option<&[f32]> {
        match self {
            Self::Hard(_) => None,
            Self::Logits(scores) | Self::Probabilities(scores) => Some(scores),
        }
    }

    /// The distribution over `classes` that a network is trained on: one-hot for a class, probabilities as they are, the
    /// softmax of `logits / temperature` otherwise.
    pub fn target(&self, classes: usize, temperature: f32) -> Vec<f32> {
        let mut target = vec![0.0; classes];
        self.write_target(&mut target, temperature);
        target
    }

    /// Writes [`target`](Self::target) to zeros.
    pub(crate) fn write_target(&self, target: &mut [f32], temperature: f32) {
        match self {
            Self::Hard(class) => target[*class] = 1.0,
            Self::Probabilities(shares) => target.copy_from_slice(shares),
            Self::Logits(logits) => write_softmax(logits, temperature, target),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> LabelKind {
        match self {
            Self::Hard(_) => LabelKind::Hard,
            Self::Logits(_) => LabelKind::Logits,
            Self::Probabilities(_) => LabelKind::Probabilities,
        }
    }
}

/// One sample as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The image's values, `[C, H, W]` with `C` 1 or 3.
    pub pixels: StoredPixels,
    /// `[C, H, W]`.
    pub shape: [usize; 3],
    /// Its label.
    pub label: Label,
}

impl Sample {
    /// Hash of the stored values: dtype, shape and little-endian data. Two samples with equal hashes are equal
    /// wherever they lie.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let dtype = match &self.pixels {
            StoredPixels::F32(_) => "f32",
            StoredPixels::U8(_) => "u8",
        };
        let [channels, height, width] = self.shape;
        hasher.update(format!("{dtype} {channels} {height} {width}\n").as_bytes());
        match &self.pixels {
            StoredPixels::F32(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
            StoredPixels::U8(values) => {
                hasher.update(values);
            }
        }
        hasher.finalize().into()
    }

    /// The values as the network is trained on them, planar `[C, H, W]`: normalised and whitened floats as they are
    /// stored (out of the pixel range where the method left it), everything else normalised with `normalize`. `space` is
    /// that of this sample ([`Source::value_space`](super::Source::value_space)), so never [`ValueSpace::Mixed`].
    pub fn into_normalized(self, space: &ValueSpace, normalize: &Normalize) -> Vec<f32> {
        match (self.pixels, space) {
            (StoredPixels::F32(values), ValueSpace::Normalized(own)) if own == normalize => values,
            (StoredPixels::F32(values), ValueSpace::Whitened) => values,
            (pixels, _) => {
                let [_, height, width] = self.shape;
                let mut out = vec![0.0; pixels.len()];
                pixels.borrow().write_normalized(height * width, space, normalize, &mut out);
                out
            }
        }
    }

    /// The values as an image for a refiner, `[3, H, W]`: un-normalised, clamped to [0, 1], a single channel
    /// repeated three times.
    ///
    /// # Errors
    /// If the values are whitened, or `space` is [`ValueSpace::Mixed`], which is that of a whole set and not of a sample.
    pub fn to_pixels(&self, space: &ValueSpace) -> Result<Vec<f32>> {
        space.check_pixels()?;
        if *space == ValueSpace::Mixed {
            let reason = "the set's samples are stored in different spaces: pass that of the sample, `value_space(index)`";
            return Err(Error::config("values", reason));
        }
        let [channels, height, width] = self.shape;
        let mut planar = vec![0.0; self.pixels.len()];
        self.pixels.borrow().map_units(height * width, space, &mut planar, |_, unit| unit.clamp(0.0, 1.0));
        Ok(if channels == 1 { planar.repeat(3) } else { planar })
    }
}

/// The space of a source's stored values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValueSpace {
    /// `(pixel - mean) / std`, unbounded: DC, DSA, DM, MTT and their kin.
    Normalized(Normalize),
    /// Pixels, nominally in [0, 1] (floats) or 0 to 255 (bytes).
    Unit,
    /// Whitened by a ZCA transform that is not at hand: to train on as they are, together with test images whitened in
    /// the same way. They cannot be turned back into pixels, so they cannot be refined.
    Whitened,
    /// Not one space, in a set that is made of several ([`Concat`](super::Concat)):
    /// [`Source::value_space`](super::Source::value_space) has that of each sample, which is never whitened.
    Mixed,
}

impl ValueSpace {
    /// # Errors
    /// If there is no way from these values to pixels.
    pub(crate) fn check_pixels(&self) -> Result<()> {
        if *self == Self::Whitened {
            let reason = "the values are ZCA-whitened and the transform is not stored with them, so there are no pixels \
                          to refine. Open the run's images_zca_<iteration>.pt, which holds pixels; pass the transform \
                          as `zca`; or pass `values` if the values are not whitened";
            return Err(Error::config("values", reason));
        }
        Ok(())
    }
}

/// The kind of a source's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LabelKind {
    /// Class indices.
    Hard,
    /// Logits, softmaxed with a temperature when they are streamed.
    Logits,
    /// Probabilities, streamed as they are.
    Probabilities,
}

//! Distilled datasets on disk, as samples.
//!
//! A [`Source`] keeps what the distillation method stored: normalised values beyond the pixel range included,
//! for they are what raw training uses. What a refiner gets is derived from them ([`Sample::to_pixels`]):
//! un-normalised and clamped to [0, 1].

mod adapters;
mod arrow_ipc;
mod class_list;
pub mod conformance;
pub(crate) mod containers;
mod dc;
mod folder;
mod folder_names;
mod idc;
mod inner;
mod lone;
mod mtt;
mod nearest;
mod normalization;
mod open;
mod parquet;
mod plain;
mod shards;
mod sidecar;
mod table;
mod tensors;
mod webdataset;

pub use adapters::MemorySource;
pub(crate) use class_list::ClassList;
pub use containers::torch::StateDict;
pub use open::{OpenOptions, Values, open};
pub(crate) use sidecar::{NAME as SIDECAR, Sidecar};

use crate::{ClassMap, Digest, Error, Normalize, Result};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

/// The label of one sample.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Label {
    /// A class index.
    Hard(usize),
    /// One logit for each class, as EDF and DATM learn them (not softmaxed).
    Logits(Vec<f32>),
}

impl Label {
    /// The class: the label itself, or the position of its largest logit (the first of equals).
    pub fn class(&self) -> usize {
        match self {
            Self::Hard(class) => *class,
            Self::Logits(logits) => {
                let mut best = 0;
                for (class, logit) in logits.iter().enumerate() {
                    if *logit > logits[best] {
                        best = class;
                    }
                }
                best
            }
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
    /// stored (out of the pixel range where the method left it), everything else normalised with `normalize`.
    pub fn into_normalized(self, space: &ValueSpace, normalize: &Normalize) -> Vec<f32> {
        match (self.pixels, space) {
            (StoredPixels::F32(values), ValueSpace::Normalized(own)) if own == normalize => values,
            (StoredPixels::F32(values), ValueSpace::Whitened) => values,
            (pixels, _) => {
                Self { pixels, ..self }.map_units(space, |channel, unit| normalize.apply(channel, unit))
            }
        }
    }

    /// The values as an image for a refiner, `[3, H, W]`: un-normalised, clamped to [0, 1], a single channel
    /// repeated three times.
    ///
    /// # Errors
    /// If the values are whitened.
    pub fn to_pixels(&self, space: &ValueSpace) -> Result<Vec<f32>> {
        space.check_pixels()?;
        let planar = self.map_units(space, |_, unit| unit.clamp(0.0, 1.0));
        Ok(if self.shape[0] == 1 { planar.repeat(3) } else { planar })
    }

    fn map_units(&self, space: &ValueSpace, f: impl Fn(usize, f32) -> f32) -> Vec<f32> {
        let area = (self.shape[1] * self.shape[2]).max(1);
        match (&self.pixels, space) {
            (StoredPixels::U8(values), _) => {
                by_plane(values, area, |channel, v| f(channel, f32::from(v) / 255.0))
            }
            (StoredPixels::F32(values), ValueSpace::Normalized(own)) => {
                by_plane(values, area, |channel, v| f(channel, own.invert(channel, v)))
            }
            (StoredPixels::F32(values), ValueSpace::Unit | ValueSpace::Whitened) => by_plane(values, area, f),
        }
    }
}

/// `f` of each value and its channel, for planes of `area` values: without a division for every value.
fn by_plane<T: Copy>(values: &[T], area: usize, f: impl Fn(usize, T) -> f32) -> Vec<f32> {
    let mut mapped = Vec::with_capacity(values.len());
    for (channel, plane) in values.chunks(area).enumerate() {
        mapped.extend(plane.iter().map(|value| f(channel, *value)));
    }
    mapped
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
    /// Whitened by a ZCA transform that is not at hand: to train on as they are, together with equally whitened test
    /// images. There is no way back to pixels, and so none to refine them.
    Whitened,
}

impl ValueSpace {
    /// # Errors
    /// If there is no way from these values to pixels.
    pub(crate) fn check_pixels(&self) -> Result<()> {
        if *self == Self::Whitened {
            let reason = "the values are ZCA-whitened, and the transform is not stored with them, so that there are no \
                          pixels to refine: open the run's images_zca_<iteration>.pt, which has pixels; give the \
                          transform as `zca`; or say what the values are if they are not whitened";
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
}

/// What a source says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceInfo {
    /// The format family, as in `dc`, `mtt` or `image-folder`.
    pub format: String,
    /// The method that distilled it, as far as files tell, and by what.
    pub method: Option<String>,
    /// The file or folder. As JSON, what is not text in its name is replaced.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Number of samples.
    pub samples: usize,
    /// Number of classes.
    pub classes: usize,
    /// The name of each class, where the source has them.
    pub class_names: Option<Vec<String>>,
    /// The refiner's class for each class, where the files or the caller say; as JSON a list, or null for the same.
    pub class_map: ClassMap,
    /// `[C, H, W]` of every sample.
    pub shape: [usize; 3],
    /// The kind of its labels.
    pub labels: LabelKind,
    /// The space of its stored values.
    pub value_space: ValueSpace,
    /// Constants to normalise with where values are not stored normalised; the stored ones otherwise.
    pub normalize: Normalize,
    /// The learning rate that was learned with the images, to train on them with.
    pub learning_rate: Option<f32>,
    /// What the bytes do not say and was assumed, one sentence each.
    pub notes: Vec<String>,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl SourceInfo {
    /// The name of each class; its number where the source has no names.
    pub(crate) fn names(&self) -> Vec<String> {
        let numbers = || (0..self.classes).map(|class| class.to_string()).collect();
        self.class_names.clone().unwrap_or_else(numbers)
    }

    /// The error for a sample that is not there.
    fn no_sample(&self, index: usize) -> Error {
        Error::sample(&self.path, index, format!("there is no such sample among {}", self.samples))
    }
}

/// A dataset of samples that can be read in any order, from several threads at once.
pub trait Source: Send + Sync + fmt::Debug {
    /// What the source is.
    fn info(&self) -> &SourceInfo;

    /// The label of sample `index`, without reading its pixels; its class is below `info().classes`.
    ///
    /// # Errors
    /// If there is no such sample.
    fn label(&self, index: usize) -> Result<Label>;

    /// Reads sample `index`, `index < info().samples`; its shape is `info().shape`, its values are finite and
    /// its class is below `info().classes`.
    ///
    /// # Errors
    /// If the sample cannot be read, with the file and the sample in the message.
    fn sample(&self, index: usize) -> Result<Sample>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn info(&self) -> &SourceInfo {
        (**self).info()
    }

    fn label(&self, index: usize) -> Result<Label> {
        (**self).label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        (**self).sample(index)
    }
}

impl<S: Source + ?Sized> Source for Arc<S> {
    fn info(&self) -> &SourceInfo {
        (**self).info()
    }

    fn label(&self, index: usize) -> Result<Label> {
        (**self).label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        (**self).sample(index)
    }
}

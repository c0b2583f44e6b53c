//! What a caller says of a loader.

use super::Loader;
use super::dtype::Dtype;
use super::layout::MemoryFormat;
use super::pick::Pick;
use super::places::MixMode;
use super::plan::Uneven;
use super::skip::OnError;
use crate::options::{Classes, Size, named_enum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

named_enum! {
    /// What happens to a sample that should come refined and is in no cache yet.
    #[derive(Default)]
    OnMiss, "on_miss" {
        /// Its batch waits until it is refined: equal seeds give equal batches, with a full cache or an empty one.
        #[default]
        Wait = "wait",
        /// It comes raw, and is refined in the background for a later epoch. Which samples come refined then depends
        /// on how fast the refiner is.
        Raw = "raw",
    }
}

/// The options of a [`Loader`](super::Loader) beside its source, refiner, cache, mix, labels, augmentation and rank; each is set by the method
/// of [`LoaderBuilder`](super::LoaderBuilder) of its name, all together by
/// [`options`](super::LoaderBuilder::options).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderOptions {
    /// The refiner's class for each label of the set [default: what the source says]
    pub(super) classes: Option<Classes>,

    /// How raw and refined samples make an epoch: each sample comes as one of the two, as both, or as a blend; the mix says
    /// how much is refined
    pub(super) mode: MixMode,

    /// Number of refinements of each sample, each with its own noise
    #[schemars(range(min = 1, max = Loader::MOST_VARIANTS))]
    pub(super) variants: u32,

    /// Which of a sample's refinements comes: one in an epoch and another in the next, all, the one whose class is most
    /// probable to the teacher, or the one nearest to the raw image
    pub(super) pick: Pick,

    /// What happens to a sample that is not refined yet: its batch waits for it, or it comes raw
    pub(super) on_miss: OnMiss,

    /// What happens to a sample that cannot be read or refined: its batch is an error, or another sample takes its place
    pub(super) on_error: OnError,

    /// Number of samples that may be skipped before their errors are raised after all
    pub(super) max_skipped: usize,

    /// Number of samples in a batch
    #[schemars(range(min = 1))]
    pub(crate) batch_size: usize,

    /// Whether every epoch has its own order
    pub(super) shuffle: bool,

    /// Whether a last, smaller batch is left out
    pub(super) drop_last: bool,

    /// Seed of order and mix; it does not touch refined images
    pub(super) seed: u64,

    /// What happens where the samples do not divide evenly among the ranks
    pub(super) uneven: Uneven,

    /// Size of images in batches, a side or height and width; raw and refined images are resized alike, antialiased
    /// [default: that of the set]
    pub(super) image_size: Option<Size>,

    /// What the values of images are written as: normalised float32, float16 or bfloat16, or pixels from 0 to 255 as uint8,
    /// which are not normalised
    pub(super) dtype: Dtype,

    /// In which order images lie in memory, channel after channel or with the channels of a pixel beside each other
    pub(super) memory_format: MemoryFormat,

    /// Number of bytes of decoded refined images that may stay in memory; while the cache cannot be written, images that
    /// wait for it may take as much again
    pub(super) memory_limit: usize,

    /// Number of threads that assemble batches; the order of samples does not depend on it
    #[schemars(range(min = 1, max = 1024))]
    pub(super) threads: usize,

    /// Number of batches made ahead
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) prefetch: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            classes: None,
            mode: MixMode::default(),
            variants: 1,
            pick: Pick::default(),
            on_miss: OnMiss::default(),
            on_error: OnError::default(),
            max_skipped: 10,
            batch_size: 64,
            shuffle: false,
            drop_last: false,
            seed: 0,
            uneven: Uneven::default(),
            image_size: None,
            dtype: Dtype::default(),
            memory_format: MemoryFormat::default(),
            memory_limit: 1 << 30,
            threads: 2,
            prefetch: 4,
        }
    }
}

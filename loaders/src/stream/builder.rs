//! How a loader is described.

use super::Mix;
use super::dtype::Dtype;
use super::layout::MemoryFormat;
use super::options::{LoaderOptions, OnMiss};
use super::pick::Pick;
use super::places::MixMode;
use super::plan::Uneven;
use super::ranks::Ranks;
use super::sink::Sink;
use super::skip::OnError;
use super::stages::Per;
use crate::augment::Augment;
use crate::cache::LogitForm;
use crate::options::{Classes, Size};
use crate::{Cache, Refine, Source, Targets, Teach};
use std::sync::Arc;

/// Describes a [`Loader`](super::Loader).
///
/// ```
/// use diver_loaders::{Identity, Loader, MemorySource, Mix, OnMiss};
///
/// let set = MemorySource::unit(4, [3, 2, 2], vec![0.5; 48], vec![0, 1, 2, 3])?;
/// let loader = Loader::builder(set)
///     .refiner(Identity)
///     .mix(Mix::linear(0.0, 1.0, 10)?)
///     .on_miss(OnMiss::Raw)
///     .batch_size(2)
///     .shuffle(true)
///     .build()?;
/// assert_eq!(loader.len(), 2);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct LoaderBuilder {
    pub(super) source: Arc<dyn Source>,
    pub(super) refiner: Option<Box<dyn Refine>>,
    pub(super) cache: Option<Cache>,
    pub(super) mix: Option<Mix>,
    pub(super) targets: Targets,
    pub(super) teacher: Option<(Box<dyn Teach>, Per)>,
    pub(super) logit_form: LogitForm,
    pub(super) augment: Augment,
    pub(super) ranks: Ranks,
    pub(super) sink: Option<Box<dyn Sink>>,
    pub(super) is_resident: bool,
    pub(super) options: LoaderOptions,
}

impl LoaderBuilder {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        Self {
            source: source.into(),
            refiner: None,
            cache: None,
            mix: None,
            targets: Targets::default(),
            teacher: None,
            logit_form: LogitForm::default(),
            augment: Augment::default(),
            ranks: Ranks::default(),
            sink: None,
            is_resident: false,
            options: LoaderOptions::default(),
        }
    }

    /// All options at once, as they were read from JSON; those that were set before are lost.
    ///
    /// ```
    /// use diver_loaders::{Loader, MemorySource, options};
    ///
    /// let set = MemorySource::unit(4, [1, 1, 1], vec![0.5; 4], vec![0; 4])?;
    /// let options = options::from_json(r#"{"batch_size": 2, "uneven": "drop"}"#)?;
    /// assert_eq!(Loader::builder(set).options(options).build()?.len(), 2);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn options(mut self, options: LoaderOptions) -> Self {
        self.options = options;
        self
    }

    /// What refines samples. Without one, samples come raw.
    pub fn refiner(mut self, refiner: impl Refine + 'static) -> Self {
        self.refiner = Some(Box::new(refiner));
        self
    }

    /// Where refined images are kept across runs. Without a cache they are kept in memory, which must then be large
    /// enough for all of them ([`memory_limit`](Self::memory_limit)), and are lost with the loader.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// From the dataset's labels to the refiner's classes; by default what the source says
    /// ([`SourceInfo::class_map`](crate::SourceInfo::class_map)). A list must agree with that on every label, where the
    /// source says; [`ClassMap::identity`](crate::ClassMap::identity) sets it aside.
    pub fn classes(mut self, classes: impl Into<Classes>) -> Self {
        self.options.classes = Some(classes.into());
        self
    }

    /// The share of refined samples in each epoch; all with a refiner and none without by default.
    pub fn mix(mut self, mix: Mix) -> Self {
        self.mix = Some(mix);
        self
    }

    /// How raw and refined samples make an epoch; each sample comes as one of the two by default ([`MixMode::Replace`]).
    pub fn mode(mut self, mode: MixMode) -> Self {
        self.options.mode = mode;
        self
    }

    /// Refinements of each sample, 1 to 1024, each with its own noise: one comes in an epoch, another in the next, until
    /// all have come; 1 by default.
    pub fn variants(mut self, variants: u32) -> Self {
        self.options.variants = variants;
        self
    }

    /// What happens to a sample that is not refined yet; its batch waits by default.
    pub fn on_miss(mut self, on_miss: OnMiss) -> Self {
        self.options.on_miss = on_miss;
        self
    }

    /// Samples of a batch, at least 1; 64 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.options.batch_size = batch_size;
        self
    }

    /// Whether every epoch has its own order; off by default.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.options.shuffle = shuffle;
        self
    }

    /// Whether a last, smaller batch is left out; off by default.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.options.drop_last = drop_last;
        self
    }

    /// The seed of order and mix; 0 by default. It does not touch refined images.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Streams the share of rank `rank` of `world`; `rank < world`. The default is 0 of 1: every sample.
    pub fn shard(self, rank: usize, world: usize) -> Self {
        self.ranks(Ranks::unchecked(rank, world))
    }

    /// Streams the share of this process: [`Ranks::from_env`] reads which one it is from what torchrun, mpirun and srun
    /// set. Ranks that were found so are logged once, as a warning, where there are several.
    pub fn ranks(mut self, ranks: Ranks) -> Self {
        self.ranks = ranks;
        self
    }

    /// Which of a sample's refinements comes ([`Pick::Turn`] by default), where there are several.
    pub fn pick(mut self, pick: Pick) -> Self {
        self.options.pick = pick;
        self
    }

    /// What happens to a sample that cannot be read or refined; its batch is an error by default ([`OnError::Raise`]).
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.options.on_error = on_error;
        self
    }

    /// How many samples may be skipped ([`OnError::Skip`]) before their errors are raised after all; 10 by default.
    pub fn max_skipped(mut self, samples: usize) -> Self {
        self.options.max_skipped = samples;
        self
    }

    /// What happens where samples do not divide among ranks; some come twice by default ([`Uneven::Pad`]).
    pub fn uneven(mut self, uneven: Uneven) -> Self {
        self.options.uneven = uneven;
        self
    }

    /// Size of images in batches, a side of 16,384 at most; the dataset's own by default. Raw and refined are resized
    /// alike, antialiased.
    pub fn image_size(mut self, height: usize, width: usize) -> Self {
        self.options.image_size = Some(Size { height, width });
        self
    }

    /// What the values of images are written as; normalised float32 by default. [`Dtype::Uint8`] is not normalised.
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.options.dtype = dtype;
        self
    }

    /// In which order images lie in memory; channel after channel by default.
    pub fn memory_format(mut self, memory_format: MemoryFormat) -> Self {
        self.options.memory_format = memory_format;
        self
    }

    /// Where images are written: what `sink` gives, by default a pool of the loader's own, whose buffers are used again when
    /// their batch is dropped.
    pub fn sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Whether the program may keep images itself, on a device say, to which they are copied once: [`Loader::hold`](super::Loader::hold). Such a
    /// loader can neither augment nor blend nor ask a teacher, which take the images of every batch.
    pub fn resident(mut self, is_resident: bool) -> Self {
        self.is_resident = is_resident;
        self
    }

    /// What targets are made of; the stored labels by default, logits softmaxed at temperature 1.
    pub fn labels(mut self, targets: Targets) -> Self {
        self.targets = targets;
        self
    }

    /// Who labels images, or the views of them, for [`Targets::teacher`] and [`Targets::average`]. The logits are kept in
    /// the cache, if there is one and the teacher has a fingerprint; up to a quarter of the
    /// [`memory_limit`](Self::memory_limit) may stay in memory beside the images.
    ///
    /// ```
    /// use diver_loaders::teach::{self, TeachBatch};
    /// use diver_loaders::{Loader, MemorySource, Per, Targets};
    ///
    /// let set = MemorySource::unit(2, [1, 1, 1], vec![0.0, 1.0], vec![0, 1])?;
    /// let bright = |images: &TeachBatch<'_>| Ok(images.images().flat_map(|image| [0.0, image[0]]).collect());
    /// let mut loader = Loader::builder(set)
    ///     .labels(Targets::teacher(4.0)?)
    ///     .teacher(teach::from_fn(bright), Per::Image)
    ///     .build()?;
    /// let batch = loader.iter().next().unwrap()?;
    /// assert!(batch.targets()[1] < 0.5 && batch.targets()[3] > 0.5);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn teacher(mut self, teacher: impl Teach + 'static, per: Per) -> Self {
        self.teacher = Some((Box::new(teacher), per));
        self
    }

    /// How the teacher's logits are stored; all of them in float32 by default.
    pub fn logit_form(mut self, form: LogitForm) -> Self {
        self.logit_form = form;
        self
    }

    /// Random views of the images, seeded by [`seed`](Self::seed); none by default.
    pub fn augment(mut self, augment: Augment) -> Self {
        self.augment = augment;
        self
    }

    /// Bytes of decoded refined images that may stay in memory; 1 GiB by default. While the cache cannot be written, what
    /// waits for it may take as much again.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.options.memory_limit = bytes;
        self
    }

    /// Threads that assemble batches, 1 to 1024; 2 by default. The order of samples does not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// Batches made ahead, 1 to 65,536; 4 by default.
    pub fn prefetch(mut self, batches: usize) -> Self {
        self.options.prefetch = batches;
        self
    }
}

impl std::fmt::Debug for LoaderBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoaderBuilder")
            .field("source", self.source.info())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::assert_every_one_is_set;
    use crate::{ClassMap, Loader, MemorySource, Uneven};

    #[test]
    fn every_option_has_a_setter() {
        let set = MemorySource::unit(1, [1, 1, 1], vec![0.5], vec![0]).unwrap();
        let builder = Loader::builder(set)
            .classes(ClassMap::identity())
            .mode(MixMode::Both)
            .variants(2)
            .pick(Pick::All)
            .on_miss(OnMiss::Raw)
            .on_error(OnError::Skip)
            .max_skipped(3)
            .batch_size(2)
            .shuffle(true)
            .drop_last(true)
            .seed(1)
            .uneven(Uneven::Drop)
            .image_size(2, 3)
            .dtype(Dtype::Uint8)
            .memory_format(MemoryFormat::ChannelsLast)
            .memory_limit(1)
            .threads(3)
            .prefetch(5);
        assert_every_one_is_set(&builder.options);
        let json = serde_json::to_string(&builder.options).unwrap();
        assert_eq!(crate::options::from_json::<LoaderOptions>(&json).unwrap(), builder.options);
    }
}

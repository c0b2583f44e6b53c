//! How a loader is described.

use super::dataset::Dataset;
use super::pipeline::{Background, Pipeline, Shared};
use super::plan::{Plan, Uneven};
use super::pool::Pool;
use super::refinery::Refinery;
use super::stats::Counters;
use super::store::Store;
use super::{Loader, Mix};
use crate::wording::counted;
use crate::{Cache, CancelToken, ClassMap, Error, Refine, Result, Source, SourceInfo};
use std::sync::Arc;

/// What happens to a sample that should come refined and is in no cache yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMiss {
    /// Its batch waits until it is refined: equal seeds give equal batches, with a full cache or an empty one.
    #[default]
    Wait,
    /// It comes raw, and is refined in the background for a later epoch. Which samples come refined then depends
    /// on how fast the refiner is.
    Raw,
}

/// The most threads that assemble batches.
const MAX_THREADS: usize = 1024;

/// The most batches made ahead.
const MAX_PREFETCH: usize = 1 << 16;

/// The longest side of images in batches.
const MAX_SIDE: usize = 1 << 14;

/// Describes a [`Loader`].
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
    source: Box<dyn Source>,
    refiner: Option<Box<dyn Refine>>,
    cache: Option<Cache>,
    classes: Option<ClassMap>,
    mix: Option<Mix>,
    on_miss: OnMiss,
    batch_size: usize,
    shuffle: bool,
    drop_last: bool,
    seed: u64,
    shard: (usize, usize),
    uneven: Uneven,
    image_size: Option<(usize, usize)>,
    temperature: f32,
    memory_limit: usize,
    threads: usize,
    prefetch: usize,
}

impl LoaderBuilder {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        Self {
            source,
            refiner: None,
            cache: None,
            classes: None,
            mix: None,
            on_miss: OnMiss::default(),
            batch_size: 64,
            shuffle: false,
            drop_last: false,
            seed: 0,
            shard: (0, 1),
            uneven: Uneven::default(),
            image_size: None,
            temperature: 1.0,
            memory_limit: 1 << 30,
            threads: 2,
            prefetch: 4,
        }
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
    /// source says; [`ClassMap::identity`] sets it aside.
    pub fn classes(mut self, classes: ClassMap) -> Self {
        self.classes = Some(classes);
        self
    }

    /// The share of refined samples in each epoch; all with a refiner and none without by default.
    pub fn mix(mut self, mix: Mix) -> Self {
        self.mix = Some(mix);
        self
    }

    /// What happens to a sample that is not refined yet; its batch waits by default.
    pub fn on_miss(mut self, on_miss: OnMiss) -> Self {
        self.on_miss = on_miss;
        self
    }

    /// Samples of a batch, at least 1; 64 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Whether every epoch has its own order; off by default.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Whether a last, smaller batch is left out; off by default.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The seed of order and mix; 0 by default. It does not touch refined images.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Streams the share of rank `rank` of `world`; `rank < world`.
    pub fn shard(mut self, rank: usize, world: usize) -> Self {
        self.shard = (rank, world);
        self
    }

    /// What happens where samples do not divide among ranks; some come twice by default ([`Uneven::Pad`]).
    pub fn uneven(mut self, uneven: Uneven) -> Self {
        self.uneven = uneven;
        self
    }

    /// Size of images in batches, a side of 16,384 at most; the dataset's own by default. Raw and refined are resized
    /// alike, antialiased.
    pub fn image_size(mut self, height: usize, width: usize) -> Self {
        self.image_size = Some((height, width));
        self
    }

    /// What logits are divided by before the softmax that makes them targets; above 0, 1 by default.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Bytes of decoded refined images that may stay in memory; 1 GiB by default. While the cache cannot be written, what
    /// waits for it may take as much again.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Threads that assemble batches, 1 to 1024; 2 by default. The order of samples does not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Batches made ahead, 1 to 65,536; 4 by default.
    pub fn prefetch(mut self, batches: usize) -> Self {
        self.prefetch = batches;
        self
    }

    /// Makes the loader and starts its threads; nothing is read or refined yet.
    ///
    /// # Errors
    /// If an option has a value that it cannot have, a class cannot be refined, or the cache cannot be used.
    pub fn build(self) -> Result<Loader> {
        within("threads", self.threads, MAX_THREADS)?;
        within("prefetch", self.prefetch, MAX_PREFETCH)?;
        if let Some((height, width)) = self.image_size {
            within("image_size", height.max(width), MAX_SIDE)?;
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::config("temperature", format!("{} is not above 0", self.temperature)));
        }
        let mix = match self.mix {
            Some(mix) => mix,
            None => Mix::constant(if self.refiner.is_some() { 1.0 } else { 0.0 })?,
        };
        if self.refiner.is_none() && !mix.is_raw() {
            return Err(Error::config("mix", "asks for refined samples, but the loader has no refiner"));
        }
        let refiner = self.refiner.as_deref();
        let dataset = Arc::new(Dataset::new(self.source, self.classes, self.image_size, refiner)?);
        let plan = Plan {
            samples: dataset.info().samples,
            batch_size: self.batch_size,
            shuffle: self.shuffle,
            drop_last: self.drop_last,
            seed: self.seed,
            rank: self.shard.0,
            world: self.shard.1,
            uneven: self.uneven,
            mix,
        }
        .validated()?;
        // Ranks are alike: one speaks for all.
        let speaks = plan.rank == 0;
        if speaks {
            dataset.say_notes();
        }
        if speaks && plan.left_out() > 0 {
            tracing::warn!(
                "{}: {} of {} left out in every epoch, as they do not divide among {} ranks: `uneven` is drop, and \
                 with pad none would be",
                dataset.info().path.display(),
                plan.left_out(),
                counted(plan.samples, "sample"),
                plan.world,
            );
        }
        let store = Arc::new(Store::new(self.cache.as_ref(), refiner, self.memory_limit, dataset.size())?);
        if refiner.is_some() && store.disk().is_none() {
            let bytes = dataset.info().samples * 3 * dataset.size().0 * dataset.size().1;
            if bytes > self.memory_limit {
                let reason = format!(
                    "{bytes} bytes of refined images do not fit into {}, and would be refined again in every epoch: \
                     raise the limit, or give a cache and a refiner with a fingerprint",
                    self.memory_limit
                );
                return Err(Error::config("memory_limit", reason));
            }
        }
        let counters = Arc::<Counters>::default();
        let normalize = *dataset.normalize();
        let shared = Shared {
            dataset: Arc::clone(&dataset),
            store: Arc::clone(&store),
            counters: Arc::clone(&counters),
            plan: plan.clone(),
            on_miss: self.on_miss,
            temperature: self.temperature,
            // One buffer in the consumer's hands besides those on their way.
            pool: Pool::new(self.prefetch + 1),
            cancel: CancelToken::new(),
            background: Background::default(),
            table: std::array::from_fn(|channel| {
                std::array::from_fn(|byte| normalize.apply(channel, byte as f32 / 255.0))
            }),
        };
        let info = SourceInfo { class_map: dataset.class_map()?, ..dataset.info().clone() };
        let refinery =
            self.refiner.map(|refiner| Refinery::from_parts(dataset, store, refiner, Arc::clone(&counters)));
        let pipeline = Pipeline::start(shared, refinery, self.threads)?;
        Ok(Loader::new(pipeline, plan, info, counters, self.prefetch))
    }
}

fn within(option: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(Error::config(option, format!("{value} is not a number from 1 to {most}")))
    }
}

impl std::fmt::Debug for LoaderBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoaderBuilder")
            .field("source", self.source.info())
            .field("batch_size", &self.batch_size)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

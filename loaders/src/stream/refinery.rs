//! Refining the samples of a dataset that no cache has.

use super::dataset::{Dataset, Identity};
use super::missing::Missing;
use super::stats::Counters;
use super::store::Store;
use crate::cache::{Generation, Row, RowKey};
use crate::refine::{NoiseKey, Progress, RawBatch};
use crate::wording::counted;
use crate::{
    Cache, CancelToken, Conditioning, Error, Label, Refine, Result, RgbImage, Sample, Source, Stats,
};
use serde::Serialize;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// The result for one sample; the error is shared by all samples of its micro-batch.
pub(super) type Refined = Result<Arc<RgbImage>, Arc<Error>>;

/// A dataset, its refiner and its cache: refines in bulk what the cache lacks. The loader does the same as
/// batches need it, into the same cache.
///
/// ```
/// use diver_loaders::{Cache, CancelToken, Identity, MemorySource, Refinery, refine::Silent};
///
/// let folder = tempfile::tempdir()?;
/// let set = MemorySource::unit(2, [3, 4, 4], (0..96).map(|i| i as f32 / 96.0).collect(), vec![0, 1])?;
/// let mut refinery = Refinery::new(set, Identity, Some(&Cache::open(folder.path())?))?;
/// assert_eq!(refinery.run(&CancelToken::new(), &Silent)?.refined, 2);
/// assert_eq!(refinery.run(&CancelToken::new(), &Silent)?.cached, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Refinery {
    dataset: Arc<Dataset>,
    store: Arc<Store>,
    refiner: Box<dyn Refine>,
    counters: Arc<Counters>,
    class_names: Vec<String>,
}

/// What a bulk refinement did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Images that the cache had.
    pub cached: usize,
    /// Images that were refined now. Samples with equal content and class are refined once.
    pub refined: usize,
    /// Seconds that the refiner worked.
    pub refine_seconds: f64,
}

impl Refinery {
    /// A refinery of `source` through `refiner` into `cache`; without a cache, images are kept in memory.
    ///
    /// # Errors
    /// If a class of the source has no conditioning in its class map, or one that the refiner refuses; if the
    /// cache's folder cannot be used.
    pub fn new(
        source: impl Source + 'static,
        refiner: impl Refine + 'static,
        cache: Option<&Cache>,
    ) -> Result<Self> {
        let dataset = Dataset::new(Box::new(source), None, None, Some(&refiner))?;
        dataset.say_notes();
        // Bulk refinement does not serve its images again; those without a disk to go to must stay.
        let on_disk = cache.is_some() && refiner.fingerprint().is_some();
        let memory_limit = if on_disk { 0 } else { usize::MAX };
        let store = Store::new(cache, Some(&refiner), memory_limit, dataset.size())?;
        Ok(Self::from_parts(Arc::new(dataset), Arc::new(store), Box::new(refiner), Arc::default()))
    }

    pub(super) fn from_parts(
        dataset: Arc<Dataset>,
        store: Arc<Store>,
        refiner: Box<dyn Refine>,
        counters: Arc<Counters>,
    ) -> Self {
        let class_names = dataset.info().names();
        Self { dataset, store, refiner, counters, class_names }
    }

    /// The cache of this refiner's images, where there is one on disk.
    pub fn generation(&self) -> Option<&Generation> {
        self.store.disk()
    }

    /// How many images the refiner likes to get at once.
    pub(super) fn preferred_batch(&self) -> usize {
        self.refiner.preferred_batch().max(1)
    }

    /// Whether what is refined is meant to outlive this run.
    pub(super) fn keeps_on_disk(&self) -> bool {
        self.store.disk().is_some()
    }

    /// Has the disk take what it has not taken yet, if it may be asked again.
    pub(super) fn write_pending_if_due(&self) {
        self.store.write_pending_if_due(&self.class_names);
    }

    /// Has the disk take what it has not taken yet, for the last time.
    pub(super) fn write_pending(&self) {
        self.store.write_pending(&self.class_names);
    }

    /// Whether the cache on disk has every sample of which it was `missing`, those included that other processes
    /// refined; see [`Missing::is_none`]. A sample that panics when it is read is not there.
    pub(super) fn has_all(&self, missing: &mut Missing, go_on: impl Fn() -> bool) -> bool {
        if missing.is_empty() {
            return true;
        }
        let look = || {
            // What is not seen of it is only released later.
            let _ = self.store.refresh();
            self.keeps_on_disk() && missing.is_none(&self.dataset, &self.store, go_on)
        };
        catch_unwind(AssertUnwindSafe(look)).unwrap_or(false)
    }

    /// Has the refiner give back what it can have again.
    pub(super) fn release(&mut self) {
        self.refiner.release();
    }

    /// Refines every sample that the cache lacks, in micro-batches that are durable one by one: an interrupted
    /// run goes on where it stopped.
    ///
    /// # Errors
    /// The first sample that cannot be read or refined; a cache that cannot be written; [`Error::Cancelled`]. What
    /// was refined before stays in the cache.
    pub fn run(&mut self, cancel: &CancelToken, progress: &dyn Progress) -> Result<Summary> {
        let before = self.counters.snapshot();
        let samples = self.dataset.info().num_samples;
        let mut missing = Vec::new();
        for index in 0..samples {
            cancel.check()?;
            if !self.store.contains(&self.dataset.identity(index)?.row) {
                missing.push(index);
            }
        }
        if let (false, Some(disk)) = (missing.is_empty(), self.store.disk()) {
            // Not after the first batch, which may take minutes.
            disk.check_writable()?;
        }
        let mut done = samples - missing.len();
        progress.images(done, samples);
        for indices in missing.chunks(self.preferred_batch()) {
            for refined in self.refine_batch(indices, cancel, progress) {
                refined?;
            }
            // Serving goes on without a disk, but bulk refinement is for the disk alone.
            if let Some(error) = self.store.failure() {
                return Err(error.into());
            }
            done += indices.len();
            progress.images(done, samples);
        }
        let after: Stats = self.counters.snapshot();
        let refined = usize::try_from(after.misses - before.misses).unwrap_or(usize::MAX);
        Ok(Summary {
            cached: samples - refined,
            refined,
            refine_seconds: after.refine_seconds - before.refine_seconds,
        })
    }

    /// The refined images of some samples, at the dataset's own size; what is nowhere yet is refined now.
    ///
    /// # Errors
    /// The first sample that cannot be read or refined; [`Error::Cancelled`].
    pub fn images(
        &mut self,
        indices: &[usize],
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<Arc<RgbImage>>> {
        let total = indices.len();
        let mut images = Vec::with_capacity(total);
        for indices in indices.chunks(self.preferred_batch()) {
            for refined in self.refine_batch(indices, cancel, progress) {
                images.push(refined?);
            }
            progress.images(images.len(), total);
        }
        Ok(images)
    }

    /// The refined image of each sample: found, if it has come meanwhile, or refined in one call. A sample that
    /// cannot be read fails alone; a refiner's failure is shared.
    pub(super) fn refine_batch(
        &mut self,
        indices: &[usize],
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Vec<Refined> {
        let mut results: Vec<Option<Refined>> = vec![None; indices.len()];
        if let Err(error) = self.store.refresh() {
            tracing::warn!("{error}; parts of other processes are not seen");
        }
        let mut todo = Todo::default();
        for (slot, index) in indices.iter().enumerate() {
            match self.find_or_read(*index) {
                Ok(Found::Image(image)) => results[slot] = Some(Ok(image)),
                Ok(Found::Raw(sample)) => {
                    if let Err(error) = todo.add(slot, *index, &self.dataset, sample) {
                        results[slot] = Some(Err(Arc::new(error)));
                    }
                }
                Err(error) => results[slot] = Some(Err(Arc::new(error))),
            }
        }
        if !todo.samples.is_empty() {
            let refined = self.refine(&todo, cancel, progress).map_err(Arc::new);
            for (slot, position) in todo.slots {
                results[slot] = Some(match &refined {
                    Ok(images) => Ok(Arc::clone(&images[position])),
                    Err(error) => Err(Arc::clone(error)),
                });
            }
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(Arc::new(Error::Cancelled)))).collect()
    }

    fn find_or_read(&self, index: usize) -> Result<Found> {
        if let Some(image) = self.store.find(&self.dataset.identity(index)?.row, &self.counters)? {
            return Ok(Found::Image(image));
        }
        Ok(Found::Raw(self.dataset.sample(index)?))
    }

    fn refine(
        &mut self,
        todo: &Todo,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<Arc<RgbImage>>> {
        let [_, height, width] = self.dataset.info().shape;
        let batch = RawBatch::new(&todo.pixels, height, width, &todo.conditioning, &todo.keys)?;
        let started = Instant::now();
        let images = self.refiner.refine(&batch, cancel, progress)?;
        let time = started.elapsed();
        if images.len() != batch.len() {
            let reason = format!("{} came back for {}", counted(images.len(), "image"), batch.len());
            return Err(Error::refine(reason));
        }
        self.counters.add_refine_time(time);
        Counters::add(&self.counters.misses, images.len());
        let seconds = time.as_secs_f32() / images.len() as f32;
        let rows: Vec<_> = images
            .into_iter()
            .zip(&todo.samples)
            .map(|(image, Queued { index, label, identity })| Row {
                key: identity.row,
                image: Arc::new(image),
                label: label.clone(),
                index: *index,
                variant: identity.noise.variant,
                seconds,
            })
            .collect();
        self.store.keep(&rows, &self.class_names)
    }
}

impl std::fmt::Debug for Refinery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refinery")
            .field("source", self.dataset.info())
            .field("fingerprint", &self.refiner.fingerprint())
            .finish_non_exhaustive()
    }
}

enum Found {
    Image(Arc<RgbImage>),
    Raw(Sample),
}

/// What is kept of a sample until its image comes back.
struct Queued {
    index: usize,
    label: Label,
    identity: Identity,
}

/// A micro-batch in the making.
#[derive(Default)]
struct Todo {
    samples: Vec<Queued>,
    pixels: Vec<f32>,
    conditioning: Vec<Conditioning>,
    keys: Vec<NoiseKey>,
    /// Which caller's slot waits for which position of the batch.
    slots: Vec<(usize, usize)>,
    positions: HashMap<RowKey, usize>,
}

impl Todo {
    fn add(&mut self, slot: usize, index: usize, dataset: &Dataset, sample: Sample) -> Result<()> {
        let identity = dataset.identify(index, &sample)?;
        if let Some(position) = self.positions.get(&identity.row) {
            self.slots.push((slot, *position));
            return Ok(());
        }
        self.pixels.extend(sample.to_pixels(&dataset.info().value_space)?);
        self.slots.push((slot, self.samples.len()));
        self.positions.insert(identity.row, self.samples.len());
        self.conditioning.push(dataset.conditioning(&sample).clone());
        self.keys.push(identity.noise);
        self.samples.push(Queued { index, label: sample.label, identity });
        Ok(())
    }
}

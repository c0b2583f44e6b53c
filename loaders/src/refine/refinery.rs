//! A dataset, its refiner and its cache: whatever is asked for is found, waited for or refined.

use super::dataset::{Dataset, Identity};
use super::missing::Missing;
use super::{NoiseKey, Progress, RawBatch};
use crate::cache::{Explanation, ImageRow, Lease, Partition, Resident, RowKey};
use crate::said::warn_once;
use crate::stats::Counters;
use crate::wording::counted;
use crate::{Cache, CancelToken, Conditioning, Error, Label, Refine, Result, RgbImage, Sample, Source};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The result for one sample; the error is shared by all samples of its micro-batch.
pub(crate) type Refined = Result<Arc<RgbImage>, Arc<Error>>;

/// Keeps refined rows, and returns their images as batches have them.
pub(super) type Keep<'a> = &'a mut dyn FnMut(Vec<ImageRow>, Option<Lease>) -> Result<Vec<Arc<RgbImage>>>;

/// A dataset, its refiner and its cache: refines in bulk what the cache lacks. The loader does the same as
/// batches need it, into the same cache.
///
/// ```
/// use diver_loaders::{Cache, CancelToken, Identity, MemorySource, Refinery, refine::Silent};
///
/// let folder = tempfile::tempdir()?;
/// let set = MemorySource::unit(2, [3, 4, 4], (0..96).map(|i| i as f32 / 96.0).collect(), vec![0, 1])?;
/// let mut refinery = Refinery::new(set, Identity, Some(&Cache::open(folder.path())?))?;
/// assert_eq!(refinery.run(0..2, &CancelToken::new(), &Silent)?.refined, 2);
/// assert_eq!(refinery.run(0..2, &CancelToken::new(), &Silent)?.cached, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Refinery {
    pub(super) dataset: Arc<Dataset>,
    pub(super) store: Arc<Resident>,
    refiner: Box<dyn Refine>,
    pub(super) counters: Arc<Counters>,
    pub(super) class_names: Vec<String>,
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
        let store = Resident::new(partition(cache, Some(&refiner))?, memory_limit, dataset.size());
        Ok(Self::from_parts(Arc::new(dataset), Arc::new(store), Box::new(refiner), Arc::default()))
    }

    pub(crate) fn from_parts(
        dataset: Arc<Dataset>,
        store: Arc<Resident>,
        refiner: Box<dyn Refine>,
        counters: Arc<Counters>,
    ) -> Self {
        let class_names = dataset.info().names();
        Self { dataset, store, refiner, counters, class_names }
    }

    /// The cache of this refiner's images, where there is one on disk.
    pub fn partition(&self) -> Option<&Partition> {
        self.store.disk()
    }

    /// How many images the refiner likes to get at once.
    pub(crate) fn preferred_batch(&self) -> usize {
        self.refiner.preferred_batch().max(1)
    }

    /// Whether what is refined is meant to outlive this run.
    pub(crate) fn keeps_on_disk(&self) -> bool {
        self.store.disk().is_some()
    }

    /// Has the disk take what it has not taken yet, if it may be asked again.
    pub(crate) fn write_pending_if_due(&self) {
        self.store.write_pending_if_due(&self.class_names);
    }

    /// Has the disk take what it has not taken yet, for the last time.
    pub(crate) fn write_pending(&self) {
        self.store.write_pending(&self.class_names);
    }

    /// Deletes what processes that died left of their claims to samples which the cache has by now.
    pub(crate) fn tidy(&self) {
        if let Some(disk) = self.store.disk().filter(|_| self.store.failure().is_none()) {
            disk.leases().tidy(&|key| disk.contains(key));
        }
    }

    /// Whether the cache on disk has every sample of which it was `missing`, those included that other processes
    /// refined; see [`Missing::is_none`]. A sample that panics when it is read is not there.
    pub(crate) fn has_all(&self, missing: &mut Missing, go_on: impl Fn() -> bool) -> bool {
        if missing.is_empty() {
            return true;
        }
        let look = || {
            // What is not seen of it is only released later.
            self.store.refresh();
            self.keeps_on_disk() && missing.is_none(&self.dataset, &self.store, go_on)
        };
        catch_unwind(AssertUnwindSafe(look)).unwrap_or(false)
    }

    /// Has the refiner give back what it can have again.
    pub(crate) fn release(&mut self) {
        self.refiner.release();
    }

    /// How many samples the dataset has.
    pub fn num_samples(&self) -> usize {
        self.dataset.info().num_samples
    }

    /// What `cache` has of the dataset as the refiner would refine it, and in what the fingerprints differ that it has.
    /// The cache is only read; it need not be the refinery's own.
    ///
    /// # Errors
    /// If the refiner has no fingerprint, a sample or the cache cannot be read; [`Error::Cancelled`].
    pub fn explain(&self, cache: &Cache, cancel: &CancelToken) -> Result<Explanation> {
        let fingerprint = self.refiner.fingerprint().ok_or_else(|| {
            Error::config("refiner", "it has no fingerprint, so no cache keeps its images on disk")
        })?;
        cache.explain(&fingerprint, &self.dataset.keys(cancel)?)
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
            for refined in self.refine_batch(indices, 0, cancel, progress) {
                images.push(refined.ok_or(Error::Cancelled)??);
            }
            progress.images(images.len(), total);
        }
        Ok(images)
    }

    /// The refined image of each sample: found, if it has come meanwhile, refined in one call, or waited for while
    /// another process refines it. The last `ahead` samples are not waited for. A sample that cannot be read fails alone;
    /// a refiner's failure is shared. Without a result are those that were not waited for, and all if it is cancelled.
    pub(crate) fn refine_batch(
        &mut self,
        indices: &[usize],
        ahead: usize,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Vec<Option<Refined>> {
        let mut results: Vec<Option<Refined>> = vec![None; indices.len()];
        let mut pause = Pause::default();
        loop {
            let (store, names) = (Arc::clone(&self.store), self.class_names.clone());
            self.attempt(indices, &mut results, usize::MAX, cancel, progress, &mut |rows, _lease| {
                store.keep(&rows, &names)
            });
            let awaited = &results[..indices.len() - ahead];
            if awaited.iter().all(Option::is_some) || cancel.is_cancelled() {
                return results;
            }
            pause.wait();
        }
    }

    /// Finds the samples that have no result yet, or refines at most so many of them in one call, whose rows `keep` takes:
    /// their lease must live until they are kept. Those that another process is refining are left without one.
    pub(super) fn attempt(
        &mut self,
        indices: &[usize],
        results: &mut [Option<Refined>],
        at_most: usize,
        cancel: &CancelToken,
        progress: &dyn Progress,
        keep: Keep<'_>,
    ) {
        let missing = self.find(indices, results);
        if missing.is_empty() || cancel.is_cancelled() {
            return;
        }
        let lease = self.claim(&missing, at_most);
        let is_mine = |key: &RowKey| lease.as_ref().is_none_or(|lease| lease.holds(key));
        // Whoever held it until now has committed it.
        let missing = if lease.is_some() { self.find(indices, results) } else { missing };
        let mut todo = Todo::default();
        for (slot, _) in missing.iter().filter(|(_, key)| is_mine(key)).take(at_most) {
            let index = indices[*slot];
            let added =
                self.dataset.sample(index).and_then(|sample| todo.add(*slot, index, &self.dataset, sample));
            if let Err(error) = added {
                results[*slot] = Some(Err(Arc::new(error)));
            }
        }
        if !todo.samples.is_empty() {
            let refined =
                self.refine(&todo, cancel, progress).and_then(|rows| keep(rows, lease)).map_err(Arc::new);
            for (slot, position) in todo.slots {
                results[slot] = Some(match &refined {
                    Ok(images) => Ok(Arc::clone(&images[position])),
                    Err(error) => Err(Arc::clone(error)),
                });
            }
        }
    }

    /// Fills in what is in memory or in the cache, and returns the slots, with their keys, that have no result yet.
    fn find(&self, indices: &[usize], results: &mut [Option<Refined>]) -> Vec<(usize, RowKey)> {
        self.store.refresh();
        let mut missing = Vec::new();
        for (slot, index) in
            indices.iter().enumerate().filter(|(slot, _)| results[*slot].is_none()).collect::<Vec<_>>()
        {
            let key = self.dataset.identity(*index).map(|identity| identity.row);
            match key.and_then(|key| Ok((key, self.store.find(&key, &self.counters)?))) {
                Ok((_, Some(image))) => results[slot] = Some(Ok(image)),
                Ok((key, None)) => missing.push((slot, key)),
                Err(error) => results[slot] = Some(Err(Arc::new(error))),
            }
        }
        missing
    }

    /// Claims at most so many samples; `None` where nobody else can be asked: without a disk, or with one that fails.
    fn claim(&self, missing: &[(usize, RowKey)], at_most: usize) -> Option<Lease> {
        let disk = self.store.disk().filter(|_| self.store.failure().is_none())?;
        let keys: Vec<RowKey> = missing.iter().map(|(_, key)| *key).collect();
        disk.leases()
            .claim(&keys, at_most, &|key| disk.contains(key))
            .inspect_err(|error| tracing::debug!("{error}; other processes may refine the same"))
            .ok()
    }

    fn refine(
        &mut self,
        todo: &Todo,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<ImageRow>> {
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
        let form = self.store.disk().map(Partition::image_form).unwrap_or_default();
        Ok(images
            .into_iter()
            .zip(&todo.samples)
            .map(|(image, Queued { index, label, identity })| ImageRow {
                key: identity.row,
                image: Arc::new(image),
                form,
                label: label.clone(),
                index: *index,
                variant: identity.noise.variant,
                seconds,
            })
            .collect())
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

/// The refined images of a refiner in a cache, where both are there and the refiner says what makes its images.
pub(crate) fn partition(cache: Option<&Cache>, refiner: Option<&dyn Refine>) -> Result<Option<Partition>> {
    let (Some(cache), Some(refiner)) = (cache, refiner) else { return Ok(None) };
    if let Some(fingerprint) = refiner.fingerprint() {
        return cache.images(&fingerprint).map(Some);
    }
    let root = cache.root();
    let root = root.display();
    tracing::warn!("{root}: not used, as the refiner has no fingerprint: its images are kept in memory");
    Ok(None)
}

/// How long to wait for other processes: longer each time, and never as long as another process does.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    since: Instant,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: Duration::from_millis(10), since: Instant::now() }
    }
}

impl Pause {
    /// The longest, within which a cancellation is noticed.
    const LONGEST: Duration = Duration::from_millis(100);
    /// From when on somebody may wonder.
    const LONG: Duration = Duration::from_secs(3);

    pub(super) fn wait(&mut self) {
        let random = RandomState::new().hash_one(self.next) % 1000;
        std::thread::sleep(self.next.mul_f64(0.5 + random as f64 / 1000.0));
        self.next = Self::LONGEST.min(2 * self.next);
        if self.since.elapsed() > Self::LONG {
            warn_once(
                "waiting for images that another process is refining; if it has died, they are refined here once its \
                 lease has expired (30 s, unless the cache was opened with another `lease_expiry`)",
            );
        }
    }
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

//! A dataset, its refiner and its cache: whatever is asked for is found, waited for or refined.

use super::Progress;
use super::dataset::{Dataset, Refinement};
use super::micro_batch::{Finder, Refined};
use crate::cache::{Explanation, Partition, Resident};
use crate::said::warn_once;
use crate::{Cache, CancelToken, Error, Refine, Result, RgbImage, Source};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    pub(super) finder: Finder,
    pub(super) refiner: Box<dyn Refine>,
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
        Self::with_variants(source, refiner, cache, NonZero::<u32>::MIN)
    }

    /// As [`new`](Self::new), with so many refinements of each sample, each with its own noise: a loader with as many
    /// [`variants`](crate::LoaderBuilder::variants) finds them.
    ///
    /// ```
    /// use diver_loaders::{Cache, CancelToken, Identity, MemorySource, Refinery, refine::Silent};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let set = MemorySource::unit(1, [3, 1, 1], vec![0.5; 3], vec![0])?;
    /// let cache = Cache::open(folder.path())?;
    /// let mut refinery = Refinery::with_variants(set, Identity, Some(&cache), 3.try_into()?)?;
    /// assert_eq!(refinery.run(0..1, &CancelToken::new(), &Silent)?.refined, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_variants(
        source: impl Source + 'static,
        refiner: impl Refine + 'static,
        cache: Option<&Cache>,
        variants: NonZero<u32>,
    ) -> Result<Self> {
        let dataset =
            Dataset::new(Box::new(source), None, None, Some(&refiner))?.with_variants(variants.get());
        dataset.say_notes();
        // Bulk refinement does not serve its images again; those without a disk to go to must stay.
        let on_disk = cache.is_some() && refiner.fingerprint().is_some();
        let memory_limit = if on_disk { 0 } else { usize::MAX };
        let store = Resident::new(partition(cache, Some(&refiner))?, memory_limit, dataset.size());
        let class_names = dataset.info().names();
        let finder = Finder { dataset: Arc::new(dataset), store: Arc::new(store), counters: Arc::default() };
        Ok(Self { finder, refiner: Box::new(refiner), class_names })
    }

    /// The cache of this refiner's images, where there is one on disk.
    pub fn partition(&self) -> Option<&Partition> {
        self.finder.store.disk()
    }

    /// How many images the refiner likes to get at once.
    pub(super) fn preferred_batch(&self) -> usize {
        self.refiner.preferred_batch().max(1)
    }

    /// How many samples the dataset has.
    pub fn num_samples(&self) -> usize {
        self.finder.dataset.info().num_samples
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
        cache.explain(&fingerprint, &self.finder.dataset.keys(cancel)?)
    }

    /// The refined images of some samples, the first refinement of each, at the dataset's own size; what is nowhere yet is
    /// refined now.
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
            let wanted: Vec<Refinement> =
                indices.iter().map(|index| Refinement { index: *index, variant: 0 }).collect();
            for refined in self.refine_batch(&wanted, cancel, progress)? {
                images.push(Arc::new(refined?.to_rgb()?));
            }
            progress.images(images.len(), total);
        }
        Ok(images)
    }

    /// The image of each refinement: found, refined in one call, or waited for while another process refines it.
    fn refine_batch(
        &mut self,
        wanted: &[Refinement],
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<Refined>> {
        let mut results: Vec<Option<Refined>> = vec![None; wanted.len()];
        let mut pause = Pause::default();
        loop {
            cancel.check()?;
            if let Some(batch) = self.finder.prepare(wanted, &mut results, usize::MAX) {
                let refined = self.finder.refine(&batch, &mut *self.refiner, cancel, progress);
                let kept = refined.and_then(|(rows, _)| self.finder.store.keep(&rows, &self.class_names));
                let kept = kept.map_err(Arc::new);
                for (slot, position) in batch.slots() {
                    let of = |images: &Vec<_>| Arc::clone(&images[*position]);
                    results[*slot] = Some(kept.as_ref().map(of).map_err(Arc::clone));
                }
            }
            if results.iter().all(Option::is_some) {
                return Ok(results.into_iter().flatten().collect());
            }
            pause.wait();
        }
    }
}

impl std::fmt::Debug for Refinery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refinery")
            .field("source", self.finder.dataset.info())
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
pub(crate) struct Pause {
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
        std::thread::sleep(self.next());
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let random = RandomState::new().hash_one(self.next) % 1000;
        let now = self.next.mul_f64(0.5 + random as f64 / 1000.0);
        self.next = Self::LONGEST.min(2 * self.next);
        if self.since.elapsed() > Self::LONG {
            warn_once(
                "waiting for images that another process is refining; if it has died, they are refined here once its \
                 lease has expired (30 s, unless the cache was opened with another `lease_expiry`)",
            );
        }
        now
    }
}

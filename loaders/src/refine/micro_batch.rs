//! One call of the refiner, from what is asked for to rows of the cache.

use super::dataset::{Dataset, Identity, Refinement};
use super::missing::Missing;
use super::{NoiseKey, Progress, RawBatch};
use crate::cache::{ImageRow, Lease, Partition, Resident, RowKey};
use crate::planes::Planes;
use crate::stats::Counters;
use crate::wording::counted;
use crate::{CancelToken, Conditioning, Error, Label, Refine, Result, Sample};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The result for one sample; the error is shared by all samples of its micro-batch.
pub(crate) type Refined = Result<Arc<Planes>, Arc<Error>>;

/// Finds refined images, and makes micro-batches of what is missing.
#[derive(Clone)]
pub(crate) struct Finder {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) store: Arc<Resident>,
    pub(crate) counters: Arc<Counters>,
}

impl Finder {
    /// Fills in what is in memory or in the cache of `wanted`, where there is no result yet, and claims at most so many
    /// of the others. A sample that cannot be read fails alone. Left without a result are those of the micro-batch, if
    /// there is one, and those that another process is refining.
    pub(crate) fn prepare(
        &self,
        wanted: &[Refinement],
        results: &mut [Option<Refined>],
        at_most: usize,
    ) -> Option<MicroBatch> {
        let missing = self.find(wanted, results);
        if missing.is_empty() {
            return None;
        }
        let lease = self.claim(&missing, at_most);
        let is_mine = |key: &RowKey| lease.as_ref().is_none_or(|lease| lease.holds(key));
        // Whoever held it until now has committed it.
        let missing = if lease.is_some() { self.find(wanted, results) } else { missing };
        let mut batch = MicroBatch::new(&self.dataset);
        for (slot, _) in missing.iter().filter(|(_, key)| is_mine(key)).take(at_most) {
            let refinement = wanted[*slot];
            let added = self
                .dataset
                .sample(refinement.index)
                .and_then(|sample| batch.add(*slot, refinement, &self.dataset, sample));
            if let Err(error) = added {
                results[*slot] = Some(Err(Arc::new(error)));
            }
        }
        batch.lease = lease.map(Arc::new);
        (!batch.samples.is_empty()).then_some(batch)
    }

    /// Fills in what is in memory or in the cache, and returns the slots, with their keys, that have no result yet.
    fn find(&self, wanted: &[Refinement], results: &mut [Option<Refined>]) -> Vec<(usize, RowKey)> {
        self.store.refresh();
        let mut missing = Vec::new();
        for (slot, (refinement, result)) in wanted.iter().zip(results).enumerate() {
            if result.is_some() {
                continue;
            }
            let key = self.dataset.identity(*refinement).map(|identity| identity.row);
            match key.and_then(|key| Ok((key, self.store.find(&key, &self.counters)?))) {
                Ok((_, Some(image))) => *result = Some(Ok(image)),
                Ok((key, None)) => missing.push((slot, key)),
                Err(error) => *result = Some(Err(Arc::new(error))),
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

    /// Has `refiner` refine a micro-batch.
    ///
    /// # Errors
    /// The refiner's, or if it returns another number of images.
    pub(crate) fn refine(
        &self,
        batch: &MicroBatch,
        refiner: &mut dyn Refine,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<(Vec<ImageRow>, Duration)> {
        let started = Instant::now();
        progress.start(batch.samples.len());
        let images = refiner.refine(&batch.raw(), cancel, progress);
        progress.end(images.is_ok());
        let (images, time) = (images?, started.elapsed());
        if images.len() != batch.samples.len() {
            let reason = format!("{} came back for {}", counted(images.len(), "image"), batch.samples.len());
            return Err(Error::refine(reason));
        }
        self.counters.refine.add(images.len(), time);
        Counters::add(&self.counters.misses, images.len());
        let seconds = time.as_secs_f32() / images.len() as f32;
        let form = self.store.disk().map(Partition::image_form).unwrap_or_default();
        let row = |(image, Queued { index, label, identity }): (_, &Queued)| ImageRow {
            key: identity.row,
            image: Arc::new(image),
            form,
            label: label.clone(),
            index: *index,
            variant: identity.noise.variant,
            seconds,
        };
        Ok((images.into_iter().zip(&batch.samples).map(row).collect(), time))
    }

    /// Whether the cache on disk has every refinement of which it was `missing`, those included that other processes
    /// made; see [`Missing::is_none`]. A sample that panics when it is read is not there.
    pub(crate) fn has_all(&self, missing: &mut Missing, go_on: impl Fn() -> bool) -> bool {
        if missing.is_empty() {
            return true;
        }
        let look = || {
            // What is not seen of it is only released later.
            self.store.refresh();
            self.store.disk().is_some() && missing.is_none(&self.dataset, &self.store, go_on)
        };
        catch_unwind(AssertUnwindSafe(look)).unwrap_or(false)
    }
}

/// What is kept of a sample until its image comes back.
#[derive(Clone)]
struct Queued {
    index: usize,
    label: Label,
    identity: Identity,
}

/// Samples that the refiner gets at once, each of another key.
pub(crate) struct MicroBatch {
    height: usize,
    width: usize,
    samples: Vec<Queued>,
    pixels: Vec<f32>,
    conditioning: Vec<Conditioning>,
    keys: Vec<NoiseKey>,
    /// Which caller's slot waits for which position of the batch.
    slots: Vec<(usize, usize)>,
    positions: HashMap<RowKey, usize>,
    /// None where nobody else can be asked.
    lease: Option<Arc<Lease>>,
}

impl MicroBatch {
    fn new(dataset: &Dataset) -> Self {
        let [_, height, width] = dataset.info().shape;
        Self {
            height,
            width,
            samples: Vec::new(),
            pixels: Vec::new(),
            conditioning: Vec::new(),
            keys: Vec::new(),
            slots: Vec::new(),
            positions: HashMap::new(),
            lease: None,
        }
    }

    fn add(&mut self, slot: usize, refinement: Refinement, dataset: &Dataset, sample: Sample) -> Result<()> {
        let identity = dataset.identify(refinement, &sample)?;
        if let Some(position) = self.positions.get(&identity.row) {
            self.slots.push((slot, *position));
            return Ok(());
        }
        let pixels = sample.to_pixels(&dataset.value_space(refinement.index))?;
        let conditioning = dataset.conditioning(&sample).clone();
        // Here, where it takes no time from the refiner.
        RawBatch::new(
            &pixels,
            self.height,
            self.width,
            std::slice::from_ref(&conditioning),
            &[identity.noise],
        )?;
        self.pixels.extend(pixels);
        self.slots.push((slot, self.samples.len()));
        self.positions.insert(identity.row, self.samples.len());
        self.conditioning.push(conditioning);
        self.keys.push(identity.noise);
        self.samples.push(Queued { index: refinement.index, label: sample.label, identity });
        Ok(())
    }

    fn raw(&self) -> RawBatch<'_> {
        let Self { height, width, pixels, conditioning, keys, .. } = self;
        RawBatch { pixels, height: *height, width: *width, conditioning, keys }
    }

    /// Which caller's slot waits for which position of the batch.
    pub(crate) fn slots(&self) -> &[(usize, usize)] {
        &self.slots
    }

    /// What the image at each position is filed under.
    pub(crate) fn rows(&self) -> impl Iterator<Item = RowKey> {
        self.samples.iter().map(|sample| sample.identity.row)
    }

    /// The claim to its samples, which must live until they are kept.
    pub(crate) fn lease(&self) -> Option<Arc<Lease>> {
        self.lease.clone()
    }

    /// Some of its samples, by their positions, for which no caller's slot waits.
    pub(crate) fn part(&self, positions: &[usize]) -> Self {
        let size = 3 * self.height * self.width;
        let pixels = |position: &usize| &self.pixels[position * size..(position + 1) * size];
        Self {
            samples: positions.iter().map(|position| self.samples[*position].clone()).collect(),
            pixels: positions.iter().flat_map(pixels).copied().collect(),
            conditioning: positions.iter().map(|position| self.conditioning[*position].clone()).collect(),
            keys: positions.iter().map(|position| self.keys[*position]).collect(),
            slots: Vec::new(),
            positions: HashMap::new(),
            lease: self.lease.clone(),
            ..*self
        }
    }
}

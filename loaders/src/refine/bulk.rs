//! Refining a whole set, or a share of it, into its cache.

use super::Progress;
use super::refinery::{Pause, Refinery};
use crate::cache::{ImageRow, Lease, Partition, Resident};
use crate::{CancelToken, Error, Result, RgbImage, Stats};
use crossbeam::channel::{Receiver, Sender, bounded};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

/// How many micro-batches a bulk refinement looks ahead for samples that no other process is refining.
const LOOK_AHEAD: usize = 4;

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
    /// Refines those of the samples `indices` that the cache lacks, in micro-batches that are durable one by one: an
    /// interrupted run goes on where it stopped. Several processes that run at once on one cache share the work: what
    /// another one is refining is waited for.
    ///
    /// # Errors
    /// The first sample that cannot be read or refined; a cache that cannot be written; [`Error::Cancelled`]. What
    /// was refined before stays in the cache.
    pub fn run(
        &mut self,
        indices: impl IntoIterator<Item = usize>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Summary> {
        let before = self.counters.snapshot();
        let (mut samples, mut missing) = (0, VecDeque::new());
        for index in indices {
            cancel.check()?;
            samples += 1;
            if !self.store.contains(&self.dataset.identity(index)?.row) {
                missing.push_back(index);
            }
        }
        if let (false, Some(disk)) = (missing.is_empty(), self.store.disk()) {
            // Not after the first batch, which may take minutes.
            disk.check_writable()?;
        }
        progress.images(samples - missing.len(), samples);
        let (store, names) = (Arc::clone(&self.store), self.class_names.clone());
        std::thread::scope(|scope| {
            let mut writer = Writer::start(scope, &store, &names)?;
            let result = self.refine_all(missing, samples, &mut writer, cancel, progress);
            // What is refined is kept, whatever ended the run.
            let written = writer.finish();
            result.and(written)
        })?;
        self.check_disk()?;
        self.tidy();
        progress.images(samples, samples);
        let after: Stats = self.counters.snapshot();
        let refined = usize::try_from(after.misses - before.misses).unwrap_or(usize::MAX);
        Ok(Summary {
            cached: samples.saturating_sub(refined),
            refined,
            refine_seconds: after.refine_seconds - before.refine_seconds,
        })
    }

    /// Serving goes on without a disk, but bulk refinement is for the disk alone.
    ///
    /// # Errors
    /// Why the disk takes nothing.
    fn check_disk(&self) -> Result<()> {
        self.store.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Refines what is missing of so many samples, and has it written meanwhile.
    fn refine_all(
        &mut self,
        mut missing: VecDeque<usize>,
        samples: usize,
        writer: &mut Writer,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (mut pause, mut passed_over) = (Pause::default(), 0);
        while !missing.is_empty() {
            cancel.check()?;
            let count = missing.len().min(LOOK_AHEAD * self.preferred_batch());
            let indices: Vec<usize> = missing.drain(..count).collect();
            let mut results = vec![None; count];
            let at_most = self.preferred_batch();
            let started = Instant::now();
            self.attempt(&indices, &mut results, at_most, cancel, progress, &mut |rows, lease| {
                writer.push(rows, lease, started.elapsed())
            });
            let mut awaited = Vec::new();
            for (index, result) in indices.into_iter().zip(results) {
                match result {
                    Some(refined) => drop(refined?),
                    None => awaited.push(index),
                }
            }
            self.check_disk()?;
            if awaited.len() < count {
                (pause, passed_over) = (Pause::default(), 0);
                awaited.into_iter().rev().for_each(|index| missing.push_front(index));
            } else {
                // All of them are in other hands: what comes after may not be.
                passed_over += count;
                missing.extend(awaited);
                if passed_over >= missing.len() {
                    pause.wait();
                    passed_over = 0;
                }
            }
            let left = missing.len() + writer.waiting;
            progress.images(samples.saturating_sub(left), samples);
        }
        Ok(())
    }
}

/// Rows on their way to the cache. They are claimed until they are there.
struct Refined {
    rows: Vec<ImageRow>,
    lease: Option<Lease>,
}

/// Writes a micro-batch to the cache while the refiner works on the next one, so that encoding images and waiting for the
/// disk take no time from it.
///
/// Only where refining takes longer than writing: else there is nothing to gain, and a kill would cost two micro-batches
/// in place of one.
struct Writer {
    queue: Sender<Refined>,
    /// For each micro-batch, how long it took.
    written: Receiver<Result<Duration>>,
    /// Number of rows that are being written.
    waiting: usize,
    last: Option<Duration>,
}

impl Writer {
    fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        store: &'scope Resident,
        class_names: &'scope [String],
    ) -> Result<Self> {
        let (queue, refined) = bounded::<Refined>(1);
        let (report, written) = bounded(1);
        let write = move || {
            for Refined { rows, lease } in refined {
                let started = Instant::now();
                let kept = store.keep(&rows, class_names);
                drop(lease);
                if report.send(kept.map(|_| started.elapsed())).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("diver-write".into());
        let root = store.disk().map(Partition::path).unwrap_or_default();
        thread.spawn_scoped(scope, write).map_err(Error::io(&root, "cannot start a thread"))?;
        Ok(Self { queue, written, waiting: 0, last: None })
    }

    /// Has `rows` written, which took `refining` to make. Their images are the refiner's own: nobody looks at them here.
    fn push(
        &mut self,
        rows: Vec<ImageRow>,
        lease: Option<Lease>,
        refining: Duration,
    ) -> Result<Vec<Arc<RgbImage>>> {
        self.wait()?;
        let images = rows.iter().map(|row| Arc::clone(&row.image)).collect();
        self.waiting = rows.len();
        self.queue.send(Refined { rows, lease }).map_err(|_| ended())?;
        if self.last.is_none_or(|writing| refining < 2 * writing) {
            self.wait()?;
        }
        Ok(images)
    }

    /// Waits until nothing is being written.
    fn wait(&mut self) -> Result<()> {
        if self.waiting > 0 {
            self.waiting = 0;
            self.last = Some(self.written.recv().map_err(|_| ended())??);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.wait()
    }
}

/// It ends before its time only in a panic, which the run ends in as well.
fn ended() -> Error {
    Error::refine("the thread that writes the cache ended")
}

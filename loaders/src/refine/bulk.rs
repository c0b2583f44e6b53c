//! Refining a whole set, or a share of it, into its cache.

use super::Progress;
use super::dataset::Refinement;
use super::keeper::{Keeper, Rows, tidy};
use super::refinery::{Pause, Refinery};
use crate::cache::Partition;
use crate::{CancelToken, Error, Result, Stats};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;

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
        let (dataset, store) = (Arc::clone(&self.finder.dataset), Arc::clone(&self.finder.store));
        let before = self.finder.counters.snapshot();
        let (mut images, mut missing) = (0, VecDeque::new());
        for refinement in indices.into_iter().flat_map(|index| dataset.refinements(index)) {
            cancel.check()?;
            images += 1;
            if !store.contains(&dataset.identity(refinement)?.row) {
                missing.push_back(refinement);
            }
        }
        if let (false, Some(disk)) = (missing.is_empty(), store.disk()) {
            // Not after the first batch, which may take minutes.
            disk.check_writable()?;
        }
        progress.images(images - missing.len(), images);
        let names = self.class_names.clone();
        std::thread::scope(|scope| {
            let (mut keeper, keeping) = Keeper::new();
            let thread = std::thread::Builder::new().name("diver-keep".into());
            let keep = {
                let (store, names, counters) = (&store, &names, Arc::clone(&self.finder.counters));
                move || keeping.run(store, names, &counters)
            };
            let root = store.disk().map(Partition::path).unwrap_or_default();
            thread.spawn_scoped(scope, keep).map_err(Error::io(&root, "cannot start a thread"))?;
            let result = self.refine_all(missing, images, &mut keeper, cancel, progress);
            // What is refined is kept, whatever ended the run.
            let kept = keeper.wait();
            result.and(kept)
        })?;
        self.check_disk()?;
        tidy(&store);
        progress.images(images, images);
        let after: Stats = self.finder.counters.snapshot();
        let refined = usize::try_from(after.misses - before.misses).unwrap_or(usize::MAX);
        Ok(Summary {
            cached: images.saturating_sub(refined),
            refined,
            refine_seconds: after.stages.refine.seconds - before.stages.refine.seconds,
        })
    }

    /// Serving goes on without a disk, but bulk refinement is for the disk alone.
    ///
    /// # Errors
    /// Why the disk takes nothing.
    fn check_disk(&self) -> Result<()> {
        self.finder.store.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Refines what is missing of so many images, and has it kept meanwhile.
    fn refine_all(
        &mut self,
        mut missing: VecDeque<Refinement>,
        images: usize,
        keeper: &mut Keeper,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (mut pause, mut passed_over) = (Pause::default(), 0);
        while !missing.is_empty() {
            cancel.check()?;
            let at_most = self.preferred_batch();
            let count = missing.len().min(LOOK_AHEAD * at_most);
            let wanted: Vec<Refinement> = missing.drain(..count).collect();
            let mut results = vec![None; count];
            let batch = self.finder.prepare(&wanted, &mut results, at_most);
            if let Some(batch) = &batch {
                let (rows, refining) = self.finder.refine(batch, &mut *self.refiner, cancel, progress)?;
                keeper.push(Rows { rows, lease: batch.lease(), refining, done: None })?;
            }
            let mut is_awaited = vec![true; count];
            batch.iter().flat_map(|batch| batch.slots()).for_each(|(slot, _)| is_awaited[*slot] = false);
            let mut awaited = Vec::new();
            for ((refinement, result), is_awaited) in wanted.into_iter().zip(results).zip(is_awaited) {
                match result {
                    Some(refined) => drop(refined?),
                    None if is_awaited => awaited.push(refinement),
                    None => {}
                }
            }
            self.check_disk()?;
            if awaited.len() < count {
                (pause, passed_over) = (Pause::default(), 0);
                awaited.into_iter().rev().for_each(|refinement| missing.push_front(refinement));
            } else {
                // All of them are in other hands: what comes after may not be.
                passed_over += count;
                missing.extend(awaited);
                if passed_over >= missing.len() {
                    pause.wait();
                    passed_over = 0;
                }
            }
            let left = missing.len() + keeper.waiting();
            progress.images(images.saturating_sub(left), images);
        }
        Ok(())
    }
}

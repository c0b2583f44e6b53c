//! How far the refinements of an epoch are.

use crate::refine::Progress;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How far the refinements are that an epoch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Refining {
    /// How many are there: refined, or found in the cache.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// Seconds until the others are there, once the refiner has told how fast it is.
    pub eta_seconds: Option<f64>,
}

/// What the threads around the refiner say of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The epoch that the consumer stands in, how many refinements it asks for, and how many of them nobody has looked for.
    epoch: AtomicU64,
    total: AtomicUsize,
    unseen: AtomicUsize,
    /// Requests that no call has taken up.
    asked: AtomicUsize,
    /// How many were there when that was asked last. On their way from one count to the next, images are in both.
    done: AtomicUsize,
    call: Mutex<Pace>,
}

/// The calls of the refiner.
#[derive(Debug, Default)]
struct Pace {
    /// The one under way.
    call: Option<Call>,
    /// Images of those before, and how many seconds they took.
    images: usize,
    seconds: f64,
}

#[derive(Debug)]
struct Call {
    images: usize,
    since: Instant,
    /// What is done of it, from 0 to 1.
    done: f64,
}

impl Watch {
    /// The consumer stands in another epoch.
    pub(super) fn begin(&self, epoch: u64, total: usize, unseen: usize) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.unseen.store(unseen, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    /// A refinement was looked for that an epoch asks for.
    pub(super) fn see(&self, epoch: u64) {
        if epoch == self.epoch() {
            // It is one of those.
            let _ = self
                .unseen
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |unseen| unseen.checked_sub(1));
        }
    }

    pub(super) fn set_asked(&self, requests: usize) {
        self.asked.store(requests, Ordering::Relaxed);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The refiner is called for so many images.
    pub(super) fn start_call(&self, images: usize) {
        self.pace().call = Some(Call { images, since: Instant::now(), done: 0.0 });
    }

    /// It has returned; with them, if it succeeded.
    pub(super) fn end_call(&self, is_done: bool) {
        let mut pace = self.pace();
        if let (Some(call), true) = (pace.call.take(), is_done) {
            pace.images += call.images;
            pace.seconds += call.since.elapsed().as_secs_f64();
        }
    }

    /// How far the epoch's refinements are, of which `flying` are on their way; none where there are none.
    pub(super) fn read(&self, flying: usize) -> Option<Refining> {
        let total = Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)?;
        let missing = self.unseen.load(Ordering::Relaxed) + self.asked.load(Ordering::Relaxed) + flying;
        let done = total.saturating_sub(missing);
        let done = done.max(self.done.fetch_max(done, Ordering::Relaxed));
        let pace = self.pace();
        let call = pace
            .call
            .as_ref()
            .map(|call| (call.done * call.images as f64, call.since.elapsed().as_secs_f64()));
        let (in_call, so_far) = call.unwrap_or_default();
        // That of the call under way alone, until one is over.
        let (images, seconds) =
            if pace.images > 0 { (pace.images as f64, pace.seconds) } else { (in_call, so_far) };
        let eta_seconds =
            (images > 0.0).then(|| ((total - done) as f64 - in_call).max(0.0) * seconds / images);
        Some(Refining { done, total, eta_seconds })
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Every update leaves it whole.
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Watch {
    fn step(&self, done: usize, total: usize) {
        if let Some(call) = &mut self.pace().call {
            call.done = done as f64 / total.max(1) as f64;
        }
    }
}

//! How far the refinements of an epoch are.

use crate::refine::{Pace, Progress, Refining};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
    pace: Pace,
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

    /// How far the epoch's refinements are, of which `flying` are on their way; none where there are none.
    pub(super) fn read(&self, flying: usize) -> Option<Refining> {
        let total = Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)?;
        let missing = self.unseen.load(Ordering::Relaxed) + self.asked.load(Ordering::Relaxed) + flying;
        let done = total.saturating_sub(missing);
        let done = done.max(self.done.fetch_max(done, Ordering::Relaxed));
        Some(Refining { done, total, eta_seconds: self.pace.eta(total - done) })
    }
}

impl Progress for Watch {
    fn start(&self, images: usize) {
        self.pace.start(images);
    }

    fn step(&self, done: usize, total: usize) {
        self.pace.step(done, total);
    }

    fn end(&self, is_done: bool) {
        self.pace.end(is_done);
    }
}

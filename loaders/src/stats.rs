//! What a loader has done so far.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the loader was built. What was prefetched counts when it is made, not when it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Batches made.
    pub batches: u64,
    /// Samples in them.
    pub samples: u64,
    /// Refined samples that were found in memory.
    pub memory_hits: u64,
    /// Refined samples that were read from the cache on disk.
    pub disk_hits: u64,
    /// Samples that were refined because no cache had them.
    pub misses: u64,
    /// Samples that came raw because their refinement was not there yet (`OnMiss::Raw`).
    pub raw_fallbacks: u64,
    /// Seconds that the refiner worked.
    pub refine_seconds: f64,
    /// Images or views whose logits were at hand.
    pub label_hits: u64,
    /// Images or views that the teacher looked at.
    pub taught: u64,
    /// Seconds that the teacher worked.
    pub teach_seconds: f64,
    /// Seconds that the consumer waited for batches.
    pub wait_seconds: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) memory_hits: AtomicU64,
    pub(crate) disk_hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) raw_fallbacks: AtomicU64,
    pub(crate) label_hits: AtomicU64,
    pub(crate) taught: AtomicU64,
    teach_nanos: AtomicU64,
    refine_nanos: AtomicU64,
    wait_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_refine_time(&self, time: Duration) {
        self.refine_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_teach_time(&self, time: Duration) {
        self.teach_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_wait_time(&self, time: Duration) {
        self.wait_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter: &AtomicU64| Duration::from_nanos(count(counter)).as_secs_f64();
        Stats {
            batches: count(&self.batches),
            samples: count(&self.samples),
            memory_hits: count(&self.memory_hits),
            disk_hits: count(&self.disk_hits),
            misses: count(&self.misses),
            raw_fallbacks: count(&self.raw_fallbacks),
            refine_seconds: seconds(&self.refine_nanos),
            label_hits: count(&self.label_hits),
            taught: count(&self.taught),
            teach_seconds: seconds(&self.teach_nanos),
            wait_seconds: seconds(&self.wait_nanos),
        }
    }
}

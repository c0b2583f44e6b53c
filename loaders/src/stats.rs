//! What a loader has done so far.

use crate::refine::Refining;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a loader has done since it was built, and what it is doing. What was prefetched counts when it is made, not when
/// it is taken.
///
/// ```
/// use diver_loaders::{Identity, Loader, MemorySource};
///
/// let set = MemorySource::unit(6, [3, 1, 1], vec![0.5; 18], vec![0; 6])?;
/// let mut loader = Loader::builder(set).refiner(Identity).batch_size(2).build()?;
/// let mut epoch = loader.iter();
/// epoch.next();
/// assert!(epoch.stats().eta_seconds.is_some());
/// assert_eq!(epoch.count(), 2);
///
/// let stats = loader.finish()?;
/// // Equal images of equal classes are refined once.
/// assert_eq!((stats.refined >= 6, stats.misses), (true, 1));
/// assert_eq!(stats.stages.next.calls, 3);
/// assert!(stats.stages.next.p50 <= stats.stages.next.p99);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Batches made.
    pub batches: u64,
    /// Samples in them.
    pub samples: u64,
    /// Those that came refined, or as a blend.
    pub refined: u64,
    /// Refined samples that were found in memory.
    pub memory_hits: u64,
    /// Refined samples that were read from the cache on disk.
    pub disk_hits: u64,
    /// Samples that were refined because no cache had them.
    pub misses: u64,
    /// Samples that came raw because their refinement was not there yet (`OnMiss::Raw`).
    pub raw_fallbacks: u64,
    /// Samples that failed and are skipped (`OnError::Skip`).
    pub skipped: u64,
    /// Images or views whose logits were at hand.
    pub label_hits: u64,
    /// Images or views that the teacher looked at.
    pub taught: u64,
    /// Seconds until the epoch is over, at the pace that it has had so far; none before its first batch and after its last.
    pub eta_seconds: Option<f64>,
    /// How far the refinements are that this epoch asks for; none where all of them are there from the start.
    pub refining: Option<Refining>,
    /// What is waiting now.
    pub queues: Queues,
    /// What took how long.
    pub stages: Stages,
}

/// What is waiting in a loader now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Batches that are to be made.
    pub batches: usize,
    /// Images that the refiner is to make, or that are to be kept.
    pub refining: usize,
    /// Images or views that the teacher is to look at.
    pub teaching: usize,
    /// Batches that are made.
    pub ready: usize,
}

/// What took how long, stage by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    /// Filling batches with pixels; each call is a batch. What waits for the refiner is included.
    pub fetch: Stage,
    /// Making targets and augmenting; each call is a batch. What waits for the teacher is included.
    pub label: Stage,
    /// Calls of the refiner.
    pub refine: Stage,
    /// Keeping what came of each: encoding, and writing to the cache.
    pub keep: Stage,
    /// Calls of the teacher.
    pub teach: Stage,
    /// Waits of the consumer, each for a batch.
    pub next: Stage,
}

/// How often a stage was called, for how much, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// Number of calls.
    pub calls: u64,
    /// Images or views in them, all together.
    pub items: u64,
    /// Seconds, all together. Threads that worked at once count each.
    pub seconds: f64,
    /// Seconds that half of the calls took at most.
    pub p50: f64,
    /// Seconds that nine calls in ten took at most.
    pub p90: f64,
    /// Seconds that 99 calls in a hundred took at most.
    pub p99: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) refined: AtomicU64,
    pub(crate) memory_hits: AtomicU64,
    pub(crate) disk_hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) raw_fallbacks: AtomicU64,
    pub(crate) label_hits: AtomicU64,
    pub(crate) taught: AtomicU64,
    pub(crate) fetch: Clock,
    pub(crate) label: Clock,
    pub(crate) refine: Clock,
    pub(crate) keep: Clock,
    pub(crate) teach: Clock,
    pub(crate) next: Clock,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// What was counted; what is known elsewhere is left as it is by default.
    pub(crate) fn snapshot(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            batches: count(&self.batches),
            samples: count(&self.samples),
            refined: count(&self.refined),
            memory_hits: count(&self.memory_hits),
            disk_hits: count(&self.disk_hits),
            misses: count(&self.misses),
            raw_fallbacks: count(&self.raw_fallbacks),
            label_hits: count(&self.label_hits),
            taught: count(&self.taught),
            stages: Stages {
                fetch: self.fetch.read(),
                label: self.label.read(),
                refine: self.refine.read(),
                keep: self.keep.read(),
                teach: self.teach.read(),
                next: self.next.read(),
            },
            ..Stats::default()
        }
    }
}

/// Takes the time of a stage.
#[derive(Debug, Default)]
pub(crate) struct Clock(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    items: u64,
    total: Duration,
    /// In microseconds, to two digits. None before the first call.
    each: Option<Histogram<u64>>,
}

impl Clock {
    /// Takes the time of `call`, which is for so many items.
    pub(crate) fn time<T>(&self, items: usize, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = call();
        self.add(items, started.elapsed());
        result
    }

    /// Takes note of a call.
    pub(crate) fn add(&self, items: usize, time: Duration) {
        // Every update leaves it whole.
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.items += items as u64;
        times.total += time;
        if times.each.is_none() {
            times.each = Histogram::new_with_max(LONGEST.as_micros() as u64, 2).ok();
        }
        if let Some(each) = &mut times.each {
            each.saturating_record(time.as_micros() as u64);
        }
    }

    fn read(&self) -> Stage {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quantile = |quantile: f64| {
            let micros = times.each.as_ref().map_or(0, |each| each.value_at_quantile(quantile));
            Duration::from_micros(micros).as_secs_f64()
        };
        Stage {
            calls: times.each.as_ref().map_or(0, Histogram::len),
            items: times.items,
            seconds: times.total.as_secs_f64(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
        }
    }
}

/// What takes longer counts as this.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let clock = Clock::default();
        assert_eq!(clock.read(), Stage::default());
        for millis in 1..=100 {
            clock.add(2, Duration::from_millis(millis));
        }
        clock.add(0, Duration::from_secs(1 << 40));
        let stage = clock.read();
        assert_eq!((stage.calls, stage.items), (101, 200));
        for (found, expected) in [(stage.p50, 0.051), (stage.p90, 0.091), (stage.p99, 0.100)] {
            assert!((found / expected - 1.0).abs() < 0.02, "{found} for {expected}");
        }
    }
}

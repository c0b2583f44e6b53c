//! Progress that is asked for rather than heard of.

use super::Progress;
use super::pace::Pace;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far refinements are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Refining {
    /// How many images are there: refined, or found in the cache.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// Seconds until the others are there, once the refiner has told how fast it is.
    pub eta_seconds: Option<f64>,
}

/// A [`Progress`] that can be asked how far a set is, from another thread.
///
/// ```
/// use diver_loaders::refine::{Meter, Refining};
/// use diver_loaders::{CancelToken, Identity, MemorySource, Refinery};
///
/// let set = MemorySource::unit(2, [3, 1, 1], vec![0.0, 0.1, 0.2, 0.3, 0.4, 0.5], vec![0, 1])?;
/// let meter = Meter::default();
/// assert_eq!(meter.read(), None);
/// Refinery::new(set, Identity, None)?.run(0..2, &CancelToken::new(), &meter)?;
/// assert_eq!(meter.read(), Some(Refining { done: 2, total: 2, eta_seconds: Some(0.0) }));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicUsize,
    /// 0 before it is known.
    total: AtomicUsize,
    pace: Pace,
}

impl Meter {
    /// How far it is; none before that is known.
    pub fn read(&self) -> Option<Refining> {
        let total = Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)?;
        let done = self.done.load(Ordering::Relaxed).min(total);
        Some(Refining { done, total, eta_seconds: self.pace.eta(total - done) })
    }
}

impl Progress for Meter {
    fn start(&self, images: usize) {
        self.pace.start(images);
    }

    fn step(&self, done: usize, total: usize) {
        self.pace.step(done, total);
    }

    fn end(&self, is_done: bool) {
        self.pace.end(is_done);
    }

    fn images(&self, done: usize, total: usize) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

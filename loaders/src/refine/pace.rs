//! How fast a refiner is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Takes the time of a refiner's calls, and of the one under way as far as it is.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    /// The one under way.
    now: Option<Call>,
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

impl Pace {
    /// The refiner is called for so many images.
    pub(crate) fn start(&self, images: usize) {
        self.calls().now = Some(Call { images, since: Instant::now(), done: 0.0 });
    }

    /// `done` of `total` steps of the call are done.
    pub(crate) fn step(&self, done: usize, total: usize) {
        if let Some(call) = &mut self.calls().now {
            call.done = done as f64 / total.max(1) as f64;
        }
    }

    /// The call has returned; with its images, if it succeeded.
    pub(crate) fn end(&self, is_done: bool) {
        let mut calls = self.calls();
        if let (Some(call), true) = (calls.now.take(), is_done) {
            calls.images += call.images;
            calls.seconds += call.since.elapsed().as_secs_f64();
        }
    }

    /// Seconds that so many images will take, those of the call under way among them; none while nothing tells.
    pub(crate) fn eta(&self, images: usize) -> Option<f64> {
        let calls = self.calls();
        let now = calls.now.as_ref();
        let (in_call, so_far) = now
            .map(|call| (call.done * call.images as f64, call.since.elapsed().as_secs_f64()))
            .unwrap_or_default();
        // That of the call under way alone, until one is over.
        let (known, seconds) =
            if calls.images > 0 { (calls.images as f64, calls.seconds) } else { (in_call, so_far) };
        (known > 0.0).then(|| (images as f64 - in_call).max(0.0) * seconds / known)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Every update leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! How far the refinements of an epoch are.

use crate::refine::{Pace, Progress, Refining};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which refinements are there of those that the consumer's epoch asks for, and how fast the others come.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Mutex<Seen>,
    pace: Pace,
}

/// By the number of each refinement.
#[derive(Debug, Default)]
struct Seen {
    is_there: Vec<bool>,
    is_wanted: Vec<bool>,
    /// How many are wanted, and how many of them are there.
    wanted: usize,
    done: usize,
}

impl Watch {
    /// The consumer stands in an epoch that asks for these of so many refinements, each once.
    pub(super) fn begin(&self, of: usize, numbers: &[usize]) {
        let mut seen = self.seen();
        seen.is_there.resize(of, false);
        seen.is_wanted = vec![false; of];
        for number in numbers {
            seen.is_wanted[*number] = true;
        }
        seen.wanted = numbers.len();
        seen.done = numbers.iter().filter(|number| seen.is_there[**number]).count();
    }

    /// A refinement is there: found, or refined.
    pub(super) fn arrive(&self, number: usize) {
        let mut seen = self.seen();
        if number >= seen.is_there.len() {
            seen.is_there.resize(number + 1, false);
        }
        let is_new = !std::mem::replace(&mut seen.is_there[number], true);
        if is_new && seen.is_wanted.get(number) == Some(&true) {
            seen.done += 1;
        }
    }

    /// How far the epoch's refinements are; none before it is known what they are, and where there are none.
    pub(super) fn read(&self) -> Option<Refining> {
        let Seen { wanted: total, done, .. } = *self.seen();
        (total > 0).then(|| Refining { done, total, eta_seconds: self.pace.eta(total - done) })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every update leaves it whole enough to tell of progress.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

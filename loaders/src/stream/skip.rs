//! Samples that fail, and what comes in their place.

use super::plan::Plan;
use super::want::{Position, Want};
use crate::options::named_enum;
use crate::{Error, Result};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

named_enum! {
    /// What happens where a sample cannot be read or refined.
    #[derive(Default)]
    OnError, "on_error" {
        /// Its batch is an error.
        #[default]
        Raise = "raise",
        /// A sample that comes after its batch takes its place, in this epoch and in all later ones. The error is logged. What
        /// a teacher fails on is an error all the same.
        Skip = "skip",
    }
}

/// The samples that are skipped.
pub(super) struct Skipping {
    on_error: OnError,
    /// How many samples may be.
    at_most: usize,
    failed: Mutex<HashSet<Failed>>,
}

/// What failed of a sample: its raw image, or one of its refinements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Failed {
    index: usize,
    variant: Option<u32>,
}

impl Failed {
    fn of(want: &Want) -> Self {
        Self { index: want.index, variant: want.refinement().map(|refinement| refinement.variant) }
    }
}

impl Skipping {
    pub(super) fn new(on_error: OnError, at_most: usize) -> Self {
        Self { on_error, at_most, failed: Mutex::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on_error == OnError::Skip
    }

    /// Takes note that what `want` asks for cannot be had.
    ///
    /// # Errors
    /// Why not, if it is not to be skipped: too many were, or the loader is being dropped.
    pub(super) fn note(&self, want: &Want, error: Error) -> Result<()> {
        if !self.is_on() || matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let failed = Failed::of(want);
        let mut known = self.lock();
        if known.contains(&failed) {
            return Ok(());
        }
        let others: HashSet<usize> = known.iter().map(|failed| failed.index).chain([want.index]).collect();
        if others.len() > self.at_most {
            tracing::error!(
                "sample {} fails, and {} samples are skipped already: `max_skipped` allows no more",
                want.index,
                self.at_most
            );
            return Err(error);
        }
        known.insert(failed);
        tracing::warn!(
            "{error}; sample {} is skipped and another takes its place: {} of at most {}",
            want.index,
            others.len(),
            self.at_most
        );
        Ok(())
    }

    /// How many samples are skipped.
    pub(super) fn count(&self) -> usize {
        self.lock().iter().map(|failed| failed.index).collect::<HashSet<_>>().len()
    }

    /// The samples of a batch, with others in the place of those that are known to fail: those that come first after it,
    /// and do not. So it does not matter when a failure becomes known.
    ///
    /// # Errors
    /// If everything fails.
    pub(super) fn wants(&self, plan: &Plan, position: Position) -> Result<Vec<Want>> {
        let mut wants = plan.wants(position);
        let failed = self.lock();
        if failed.is_empty() {
            return Ok(wants);
        }
        let mut later =
            After { plan, position, wants: Vec::new().into_iter() }.take(2 * plan.places(position.epoch));
        for want in &mut wants {
            if failed.contains(&Failed::of(want)) {
                let other = later.find(|want| !failed.contains(&Failed::of(want))).ok_or_else(|| {
                    Error::config(
                        "on_error",
                        "every sample fails, as was logged: there is none to take the place of another",
                    )
                })?;
                // Its view is that of its new place.
                *want = Want { place: want.place, ..other };
            }
        }
        Ok(wants)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Failed>> {
        // Every update leaves the set whole, so a panic elsewhere does not spoil it.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes after a batch, epoch after epoch.
struct After<'a> {
    plan: &'a Plan,
    position: Position,
    wants: std::vec::IntoIter<Want>,
}

impl Iterator for After<'_> {
    type Item = Want;

    fn next(&mut self) -> Option<Want> {
        loop {
            if let Some(want) = self.wants.next() {
                return Some(want);
            }
            // No epoch is empty.
            self.position = self.plan.after(self.position);
            self.wants = self.plan.wants(self.position).into_iter();
        }
    }
}

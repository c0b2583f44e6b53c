//! What is refined while it is served raw.

use crate::refine::Refinement;
use crate::{Error, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Samples that are refined while they are served raw: on their way, or failed, which the batch that meets them
/// next reports.
#[derive(Default)]
pub(super) struct Background(Mutex<HashMap<Refinement, Option<Arc<Error>>>>);

impl Background {
    fn lock(&self) -> MutexGuard<'_, HashMap<Refinement, Option<Arc<Error>>>> {
        // Every update leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refinement should be asked for now.
    pub(super) fn start(&self, refinement: Refinement) -> Result<bool> {
        match self.lock().entry(refinement) {
            Entry::Vacant(entry) => {
                entry.insert(None);
                Ok(true)
            }
            Entry::Occupied(entry) if entry.get().is_none() => Ok(false),
            // Reported once; the batch after asks anew.
            Entry::Occupied(entry) => entry.remove().map_or(Ok(true), |error| Err(error.into())),
        }
    }

    /// Takes note that a sample is refined, or why it could not be.
    pub(super) fn finish(&self, refinement: Refinement, failure: Option<Arc<Error>>) {
        match failure {
            None => self.lock().remove(&refinement),
            failure => self.lock().insert(refinement, failure),
        };
    }
}

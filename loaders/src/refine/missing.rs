//! Which refinements of a stream its cache may lack.

use super::dataset::{Dataset, Refinement};
use crate::cache::Resident;

/// The refinements that the cache is not known to have yet. What it once had it is taken to have for good.
pub(crate) struct Missing(Vec<Refinement>);

impl Missing {
    /// None of these is known to be there.
    pub(crate) fn new(refinements: Vec<Refinement>) -> Self {
        Self(refinements)
    }

    /// Whether none is known to be missing, as far as was looked until now.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether none is missing. Ends at the first that is, or once `go_on` says no; goes on from there when it is asked
    /// again. Samples that nobody has asked for yet are read, as their identities are hashes of their content.
    pub(crate) fn is_none(&mut self, dataset: &Dataset, store: &Resident, go_on: impl Fn() -> bool) -> bool {
        while let Some(refinement) = self.0.last() {
            // One that cannot be read is for the batch that it is in to report.
            if !go_on() || !dataset.identity(*refinement).is_ok_and(|identity| store.contains(&identity.row))
            {
                return false;
            }
            self.0.pop();
        }
        true
    }
}

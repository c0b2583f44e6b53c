//! What is being refined, and who waits for it.

use super::Request;
use crate::cache::RowKey;
use crate::stream::want::Position;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Images that the refiner was given and that are in no cache yet, with the requests for each: none where it is refined
/// ahead.
#[derive(Default)]
pub(in crate::stream) struct Flying(Mutex<HashMap<RowKey, Vec<Request>>>);

impl Flying {
    fn lock(&self) -> MutexGuard<'_, HashMap<RowKey, Vec<Request>>> {
        // Every update leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that an image is being refined.
    pub(super) fn start(&self, row: RowKey, request: Option<Request>) {
        self.lock().entry(row).or_default().extend(request);
    }

    pub(in crate::stream) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn contains(&self, row: &RowKey) -> bool {
        self.lock().contains_key(row)
    }

    /// Has a request wait for an image that is being refined; gives it back if it is not.
    pub(super) fn join(&self, row: RowKey, request: Request) -> Option<Request> {
        match self.lock().entry(row) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(request);
                None
            }
            Entry::Vacant(_) => Some(request),
        }
    }

    /// The batch of the first request for an image. One that nobody asked for is not refined any more.
    pub(super) fn place(&self, row: RowKey) -> Option<Position> {
        match self.lock().entry(row) {
            Entry::Occupied(waiting) => match waiting.get().first() {
                Some(request) => Some(request.place),
                None => {
                    waiting.remove();
                    None
                }
            },
            Entry::Vacant(_) => None,
        }
    }

    /// How many requests for an image there are.
    pub(super) fn waiting(&self, row: &RowKey) -> usize {
        self.lock().get(row).map_or(0, Vec::len)
    }

    /// The first requests for an image that could not be refined for them. Of those that have come since, it says whether
    /// there are any: they are owed another try.
    pub(super) fn fail(&self, row: RowKey, first: usize) -> (Vec<Request>, bool) {
        match self.lock().entry(row) {
            Entry::Occupied(mut waiting) => {
                let first = first.min(waiting.get().len());
                let rest = waiting.get_mut().split_off(first);
                if rest.is_empty() {
                    return (waiting.remove(), false);
                }
                (std::mem::replace(waiting.get_mut(), rest), true)
            }
            Entry::Vacant(_) => (Vec::new(), false),
        }
    }

    /// The requests for an image that is there.
    pub(super) fn land(&self, row: &RowKey) -> Vec<Request> {
        self.lock().remove(row).unwrap_or_default()
    }
}

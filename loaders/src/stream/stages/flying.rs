//! What is being refined, and who waits for it.

use super::Request;
use crate::cache::RowKey;
use crate::stream::want::Position;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Images that the refiner was given and that are in no cache yet.
#[derive(Default)]
pub(in crate::stream) struct Flying(Mutex<HashMap<RowKey, Flight>>);

/// An image that is being refined.
#[derive(Default)]
struct Flight {
    /// The numbers of the refinements that are this image: equal samples have equal images.
    numbers: Vec<usize>,
    /// None where it is refined ahead.
    requests: Vec<Request>,
}

impl Flying {
    fn lock(&self) -> MutexGuard<'_, HashMap<RowKey, Flight>> {
        // Every update leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that an image is being refined, which is the refinement of this number.
    pub(super) fn start(&self, row: RowKey, number: usize, request: Option<Request>) {
        let mut flying = self.lock();
        let flight = flying.entry(row).or_default();
        flight.numbers.push(number);
        flight.requests.extend(request);
    }

    pub(in crate::stream) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn contains(&self, row: &RowKey) -> bool {
        self.lock().contains_key(row)
    }

    /// Has a request wait for an image that is being refined; gives it back if it is not.
    pub(super) fn join(&self, row: RowKey, number: usize, request: Request) -> Option<Request> {
        match self.lock().entry(row) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().numbers.push(number);
                waiting.get_mut().requests.push(request);
                None
            }
            Entry::Vacant(_) => Some(request),
        }
    }

    /// The batch of the first request for an image. One that nobody asked for is not refined any more.
    pub(super) fn place(&self, row: RowKey) -> Option<Position> {
        match self.lock().entry(row) {
            Entry::Occupied(waiting) => match waiting.get().requests.first() {
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
        self.lock().get(row).map_or(0, |flight| flight.requests.len())
    }

    /// The first requests for an image that could not be refined for them. Of those that have come since, it says whether
    /// there are any: they are owed another try.
    pub(super) fn fail(&self, row: RowKey, first: usize) -> (Vec<Request>, bool) {
        match self.lock().entry(row) {
            Entry::Occupied(mut waiting) => {
                let requests = &mut waiting.get_mut().requests;
                let rest = requests.split_off(first.min(requests.len()));
                let failed = std::mem::replace(requests, rest);
                let is_left = !requests.is_empty();
                if !is_left {
                    waiting.remove();
                }
                (failed, is_left)
            }
            Entry::Vacant(_) => (Vec::new(), false),
        }
    }

    /// The requests for an image that is there, and the numbers of the refinements that it is.
    pub(super) fn land(&self, row: &RowKey) -> (Vec<Request>, Vec<usize>) {
        let Flight { numbers, requests } = self.lock().remove(row).unwrap_or_default();
        (requests, numbers)
    }
}

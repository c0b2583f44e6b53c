//! Rows on their way to a disk that may not take them for a while.

mod pending;

use super::{Artifact, Partition, RowKey};
use crate::Error;
use pending::Pending;
use std::sync::Arc;

/// A part of a cache, and the rows that it has not taken yet: while it takes nothing they wait in memory, and the stream
/// goes on.
#[derive(Debug)]
pub(crate) struct Outbox<A: Artifact> {
    disk: Partition<A>,
    pending: Pending<A>,
}

impl<A: Artifact + Clone> Outbox<A> {
    /// Rows of up to `limit` bytes may wait.
    pub(crate) fn new(disk: Partition<A>, limit: usize) -> Self {
        Self { disk, pending: Pending::new(limit) }
    }

    pub(crate) fn disk(&self) -> &Partition<A> {
        &self.disk
    }

    /// Why the disk takes nothing, while it does not.
    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.pending.failure()
    }

    /// The row under `key`, if it waits.
    pub(crate) fn waiting(&self, key: &RowKey) -> Option<A> {
        self.pending.find(key)
    }

    /// Has the disk take `rows` as one part, or else has them wait; returns the keys that another process committed first.
    /// `written` hears of rows that had waited, with the keys among them that another process committed first.
    pub(crate) fn put(
        &self,
        rows: &[A],
        class_names: &[String],
        written: &mut dyn FnMut(&[A], &[RowKey]),
    ) -> Vec<RowKey> {
        let is_free = self.pending.is_due() && self.write_pending(class_names, written);
        is_free.then(|| self.commit(rows, class_names)).flatten().unwrap_or_else(|| {
            self.pending.push(rows);
            Vec::new()
        })
    }

    /// Has the disk take what it has not taken yet, once it was left alone for long enough. To be called now and then,
    /// as nothing may be left to put.
    pub(crate) fn write_pending_if_due(
        &self,
        class_names: &[String],
        written: &mut dyn FnMut(&[A], &[RowKey]),
    ) {
        if self.pending.is_due() {
            self.write_pending(class_names, written);
        }
    }

    /// Has the disk take what it has not taken yet; says whether that is all.
    pub(crate) fn write_pending(
        &self,
        class_names: &[String],
        written: &mut dyn FnMut(&[A], &[RowKey]),
    ) -> bool {
        while let Some(rows) = self.pending.first() {
            let Some(lost) = self.commit(&rows, class_names) else { return false };
            self.pending.pop();
            written(&rows, &lost);
        }
        true
    }

    /// The keys of `rows` that another process committed first; `None` if the disk took nothing.
    fn commit(&self, rows: &[A], class_names: &[String]) -> Option<Vec<RowKey>> {
        match self.disk.commit(rows, class_names) {
            Ok(lost) => {
                self.pending.succeeded();
                Some(lost)
            }
            Err(error) => {
                self.pending.failed(error);
                None
            }
        }
    }
}

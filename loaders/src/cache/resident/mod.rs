//! Refined images at hand: in memory, waiting to be written, and in the cache.

mod memory;

use super::outbox::Outbox;
use super::{ImageRow, Partition, RowKey};
use crate::planes::Planes;
use crate::stats::Counters;
use crate::{Error, Result, RgbImage};
use memory::MemoryCache;
use std::sync::Arc;

/// The refined images of one dataset at the size that its batches have.
#[derive(Debug)]
pub(crate) struct Resident {
    memory: MemoryCache,
    disk: Option<Outbox<ImageRow>>,
    height: usize,
    width: usize,
}

impl Resident {
    /// `memory_limit` is in bytes; while the cache takes nothing, what waits for it may take as much again. Without a
    /// cache, images are kept in memory only.
    pub(crate) fn new(disk: Option<Partition>, memory_limit: usize, (height, width): (usize, usize)) -> Self {
        let disk = disk.map(|disk| Outbox::new(disk, memory_limit));
        Self { memory: MemoryCache::new(memory_limit), disk, height, width }
    }

    /// Looks `key` up, counting a hit where it is found.
    pub(crate) fn find(&self, key: &RowKey, counters: &Counters) -> Result<Option<Arc<Planes>>> {
        if let Some(image) = self.memory.get(key) {
            Counters::add(&counters.memory_hits, 1);
            return Ok(Some(image));
        }
        if let Some(row) = self.waiting(key) {
            Counters::add(&counters.memory_hits, 1);
            return self.remember(*key, &row.image).map(Some);
        }
        let Some(image) = self.disk().map(|disk| disk.get(key)).transpose()?.flatten() else {
            return Ok(None);
        };
        let image = Arc::new(Planes::of(&image, (self.height, self.width))?);
        // Two threads may read the same image at once; the second finds the first one's in memory.
        let is_new = self.memory.insert(*key, Arc::clone(&image));
        Counters::add(if is_new { &counters.disk_hits } else { &counters.memory_hits }, 1);
        Ok(Some(image))
    }

    /// Whether `key` is anywhere.
    pub(crate) fn has(&self, key: &RowKey) -> bool {
        self.memory.get(key).is_some() || self.waiting(key).is_some() || self.contains(key)
    }

    /// Whether `key` is on disk.
    pub(crate) fn contains(&self, key: &RowKey) -> bool {
        self.disk().is_some_and(|disk| disk.contains(key))
    }

    /// Takes note of what other processes have refined meanwhile, if the disk can be read.
    pub(crate) fn refresh(&self) {
        if let Some(disk) = self.disk() {
            disk.try_refresh();
        }
    }

    /// Why the disk takes nothing, while it does not.
    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.disk.as_ref().and_then(Outbox::failure)
    }

    /// The row under `key`, if it waits for the disk.
    fn waiting(&self, key: &RowKey) -> Option<ImageRow> {
        self.disk.as_ref().and_then(|disk| disk.waiting(key))
    }

    /// Keeps freshly refined rows, on disk as one part, and returns their images at the stream's size: those that
    /// another process committed first in place of our own. While the disk takes nothing they wait in memory, and the
    /// stream goes on.
    pub(crate) fn keep(&self, rows: &[ImageRow], class_names: &[String]) -> Result<Vec<Arc<Planes>>> {
        let lost = self.put(rows, class_names);
        self.settle(rows, &lost)
    }

    /// The images of rows, at the stream's size: those that another process committed first in place of our own.
    fn settle(&self, rows: &[ImageRow], lost: &[RowKey]) -> Result<Vec<Arc<Planes>>> {
        rows.iter()
            .map(|row| match self.adopt(&row.key, lost)? {
                Some(theirs) => Ok(theirs),
                None => self.remember(row.key, &row.image),
            })
            .collect()
    }

    /// The images of freshly refined rows at the stream's size, to be served before they are kept: what another process
    /// committed meanwhile comes in place of our own.
    pub(crate) fn serve(&self, rows: &[ImageRow]) -> Result<Vec<Arc<Planes>>> {
        if let Some(disk) = self.disk() {
            disk.try_list();
        }
        let theirs: Vec<RowKey> = rows.iter().map(|row| row.key).filter(|key| self.contains(key)).collect();
        self.settle(rows, &theirs)
    }

    /// As [`keep`](Self::keep), for rows that were [served](Self::serve).
    pub(crate) fn keep_served(&self, rows: &[ImageRow], class_names: &[String]) {
        let lost = self.put(rows, class_names);
        self.written(rows, &lost);
    }

    /// As [`keep`](Self::keep), where nobody asks for the images again as long as there is a disk.
    pub(crate) fn keep_unread(&self, rows: &[ImageRow], class_names: &[String]) -> Result<()> {
        if self.disk.is_some() {
            self.put(rows, class_names);
            return Ok(());
        }
        self.keep(rows, class_names).map(drop)
    }

    /// Has the disk take `rows`, or else has them wait; returns the keys that another process committed first.
    fn put(&self, rows: &[ImageRow], class_names: &[String]) -> Vec<RowKey> {
        let put = |disk: &Outbox<_>| disk.put(rows, class_names, &mut |rows, lost| self.written(rows, lost));
        self.disk.as_ref().map(put).unwrap_or_default()
    }

    /// Has the disk take what it has not taken yet, once it was left alone for long enough. To be called now and then,
    /// as nothing may be left to refine.
    pub(crate) fn write_pending_if_due(&self, class_names: &[String]) {
        if let Some(disk) = &self.disk {
            disk.write_pending_if_due(class_names, &mut |rows, lost| self.written(rows, lost));
        }
    }

    /// Has the disk take what it has not taken yet.
    pub(crate) fn write_pending(&self, class_names: &[String]) {
        if let Some(disk) = &self.disk {
            disk.write_pending(class_names, &mut |rows, lost| self.written(rows, lost));
        }
    }

    /// Rows that had waited are on disk; those that another process committed first are adopted.
    fn written(&self, rows: &[ImageRow], lost: &[RowKey]) {
        for row in rows {
            // What cannot be read is found out when it is asked for.
            let _ = self.adopt(&row.key, lost);
        }
    }

    /// The image that another process committed first, if `key` is among the `lost`: it takes the place of our own.
    fn adopt(&self, key: &RowKey, lost: &[RowKey]) -> Result<Option<Arc<Planes>>> {
        let theirs = match self.disk() {
            Some(disk) if lost.contains(key) => disk.get(key)?,
            _ => None,
        };
        theirs.map(|image| self.remember(*key, &image)).transpose()
    }

    /// Puts an image into memory, at the stream's size.
    fn remember(&self, key: RowKey, image: &RgbImage) -> Result<Arc<Planes>> {
        let image = Arc::new(Planes::of(image, (self.height, self.width))?);
        self.memory.insert(key, Arc::clone(&image));
        Ok(image)
    }

    /// The folder of the refined images, where they are kept on disk.
    pub(crate) fn disk(&self) -> Option<&Partition> {
        self.disk.as_ref().map(Outbox::disk)
    }
}

//! Where refined images are looked for: in memory, then on disk.

use super::stats::Counters;
use crate::cache::{Generation, MemoryCache, Row, RowKey};
use crate::{Cache, Error, Refine, Result, RgbImage};
use std::sync::{Arc, OnceLock};

/// The refined images of one dataset at the size that its batches have.
#[derive(Debug)]
pub(super) struct Store {
    memory: MemoryCache,
    disk: Option<Generation>,
    /// Why a part could not be written: images stay in memory from then on.
    failure: OnceLock<Arc<Error>>,
    height: usize,
    width: usize,
}

impl Store {
    /// `memory_limit` is in bytes. Without a cache, or with a refiner that has no fingerprint, images are kept
    /// in memory only.
    pub(super) fn new(
        cache: Option<&Cache>,
        refiner: Option<&dyn Refine>,
        memory_limit: usize,
        (height, width): (usize, usize),
    ) -> Result<Self> {
        let fingerprint = refiner.and_then(Refine::fingerprint);
        let disk = match (cache, fingerprint) {
            (Some(cache), Some(fingerprint)) => Some(cache.generation(&fingerprint)?),
            (Some(cache), None) if refiner.is_some() => {
                let root = cache.root().display();
                tracing::warn!(
                    "{root}: not used, as the refiner has no fingerprint: its images are kept in memory"
                );
                None
            }
            _ => None,
        };
        Ok(Self { memory: MemoryCache::new(memory_limit), disk, failure: OnceLock::new(), height, width })
    }

    /// Looks `key` up, counting a hit where it is found.
    pub(super) fn find(&self, key: &RowKey, counters: &Counters) -> Result<Option<Arc<RgbImage>>> {
        if let Some(image) = self.memory.get(key) {
            Counters::add(&counters.memory_hits, 1);
            return Ok(Some(image));
        }
        let Some(image) = self.disk.as_ref().map(|disk| disk.get(key)).transpose()?.flatten() else {
            return Ok(None);
        };
        let image = Arc::new(image.resized(self.width, self.height)?);
        // Two threads may read the same image at once; the second finds the first one's in memory.
        let is_new = self.memory.insert(*key, Arc::clone(&image));
        Counters::add(if is_new { &counters.disk_hits } else { &counters.memory_hits }, 1);
        Ok(Some(image))
    }

    /// Whether `key` is on disk.
    pub(super) fn contains(&self, key: &RowKey) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.contains(key))
    }

    /// Takes note of what other processes have refined meanwhile.
    pub(super) fn refresh(&self) -> Result<()> {
        self.disk.as_ref().map_or(Ok(()), Generation::refresh)
    }

    /// What ended the caching on disk, if anything did.
    pub(super) fn failure(&self) -> Option<&Arc<Error>> {
        self.failure.get()
    }

    /// Keeps freshly refined rows, on disk as one part, and returns their images at the stream's size: those that
    /// another process committed first in place of our own. A disk that takes no more ends the caching, not the
    /// stream.
    pub(super) fn keep(&self, rows: &[Row], class_names: &[String]) -> Result<Vec<Arc<RgbImage>>> {
        let disk = self.disk.as_ref().filter(|_| self.failure().is_none());
        let lost = match disk.map(|disk| disk.commit(rows, class_names)).transpose() {
            Ok(lost) => lost.unwrap_or_default(),
            Err(error) => {
                tracing::warn!("{error}; refined images are kept in memory only from here on");
                self.failure.get_or_init(|| Arc::new(error));
                Vec::new()
            }
        };
        rows.iter()
            .map(|row| {
                let theirs = match disk.filter(|_| lost.contains(&row.key)) {
                    Some(disk) => disk.get(&row.key)?,
                    None => None,
                };
                let image = theirs.as_ref().unwrap_or(&row.image);
                let image = Arc::new(image.resized(self.width, self.height)?);
                self.memory.insert(row.key, Arc::clone(&image));
                Ok(image)
            })
            .collect()
    }

    /// The folder of the refined images, where they are kept on disk.
    pub(super) fn disk(&self) -> Option<&Generation> {
        self.disk.as_ref()
    }
}

//! Decoded images in memory.

use crate::cache::RowKey;
use crate::planes::Planes;
use lru::LruCache;
use std::sync::{Arc, Mutex, PoisonError};

/// The most recently used images, as many as fit into a bound of bytes.
#[derive(Debug)]
pub(super) struct MemoryCache {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    images: LruCache<RowKey, Arc<Planes>>,
    bytes: usize,
}

impl MemoryCache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::new(State { images: LruCache::unbounded(), bytes: 0 }) }
    }

    pub(super) fn get(&self, key: &RowKey) -> Option<Arc<Planes>> {
        self.lock().images.get(key).cloned()
    }

    /// Keeps `image`, dropping the least recently used ones to stay within the bound. An image larger than the
    /// bound is not kept. Says whether the image was new.
    pub(super) fn insert(&self, key: RowKey, image: Arc<Planes>) -> bool {
        let size = image.len();
        if size > self.limit {
            return true;
        }
        let mut state = self.lock();
        let old = state.images.put(key, image);
        state.bytes -= old.as_ref().map_or(0, |old| old.len());
        state.bytes += size;
        while state.bytes > self.limit {
            let Some((_, dropped)) = state.images.pop_lru() else { break };
            state.bytes -= dropped.len();
        }
        old.is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every update leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, RgbImage};

    #[test]
    fn the_least_recently_used_images_leave_first() {
        let key = |n: u8| RowKey::from(Digest::of(&[n]));
        let image = |width| Arc::new(Planes::from(&RgbImage::new(width, 1, vec![0; width * 3]).unwrap()));
        let cache = MemoryCache::new(12);
        cache.insert(key(0), image(2));
        cache.insert(key(1), image(2));
        cache.get(&key(0));
        cache.insert(key(2), image(2));
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(2)).is_some());
        assert!(cache.get(&key(1)).is_none());

        cache.insert(key(3), image(5));
        assert!(cache.get(&key(3)).is_none(), "an image over the bound is not kept");
        assert!(cache.get(&key(2)).is_some(), "and displaces nothing");
    }
}

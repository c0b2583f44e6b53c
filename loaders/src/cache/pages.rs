//! What it takes to read rows of the parts that were read last.

use super::part::Rows;
use lru::LruCache;

/// How many rows, in all, may have the places of their pages and their digests kept in memory: about 400 bytes each.
const MOST_ROWS: usize = 1 << 16;

/// Where the pages of the parts are that were read last.
#[derive(Debug)]
pub(super) struct Pages {
    parts: LruCache<u32, Rows>,
    rows: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self { parts: LruCache::unbounded(), rows: 0 }
    }
}

impl Pages {
    pub(super) fn get(&mut self, part: u32) -> Option<Rows> {
        self.parts.get(&part).cloned()
    }

    pub(super) fn insert(&mut self, part: u32, pages: Rows) {
        self.rows += pages.count();
        if let Some(old) = self.parts.put(part, pages) {
            self.rows -= old.count();
        }
        while self.rows > MOST_ROWS && self.parts.len() > 1 {
            let Some((_, dropped)) = self.parts.pop_lru() else { break };
            self.rows -= dropped.count();
        }
    }

    pub(super) fn remove(&mut self, part: u32) {
        if let Some(old) = self.parts.pop(&part) {
            self.rows -= old.count();
        }
    }
}

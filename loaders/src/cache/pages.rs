//! Where the pages of parts are.

use lru::LruCache;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

/// How many rows, in all, may have the places of their pages kept in memory: about 1 KB each.
const MOST_PAGES: usize = 1 << 14;

/// Where the pages of the parts are that were read last.
#[derive(Debug)]
pub(super) struct Pages {
    parts: LruCache<u32, ArrowReaderMetadata>,
    rows: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self { parts: LruCache::unbounded(), rows: 0 }
    }
}

impl Pages {
    pub(super) fn get(&mut self, part: u32) -> Option<ArrowReaderMetadata> {
        self.parts.get(&part).cloned()
    }

    pub(super) fn insert(&mut self, part: u32, pages: ArrowReaderMetadata) {
        self.rows += rows(&pages);
        if let Some(old) = self.parts.put(part, pages) {
            self.rows -= rows(&old);
        }
        while self.rows > MOST_PAGES && self.parts.len() > 1 {
            let Some((_, dropped)) = self.parts.pop_lru() else { break };
            self.rows -= rows(&dropped);
        }
    }

    pub(super) fn remove(&mut self, part: u32) {
        if let Some(old) = self.parts.pop(&part) {
            self.rows -= rows(&old);
        }
    }
}

fn rows(pages: &ArrowReaderMetadata) -> usize {
    usize::try_from(pages.metadata().file_metadata().num_rows()).unwrap_or_default()
}

//! One column of several files, read a block at a time.

use crate::source::containers::table::{ColumnPath, TableFile};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef};
use lru::LruCache;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The most bytes of decoded images that are kept.
const MOST_IN_MEMORY: usize = 1 << 28;

/// A column of the files of a set. Blocks that were read are kept, the most recently used, within a bound of bytes.
///
/// A set that fits into the bound is decoded once. Of a larger one, shuffled, each sample costs the decoding of its
/// block: a page of Parquet, a compressed record batch of Arrow. Rows that can be read alone are not kept.
#[derive(Debug)]
pub(super) struct Blocks {
    files: Vec<(Box<dyn TableFile>, ColumnPath)>,
    /// The first row of each file, and, in the end, the number of rows.
    starts: Vec<usize>,
    kept: Mutex<Kept>,
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    /// By file and first row; with the size of those that were read.
    blocks: LruCache<(usize, usize), (Arc<Block>, usize)>,
    bytes: usize,
}

/// A block, locked while it is read: whoever wants it meanwhile waits for it.
#[derive(Debug)]
struct Block {
    /// The process whose threads read it.
    process: u32,
    read: Mutex<Option<ArrayRef>>,
}

impl Block {
    fn new() -> Self {
        Self { process: process::id(), read: Mutex::new(None) }
    }

    /// Whether it was locked by a thread that is not in this process, which was forked meanwhile: nobody unlocks it.
    fn is_abandoned(&self) -> bool {
        self.process != process::id() && matches!(self.read.try_lock(), Err(TryLockError::WouldBlock))
    }
}

/// A row in a block.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) block: ArrayRef,
    pub(super) at: usize,
}

impl Blocks {
    pub(super) fn new(files: Vec<(Box<dyn TableFile>, ColumnPath)>) -> Self {
        let mut starts = vec![0];
        for (file, _) in &files {
            starts.push(starts[starts.len() - 1] + file.rows());
        }
        let kept = Mutex::new(Kept { blocks: LruCache::unbounded(), bytes: 0 });
        Self { files, starts, kept, limit: MOST_IN_MEMORY }
    }

    /// The file with a row, and the row's place in it.
    fn find(&self, row: usize) -> (usize, usize) {
        let file = self.starts.partition_point(|start| *start <= row) - 1;
        (file, row - self.starts[file])
    }

    /// Reads a row, which exists.
    ///
    /// # Errors
    /// If its file is damaged or was changed.
    pub(super) fn row(&self, row: usize) -> Result<Row> {
        let (place, row) = self.find(row);
        let (file, column) = &self.files[place];
        let rows = file.block(*column, row)?;
        let at = row - rows.start;
        if rows.len() == 1 {
            return Ok(Row { block: file.read(*column, rows)?, at });
        }
        let key = (place, rows.start);
        let block = self.wanted(key);
        let mut read = block.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = &*read {
            return Ok(Row { block: Arc::clone(block), at });
        }
        let found = file.read(*column, rows)?;
        *read = Some(Arc::clone(&found));
        self.keep(key, &block, &found);
        Ok(Row { block: found, at })
    }

    /// The block of a file and first row, to be read if it is not there yet.
    fn wanted(&self, key: (usize, usize)) -> Arc<Block> {
        let mut kept = self.lock();
        let (block, _) = kept.blocks.get_or_insert_mut(key, || (Arc::new(Block::new()), 0));
        if block.is_abandoned() {
            *block = Arc::new(Block::new());
        }
        Arc::clone(block)
    }

    /// Counts a block that was read, and lets go of the least recently used ones beyond the bound.
    fn keep(&self, key: (usize, usize), block: &Arc<Block>, read: &ArrayRef) {
        let size = read.to_data().get_slice_memory_size().unwrap_or(self.limit);
        let mut kept = self.lock();
        match kept.blocks.peek_mut(&key) {
            Some((known, counted)) if Arc::ptr_eq(known, block) => *counted = size,
            // It was let go of while it was read.
            _ => return,
        }
        kept.bytes += size;
        while kept.bytes > self.limit && kept.blocks.len() > 1 {
            let Some((_, (_, dropped))) = kept.blocks.pop_lru() else { break };
            kept.bytes -= dropped;
        }
    }

    /// The error for a row.
    pub(super) fn refused(&self, row: usize, reason: String) -> Error {
        let (file, row) = self.find(row);
        Error::sample(self.files[file].0.path(), row, reason)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every update leaves it whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{Int64Type, SchemaRef};
    use std::ops::Range;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Rows that are their own number, in blocks of ten.
    #[derive(Debug, Default)]
    struct Numbers(Arc<AtomicUsize>);

    impl TableFile for Numbers {
        fn path(&self) -> &Path {
            Path::new("numbers")
        }

        fn schema(&self) -> &SchemaRef {
            unimplemented!("the column is known")
        }

        fn rows(&self) -> usize {
            95
        }

        fn scan(&self, _: &[usize], _: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
            Ok(())
        }

        fn block(&self, _: ColumnPath, row: usize) -> Result<Range<usize>> {
            let first = row / 10 * 10;
            Ok(first..(first + 10).min(95))
        }

        fn read(&self, _: ColumnPath, rows: Range<usize>) -> Result<ArrayRef> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(Int64Array::from_iter_values(rows.map(|row| row as i64))))
        }
    }

    /// Twice the numbers, and how often a block was read.
    fn numbers() -> (Blocks, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let files = (0..2).map(|_| {
            let file: Box<dyn TableFile> = Box::new(Numbers(Arc::clone(&reads)));
            (file, ColumnPath { column: 0, field: None })
        });
        (Blocks::new(files.collect()), reads)
    }

    #[test]
    fn a_block_that_another_process_was_reading_is_read_anew() {
        let (blocks, reads) = numbers();
        let block = Arc::new(Block { process: process::id() + 1, read: Mutex::new(None) });
        blocks.lock().blocks.put((0, 10), (Arc::clone(&block), 0));
        let _parent = block.read.lock().unwrap();
        for index in 10..20 {
            assert_eq!(blocks.row(index).unwrap().at, index - 10);
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert_eq!(blocks.lock().bytes, 80);
    }

    #[test]
    fn blocks_are_read_once_as_long_as_they_fit() {
        let (mut blocks, reads) = numbers();
        let read = |blocks: &Blocks, index: usize| {
            let row = blocks.row(index).unwrap();
            assert_eq!(row.block.as_primitive::<Int64Type>().value(row.at), (index % 95) as i64);
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (blocks, read) = (&blocks, &read);
                scope.spawn(move || (0..190).for_each(|index| read(blocks, (index * 7 + thread) % 190)));
            }
        });
        assert_eq!(reads.load(Ordering::SeqCst), 20, "each block once, whoever asks");
        assert_eq!(blocks.lock().bytes, 2 * 95 * 8);

        blocks = Blocks::new(blocks.files);
        blocks.limit = 3 * 80;
        (0..190).rev().for_each(|index| read(&blocks, index));
        assert_eq!(reads.load(Ordering::SeqCst), 40);
        assert!(blocks.lock().bytes <= 3 * 80 && blocks.lock().blocks.len() == 3);
        read(&blocks, 0);
        assert_eq!(reads.load(Ordering::SeqCst), 40, "the last three are there");
        read(&blocks, 189);
        assert_eq!(reads.load(Ordering::SeqCst), 41, "the first is not");
        assert!(blocks.refused(96, "x".into()).to_string().starts_with("numbers: sample 1: x"));
    }
}

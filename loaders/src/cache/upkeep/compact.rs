//! Gathering many small parts in few large ones.
//!
//! A gathered part is committed as any other, under a new number, before those are deleted that it was made of: whatever
//! dies at whatever moment, every row is in some part. Two processes that gather the same parts write them twice, and
//! lose nothing. Rows remember the part that they were first committed in, so that of two rows with one key the first
//! committed still counts.

use crate::cache::part::{self, Opened, Part};
use crate::cache::partition::number;
use crate::cache::{Artifact, Partition, RowKey};
use crate::{CancelToken, Error, Result};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// A part of at least so many bytes is large enough, and so many bytes make one.
const LARGE: u64 = 32 << 20;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Parts that were gathered, and are gone.
    pub gathered: usize,
    /// Parts that they became.
    pub into: usize,
    /// Rows in these.
    pub rows: usize,
}

/// Parts on their way into one.
#[derive(Default)]
struct Heap {
    tables: Vec<RecordBatch>,
    keys: Vec<RowKey>,
    orders: Vec<u32>,
    parts: Vec<u32>,
    bytes: u64,
}

/// What is there when a compaction begins.
struct There {
    parts: Vec<(u32, Part)>,
    /// By key, the order of the row that counts.
    first: HashMap<RowKey, u32>,
}

impl<A: Artifact> Partition<A> {
    /// Gathers small parts in large ones, while others read and write.
    ///
    /// A row is left out only if one of its key was committed before it, or is gathered in the same compaction. Gathering
    /// does not change when a row was committed: of any rows with one key, those that were committed first are left out
    /// by nobody.
    ///
    /// # Errors
    /// As [`crate::Cache::compact`].
    pub fn compact(&self, cancel: &CancelToken) -> Result<Compacted> {
        let There { parts, first } = self.look()?;
        let (mut done, mut heap, mut seen) = (Compacted::default(), Heap::default(), HashSet::new());
        for (number, known) in parts {
            cancel.check()?;
            let name = self.part_name(number);
            let Some(stat) = self.store().stat(&name)? else { continue };
            if stat.size >= LARGE {
                continue;
            }
            let whole = match part::whole::<A>(self.store(), &name) {
                // Another part has its number by now: what there was to know of it is not known.
                Ok(whole) if whole.part != known => continue,
                Ok(whole) => whole,
                // Damage must not be carried on under a new name.
                Err(error) => {
                    self.give_up(number, error)?;
                    continue;
                }
            };
            let differs =
                |table: &RecordBatch| heap.tables.first().is_some_and(|one| one.schema() != table.schema());
            if whole.tables.first().is_some_and(differs) || heap.bytes >= LARGE {
                // Columns may be others, as of another version.
                self.commit_heap(std::mem::take(&mut heap), &mut done)?;
            }
            let is_first = |row: usize, key: &RowKey| first.get(key) == Some(&known.order(row, number));
            let counts: Vec<bool> = known
                .keys
                .iter()
                .enumerate()
                .map(|(row, key)| is_first(row, key) && seen.insert(*key))
                .collect();
            let mut at = 0;
            for table in &whole.tables {
                let kept = BooleanArray::from(counts[at..at + table.num_rows()].to_vec());
                let kept = filter_record_batch(table, &kept).map_err(|e| self.refused(&e))?;
                heap.tables.push(kept);
                at += table.num_rows();
            }
            for (row, key) in known.keys.iter().enumerate().filter(|(row, _)| counts[*row]) {
                heap.keys.push(*key);
                heap.orders.push(known.order(row, number));
            }
            heap.parts.push(number);
            heap.bytes += stat.size;
        }
        self.commit_heap(heap, &mut done)?;
        Ok(done)
    }

    /// Opens every part anew: what this process knew of a part may be of another one that had its number.
    fn look(&self) -> Result<There> {
        let mut parts = Vec::new();
        let mut first: HashMap<RowKey, u32> = HashMap::new();
        let names = self.store().list(self.folder())?;
        let mut numbers: Vec<u32> = names
            .iter()
            .filter_map(|name| number(name))
            .filter(|(_, is_used)| *is_used)
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            // What is damaged or gone is for readers to find.
            if let Ok(Opened::Part(part)) = part::open(self.store(), &self.part_name(number)) {
                for (row, key) in part.keys.iter().enumerate() {
                    let order = part.order(row, number);
                    first.entry(*key).and_modify(|known| *known = order.min(*known)).or_insert(order);
                }
                parts.push((number, part));
            }
        }
        Ok(There { parts, first })
    }

    /// Commits a heap as a part, and deletes those that it was made of.
    fn commit_heap(&self, heap: Heap, done: &mut Compacted) -> Result<()> {
        if heap.parts.len() < 2 {
            return Ok(());
        }
        if let Some(table) = heap.tables.first().filter(|_| !heap.keys.is_empty()) {
            let table = concat_batches(&table.schema(), &heap.tables).map_err(|e| self.refused(&e))?;
            let bytes = part::write(&table, &heap.keys, &heap.orders)?;
            let rows = heap.keys.len();
            self.commit_bytes(&bytes, Part { keys: heap.keys, orders: Some(heap.orders) })?;
            done.into += 1;
            done.rows += rows;
        }
        self.tell_gathered()?;
        for number in heap.parts {
            self.store().delete(&self.part_name(number))?;
            self.forget(number);
            done.gathered += 1;
        }
        Ok(())
    }

    fn refused(&self, reason: &ArrowError) -> Error {
        Error::format(&self.path(), format!("cannot gather its parts: {reason}"))
    }
}

//! Which part has the row of a key.

use super::RowKey;
use super::part::Part;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where a row is: 8 bytes, as there is one for each row of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) part: u32,
    pub(super) row: u32,
}

/// The rows of the parts that are known. Of rows with one key, the one that was committed first counts.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: HashMap<RowKey, Location>,
    parts: BTreeMap<u32, Known>,
    /// Rows whose key another part had first: they count should it go.
    spare: Vec<(RowKey, Location)>,
    /// Parts that cannot be used and are not looked at again.
    skipped: BTreeSet<u32>,
    /// The greatest number that was ever seen.
    last: Option<u32>,
}

#[derive(Debug)]
struct Known {
    /// The numbers of the parts in which its rows were first committed, if that is not this one.
    orders: Option<Box<[u32]>>,
}

impl Index {
    /// Number of rows, each key once.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn contains(&self, key: &RowKey) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn find(&self, key: &RowKey) -> Option<Location> {
        self.rows.get(key).copied()
    }

    /// Whether a part was looked at.
    pub(super) fn knows(&self, number: u32) -> bool {
        self.parts.contains_key(&number) || self.skipped.contains(&number)
    }

    /// The numbers of the parts in use, ascending.
    pub(super) fn parts(&self) -> impl Iterator<Item = u32> {
        self.parts.keys().copied()
    }

    /// Number of parts that are as they were committed.
    pub(super) fn fresh(&self) -> usize {
        self.parts.values().filter(|part| part.orders.is_none()).count()
    }

    /// The numbers of the parts that cannot be used.
    pub(super) fn skipped(&self) -> impl Iterator<Item = u32> {
        self.skipped.iter().copied()
    }

    /// The number after every one that was ever seen.
    pub(super) fn next(&self) -> u32 {
        self.last.map_or(0, |last| last.saturating_add(1))
    }

    /// Takes note that a number is taken.
    pub(super) fn take(&mut self, number: u32) {
        self.last = self.last.max(Some(number));
    }

    /// The number of the part in which a row was first committed.
    pub(super) fn order(&self, location: Location) -> u32 {
        let orders = self.parts.get(&location.part).and_then(|known| known.orders.as_ref());
        orders.and_then(|orders| orders.get(location.row as usize).copied()).unwrap_or(location.part)
    }

    pub(super) fn add(&mut self, number: u32, part: Part) {
        self.take(number);
        let Part { keys, orders } = part;
        let rows = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.parts.insert(number, Known { orders: orders.map(Vec::into_boxed_slice) });
        self.rows.reserve(keys.len());
        for (row, key) in (0..rows).zip(keys) {
            self.add_row(key, Location { part: number, row });
        }
    }

    fn add_row(&mut self, key: RowKey, location: Location) {
        let order = (self.order(location), location.part);
        let known = match self.rows.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(location);
                return;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        if order < (self.order(known), known.part) {
            self.rows.insert(key, location);
            self.spare.push((key, known));
        } else {
            self.spare.push((key, location));
        }
    }

    /// Forgets a part. Rows of its keys that other parts have count from now on.
    pub(super) fn remove(&mut self, number: u32) {
        if self.parts.remove(&number).is_none() {
            return;
        }
        self.rows.retain(|_, location| location.part != number);
        let spare = std::mem::take(&mut self.spare);
        for (key, location) in spare.into_iter().filter(|(_, location)| location.part != number) {
            self.add_row(key, location);
        }
    }

    /// Leaves a part alone from now on.
    pub(super) fn skip(&mut self, number: u32) {
        self.remove(number);
        self.take(number);
        self.skipped.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn key(n: u8) -> RowKey {
        RowKey::from(Digest::of(&[n]))
    }

    fn part(keys: &[u8], orders: Option<&[u32]>) -> Part {
        Part { keys: keys.iter().map(|n| key(*n)).collect(), orders: orders.map(<[u32]>::to_vec) }
    }

    #[test]
    fn the_first_committed_row_counts_in_whatever_order_parts_are_seen() {
        let mut index = Index::default();
        index.add(5, part(&[1, 2], None));
        index.add(3, part(&[2, 3], None));
        assert_eq!(index.find(&key(2)), Some(Location { part: 3, row: 0 }));
        assert_eq!((index.len(), index.next()), (3, 6));
        // A part that others were gathered in.
        index.add(9, part(&[1, 4], Some(&[2, 6])));
        assert_eq!(index.find(&key(1)), Some(Location { part: 9, row: 0 }));
        index.remove(9);
        assert_eq!(index.find(&key(1)), Some(Location { part: 5, row: 0 }));
        assert!(!index.contains(&key(4)));
        index.skip(3);
        assert_eq!(index.find(&key(2)), Some(Location { part: 5, row: 1 }));
        assert!(index.knows(3) && !index.knows(9) && index.next() == 10);
        assert_eq!(index.parts().collect::<Vec<_>>(), [5]);
    }
}

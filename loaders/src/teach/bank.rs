//! A teacher's logits at hand: in memory and in the cache.

use crate::cache::{Artifact as _, LogitForm, LogitRow, Outbox, Partition, RowKey};
use crate::{Error, Result};
use lru::LruCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rows that are written at once: a part of a few would be slow to read.
const ROWS: usize = 1024;
/// How long rows wait at most for others, as long as more come.
const WAIT: Duration = Duration::from_secs(5);

/// The logits of one teacher for views that one recipe makes.
#[derive(Debug)]
pub(crate) struct Bank {
    form: LogitForm,
    /// Bytes of logits that may stay in memory.
    limit: usize,
    memory: Mutex<Memory>,
    disk: Option<Outbox<LogitRow>>,
    fresh: Mutex<Fresh>,
}

#[derive(Debug)]
struct Memory {
    logits: LruCache<RowKey, Arc<[f32]>>,
    bytes: usize,
}

/// What is to be the next part on disk.
#[derive(Debug)]
struct Fresh {
    rows: Vec<LogitRow>,
    since: Instant,
}

impl Bank {
    /// Up to `limit` bytes of logits may stay in memory; while the cache takes nothing, what waits for it may take as much
    /// again.
    pub(crate) fn new(disk: Option<Partition<LogitRow>>, form: LogitForm, limit: usize) -> Self {
        Self {
            form,
            limit,
            memory: Mutex::new(Memory { logits: LruCache::unbounded(), bytes: 0 }),
            disk: disk.map(|disk| Outbox::new(disk, limit)),
            fresh: Mutex::new(Fresh { rows: Vec::new(), since: Instant::now() }),
        }
    }

    /// The logits under `key`, if they are anywhere.
    ///
    /// # Errors
    /// If the cache cannot be read.
    pub(crate) fn find(&self, key: &RowKey) -> Result<Option<Arc<[f32]>>> {
        if let Some(logits) = self.memory().logits.get(key) {
            return Ok(Some(Arc::clone(logits)));
        }
        let Some(disk) = &self.disk else { return Ok(None) };
        let fresh = self.fresh().rows.iter().find(|row| row.key() == *key).map(LogitRow::logits);
        let unwritten = fresh.or_else(|| disk.waiting(key).map(|row| row.logits()));
        let Some(logits) = unwritten.map_or_else(|| disk.disk().get(key), |logits| Ok(Some(logits)))? else {
            return Ok(None);
        };
        let logits: Arc<[f32]> = logits.into();
        self.remember(*key, &logits);
        Ok(Some(logits))
    }

    /// Why the disk takes nothing, while it does not.
    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.disk.as_ref().and_then(Outbox::failure)
    }

    /// Keeps new logits, of an image of class `label`, and returns them as they are read again. They are on disk once
    /// enough of them are there, or after a while.
    ///
    /// # Errors
    /// If they are not finite in the form that they are stored in.
    pub(crate) fn keep(&self, key: RowKey, label: usize, logits: &[f32]) -> Result<Arc<[f32]>> {
        let row = LogitRow::new(key, label, logits, self.form)?;
        let logits: Arc<[f32]> = row.logits().into();
        self.remember(key, &logits);
        if self.disk.is_some() {
            let mut fresh = self.fresh();
            if fresh.rows.is_empty() {
                fresh.since = Instant::now();
            }
            fresh.rows.push(row);
            let is_due = fresh.rows.len() >= ROWS || fresh.since.elapsed() >= WAIT;
            drop(fresh);
            if is_due {
                self.flush();
            }
        }
        Ok(logits)
    }

    /// Has the disk take what it has not taken yet. What it does not take waits.
    pub(crate) fn flush(&self) {
        let Some(disk) = &self.disk else { return };
        // Until they are on disk, or wait for it, they are found here.
        let rows = self.fresh().rows.clone();
        if rows.is_empty() {
            return disk.write_pending_if_due(&[], &mut |_, _| {});
        }
        disk.put(&rows, &[], &mut |_, _| {});
        self.fresh().rows.drain(..rows.len());
    }

    fn remember(&self, key: RowKey, logits: &Arc<[f32]>) {
        let size = |logits: &Arc<[f32]>| size_of_val(&**logits);
        let mut memory = self.memory();
        let old = memory.logits.put(key, Arc::clone(logits));
        memory.bytes = memory.bytes + size(logits) - old.as_ref().map_or(0, size);
        // The last one stays, so that whoever waits for it finds it.
        while memory.bytes > self.limit && memory.logits.len() > 1 {
            let Some((_, dropped)) = memory.logits.pop_lru() else { break };
            memory.bytes -= size(&dropped);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every update leaves it whole, so a panic elsewhere does not spoil it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        // As the memory.
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.flush();
        if let Some(disk) = &self.disk {
            // For the last time.
            disk.write_pending(&[], &mut |_, _| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::MemoryStore;
    use crate::{Cache, Digest};

    fn key(n: u8) -> RowKey {
        LogitRow::key_of(Digest::of(&[n]), 0)
    }

    #[test]
    fn logits_are_found_again_in_the_form_that_they_are_stored_in() {
        let cache = Cache::on(MemoryStore::new());
        let open = || cache.logits(&serde_json::json!({ "teacher": "test" })).unwrap();
        let form = LogitForm { half: true, top_k: None };
        let bank = Bank::new(Some(open()), form, 8);
        assert!(bank.find(&key(0)).unwrap().is_none());
        let kept = bank.keep(key(0), 1, &[0.1, 2.0]).unwrap();
        assert_eq!(kept[0], half::f16::from_f32(0.1).to_f32());
        assert_eq!(bank.find(&key(0)).unwrap(), Some(Arc::clone(&kept)));
        // Memory has no room for both, and the first is not on disk yet.
        bank.keep(key(1), 1, &[3.0, 2.0]).unwrap();
        assert_eq!(bank.find(&key(0)).unwrap(), Some(Arc::clone(&kept)));
        drop(bank);
        assert_eq!(Bank::new(Some(open()), form, 0).find(&key(0)).unwrap(), Some(kept));
    }

    #[test]
    fn memory_is_bounded() {
        let bank = Bank::new(None, LogitForm::default(), 16);
        for n in 0..3 {
            bank.keep(key(n), 0, &[0.0, 1.0]).unwrap();
        }
        assert_eq!([0, 1, 2].map(|n| bank.find(&key(n)).unwrap().is_some()), [false, true, true]);
    }
}

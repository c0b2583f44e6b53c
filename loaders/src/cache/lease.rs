//! Who is working on which rows, so that no two processes make the same.
//!
//! A lease is a file of its own, `lease-<random>.json`, beside the partition. It names keys, and its holder rewrites it
//! every few seconds with a higher `beat`. Whoever finds a lease takes its holder for alive until the beat has stood
//! still for [`Leases::expiry`] by the finder's own clock: no clocks are compared.
//!
//! To claim keys, a process writes its lease and then lists all of them. Of two that claim one key, at least the later
//! sees the other's lease, as it is listed after both were written; whoever sees one gives the key up. Both may: then
//! they try again after a moment, each after another one.

use super::RowKey;
use super::store::PartStore;
use crate::{CancelToken, Result};
use crossbeam::channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A holder renews its lease so many times before it expires.
const RENEWALS: u32 = 5;

/// The leases of one partition.
#[derive(Debug)]
pub(crate) struct Leases {
    store: Arc<dyn PartStore>,
    folder: String,
    expiry: Duration,
    /// By file: the beat that was seen last, and when it was first seen.
    seen: Mutex<HashMap<String, (u64, Instant)>>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    holder: String,
    beat: u64,
    keys: Vec<RowKey>,
}

impl Leases {
    pub(super) fn new(store: Arc<dyn PartStore>, partition: &str, expiry: Duration) -> Self {
        Self { store, folder: folder(partition), expiry, seen: Mutex::default() }
    }

    /// Claims at most so many of `keys`, in their order, on which nobody is working. `is_done` says which keys are
    /// committed: leases of nothing else are deleted.
    ///
    /// # Errors
    /// If the store cannot be listed or written.
    pub(crate) fn claim(
        &self,
        keys: &[RowKey],
        at_most: usize,
        is_done: &dyn Fn(&RowKey) -> bool,
    ) -> Result<Lease> {
        let taken = self.taken(None, is_done)?;
        let free: Vec<RowKey> =
            keys.iter().filter(|key| !taken.contains(key)).take(at_most).copied().collect();
        if free.is_empty() {
            return Ok(Lease::default());
        }
        self.store.make_folder(&self.folder)?;
        let file = format!("lease-{}.json", unique());
        let name = format!("{}/{file}", self.folder);
        let lease = self.settle(&file, &name, free);
        if !lease.as_ref().is_ok_and(|lease| lease.renewal.is_some()) {
            // Nobody may wait for what is not begun.
            let _ = self.store.delete(&name);
            let _ = self.store.delete_folder(&self.folder);
        }
        lease
    }

    /// Writes the lease `file` of the keys `free`, and keeps those that nobody else claims.
    fn settle(&self, file: &str, name: &str, free: Vec<RowKey>) -> Result<Lease> {
        write(&*self.store, name, 0, &free)?;
        let contested = self.taken(Some(file), &|_| false)?;
        let kept: Vec<RowKey> = free.iter().filter(|key| !contested.contains(key)).copied().collect();
        if kept.is_empty() {
            return Ok(Lease::default());
        }
        if kept.len() < free.len() {
            write(&*self.store, name, 1, &kept)?;
        }
        let renewal = Renewal::start(Arc::clone(&self.store), name.to_owned(), kept.clone(), self.expiry)?;
        Ok(Lease { keys: kept, renewal: Some(renewal) })
    }

    /// Deletes leases of nothing but committed keys, for which nobody has to wait: their holders died, or are about to
    /// give them back. To be called when work ends.
    pub(crate) fn tidy(&self, is_done: &dyn Fn(&RowKey) -> bool) {
        // What stays is for the next one.
        let _ = self.taken(None, is_done);
        let _ = self.store.delete_folder(&self.folder);
    }

    /// The keys on which others than the holder of the lease `own` are working.
    fn taken(&self, own: Option<&str>, is_done: &dyn Fn(&RowKey) -> bool) -> Result<HashSet<RowKey>> {
        let mut taken = HashSet::new();
        let mut there = HashSet::new();
        for file in self.store.list(&self.folder)? {
            let name = format!("{}/{file}", self.folder);
            if own == Some(file.as_str()) {
                continue;
            }
            // What is gone meanwhile, or is no lease, holds nothing.
            let Some(lease) = self.store.get(&name).ok().and_then(|bytes| parse(&bytes)) else { continue };
            if self.is_alive(&file, lease.beat) && !lease.keys.iter().all(is_done) {
                taken.extend(lease.keys);
            } else {
                // Its holder died, or has no more to do. Someone else may have been faster.
                let _ = self.store.delete(&name);
            }
            there.insert(file);
        }
        self.seen().retain(|file, _| there.contains(file));
        Ok(taken)
    }

    fn is_alive(&self, file: &str, beat: u64) -> bool {
        let now = Instant::now();
        let mut seen = self.seen();
        let (last, since) = seen.entry(file.to_owned()).or_insert((beat, now));
        if *last != beat {
            (*last, *since) = (beat, now);
        }
        now.duration_since(*since) < self.expiry
    }

    /// Whether anybody is working on rows of the partition. Watches leases for as long as it takes to tell.
    ///
    /// # Errors
    /// If the store cannot be listed; [`Error::Cancelled`].
    pub(super) fn is_anyone_working(&self, cancel: &CancelToken) -> Result<bool> {
        let beats = || -> Result<HashMap<String, u64>> {
            let mut beats = HashMap::new();
            for file in self.store.list(&self.folder)? {
                let bytes = self.store.get(&format!("{}/{file}", self.folder));
                if let Some(lease) = bytes.ok().and_then(|bytes| parse(&bytes)) {
                    beats.insert(file, lease.beat);
                }
            }
            Ok(beats)
        };
        let first = beats()?;
        let started = Instant::now();
        while !first.is_empty() && started.elapsed() < self.expiry {
            cancel.check()?;
            std::thread::sleep(self.expiry / (4 * RENEWALS));
            let now = beats()?;
            // A new beat, or a lease that is given back or taken, is a sign of life.
            if now.len() != first.len() || first.iter().any(|(file, beat)| now.get(file) != Some(beat)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, Instant)>> {
        // Every update leaves the map whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a partition's leases.
pub(super) fn folder(partition: &str) -> String {
    format!("{partition}-leases")
}

/// A name that nothing else has: neither of this process, nor of another, here or elsewhere.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let state = std::collections::hash_map::RandomState::new();
    let random = std::hash::BuildHasher::hash_one(&state, (std::process::id(), count, Instant::now()));
    format!("{random:016x}{count:x}")
}

fn write(store: &dyn PartStore, name: &str, beat: u64, keys: &[RowKey]) -> Result<()> {
    let holder = format!("process {}", std::process::id());
    let lease = serde_json::to_vec(&Written { holder, beat, keys: keys.to_vec() });
    store.put(name, &lease.unwrap_or_default())
}

fn parse(bytes: &[u8]) -> Option<Written> {
    serde_json::from_slice(bytes).ok()
}

/// Keys that this process alone is working on, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    keys: Vec<RowKey>,
    renewal: Option<Renewal>,
}

impl Lease {
    pub(crate) fn holds(&self, key: &RowKey) -> bool {
        self.keys.contains(key)
    }
}

/// The thread that renews a lease, and gives it back in the end.
#[derive(Debug)]
struct Renewal {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    fn start(store: Arc<dyn PartStore>, name: String, keys: Vec<RowKey>, expiry: Duration) -> Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let place = store.place(&name);
        let renew = move || {
            // Higher than what was written when it was claimed.
            let mut beat = 1_u64;
            while stopped.recv_timeout(expiry / RENEWALS).is_err_and(|error| error.is_timeout()) {
                beat = beat.wrapping_add(1);
                // A store that fails now may take the next one.
                let _ = write(&*store, &name, beat, &keys);
            }
            // What stays expires.
            let _ = store.delete(&name);
            // If it was the last one. Whoever writes the next makes the folder again.
            let _ = name.split_once('/').map(|(folder, _)| store.delete_folder(folder));
        };
        let thread = std::thread::Builder::new().name("diver-lease".into()).spawn(renew);
        let thread = thread.map_err(crate::Error::io(&place, "cannot start a thread"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::cache::MemoryStore;

    fn keys(range: std::ops::Range<u8>) -> Vec<RowKey> {
        range.map(|n| RowKey::from(Digest::of(&[n]))).collect()
    }

    fn nothing(_: &RowKey) -> bool {
        false
    }

    fn leases(store: &Arc<dyn PartStore>, expiry: u64) -> Leases {
        Leases::new(Arc::clone(store), "x", Duration::from_millis(expiry))
    }

    #[test]
    fn what_one_holds_no_other_gets_until_it_is_given_back() {
        let store: Arc<dyn PartStore> = Arc::new(MemoryStore::new());
        let (one, other) = (leases(&store, 200), leases(&store, 200));
        let held = one.claim(&keys(0..10), 4, &nothing).unwrap();
        assert_eq!(held.keys, keys(0..4));
        assert_eq!(other.claim(&keys(0..10), 4, &nothing).unwrap().keys, keys(4..8));
        // Renewed, for longer than a lease lasts.
        std::thread::sleep(Duration::from_millis(500));
        assert!(other.claim(&keys(0..4), 4, &nothing).unwrap().keys.is_empty());
        assert!(other.is_anyone_working(&CancelToken::new()).unwrap());
        drop(held);
        assert_eq!(other.claim(&keys(0..4), 4, &nothing).unwrap().keys, keys(0..4));
        assert!(!other.is_anyone_working(&CancelToken::new()).unwrap());
        assert_eq!(store.list("x-leases").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_a_dead_process_held_is_free_once_its_lease_expires() {
        let store: Arc<dyn PartStore> = Arc::new(MemoryStore::new());
        write(&*store, "x-leases/lease-dead.json", 7, &keys(0..4)).unwrap();
        let waiter = leases(&store, 100);
        assert!(waiter.claim(&keys(0..4), 4, &nothing).unwrap().keys.is_empty());
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(waiter.claim(&keys(0..4), 4, &nothing).unwrap().keys, keys(0..4));
    }

    #[test]
    fn leases_of_what_is_committed_are_deleted() {
        let store: Arc<dyn PartStore> = Arc::new(MemoryStore::new());
        let waiter = leases(&store, 60_000);
        let is_done = |key: &RowKey| keys(0..4).contains(key);
        let dead = || {
            write(&*store, "x-leases/lease-done.json", 7, &keys(0..4)).unwrap();
            write(&*store, "x-leases/lease-half.json", 7, &keys(3..6)).unwrap();
        };
        dead();
        assert_eq!(waiter.claim(&keys(4..9), 9, &is_done).unwrap().keys, keys(6..9));
        assert_eq!(store.list("x-leases").unwrap(), ["lease-half.json"]);
        dead();
        waiter.tidy(&is_done);
        assert_eq!(store.list("x-leases").unwrap(), ["lease-half.json"]);
    }

    #[test]
    fn of_many_that_claim_at_once_each_key_has_one_holder() {
        let store: Arc<dyn PartStore> = Arc::new(MemoryStore::new());
        for _ in 0..50 {
            let claim = || {
                let store = Arc::clone(&store);
                std::thread::spawn(move || leases(&store, 10_000).claim(&keys(0..8), 4, &nothing).unwrap())
            };
            let threads: Vec<_> = (0..8).map(|_| claim()).collect();
            let held: Vec<Lease> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let all: Vec<RowKey> = held.iter().flat_map(|lease| lease.keys.clone()).collect();
            assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        }
    }
}

//! Copies on this machine of parts that are far away.

use super::{LocalStore, PartStore, Stat};
use crate::Digest;
use crate::cache::partition::number;
use crate::said::warn_once;
use crate::{Error, Result};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The folder of the copies within the one that the user names.
const FOLDER: &str = "diver-parts";

/// How long the folder is left alone that took no copy.
const REST: Duration = Duration::from_secs(60);

/// A store whose parts are copied to a folder on this machine when the first of their rows is read.
///
/// A copy is named by the store, the part and its version, so that several caches and processes can share the folder and
/// no copy is ever taken for another part. Whether a part is still the same is asked once, when it is opened. What is
/// read whole comes from the store itself: whoever doubts a row, as its digest does not fit, reads the part whole, and
/// the copy goes.
///
/// ```
/// use diver_loaders::cache::{MemoryStore, PartStore, WithCopies};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let store = WithCopies::new(Arc::new(MemoryStore::new()), folder.path(), 1 << 30)?;
/// store.put_if_absent("a/part-00000000.parquet", b"0123456789")?;
/// assert_eq!(store.get_range("a/part-00000000.parquet", 2..4)?, "23");
/// assert_eq!(std::fs::read_dir(folder.path().join("diver-parts"))?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WithCopies {
    store: Arc<dyn PartStore>,
    copies: LocalStore,
    limit: u64,
    /// What the store said of each part when it was opened.
    known: Mutex<HashMap<String, Stat>>,
    /// The copies that rows were read from, which stay, and all bytes that copies have as far as is known.
    used: Mutex<(HashSet<String>, Option<u64>)>,
    /// Held while a part is copied, so that no other thread fetches it as well.
    copying: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// From when on copies are made: not for a while after the folder took none.
    again: Mutex<Instant>,
}

impl WithCopies {
    /// `store`, with copies of at most `limit` bytes in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made or written to.
    pub fn new(store: Arc<dyn PartStore>, folder: &Path, limit: u64) -> Result<Self> {
        let copies = LocalStore::open(folder.to_owned())?;
        copies.make_folder(FOLDER)?;
        copies.check_writable(FOLDER)?;
        let store = Self {
            store,
            copies,
            limit,
            known: Mutex::default(),
            used: Mutex::default(),
            copying: Mutex::default(),
            again: Mutex::new(Instant::now()),
        };
        // The limit may be lower than the last time.
        store.make_room(0)?;
        Ok(store)
    }

    /// The copy of a part, which may not be there yet; `None` of what is not copied: other files, and parts of a store
    /// without versions.
    fn copy_of(&self, name: &str) -> Result<Option<Copy>> {
        if !is_part(name) {
            return Ok(None);
        }
        if let Some(known) = self.known_copy(name) {
            return Ok(Some(known));
        }
        let Some(stat) = self.store.stat(name)? else { return Ok(None) };
        lock(&self.known).insert(name.to_owned(), stat);
        Ok(self.known_copy(name))
    }

    /// The same, of a part that was opened.
    fn known_copy(&self, name: &str) -> Option<Copy> {
        let Stat { size, version, .. } = lock(&self.known).get(name)?.clone();
        let place = self.store.place(name);
        let identity = [place.as_os_str().as_encoded_bytes(), b"\n", version.as_ref()?.as_bytes()].concat();
        Some(Copy { name: format!("{FOLDER}/{}", Digest::of(&identity)), size })
    }

    /// Whether a copy is there, and whole.
    fn is_there(&self, copy: &Copy) -> bool {
        self.copies.stat(&copy.name).is_ok_and(|stat| stat.is_some_and(|stat| stat.size == copy.size))
    }

    /// Copies a part, if there is room for it; says whether the copy is there now.
    fn fetch(&self, name: &str, copy: &Copy) -> Result<bool> {
        if copy.size > self.limit {
            return Ok(false);
        }
        let own = Arc::clone(lock(&self.copying).entry(copy.name.clone()).or_default());
        let fetched = {
            let _fetching = lock(&own);
            if self.is_there(copy) { Ok(true) } else { self.fetch_alone(name, copy) }
        };
        lock(&self.copying).remove(&copy.name);
        fetched
    }

    fn fetch_alone(&self, name: &str, copy: &Copy) -> Result<bool> {
        if Instant::now() < *lock(&self.again) {
            return Ok(false);
        }
        let refused = |error: Error| {
            let reason = match error {
                Error::Io { source, .. } => source.to_string(),
                other => other.to_string(),
            };
            let folder = self.copies.place(FOLDER);
            warn_once(&format!("{}: {reason}; cache parts are read without copies there", folder.display()));
            *lock(&self.again) = Instant::now() + REST;
            false
        };
        if !self.make_room(copy.size).unwrap_or_else(refused) {
            return Ok(false);
        }
        let bytes = self.store.get(name)?;
        // It is the version that was opened only if it is still there afterwards.
        let version = |stat: &Stat| stat.version.clone();
        let now = self.store.stat(name)?.as_ref().map(version);
        let is_same = now == lock(&self.known).get(name).map(version) && bytes.len() as u64 == copy.size;
        if !is_same {
            return Ok(false);
        }
        let put = self.copies.put(&copy.name, &bytes).map(|()| {
            let (used, total) = &mut *lock(&self.used);
            used.insert(copy.name.clone());
            *total = total.map(|total| total + copy.size);
            true
        });
        Ok(put.unwrap_or_else(refused))
    }

    /// Deletes the oldest copies that this process has not used until `size` more bytes fit; says whether they do.
    fn make_room(&self, size: u64) -> Result<bool> {
        let mut state = lock(&self.used);
        let (used, total) = &mut *state;
        if total.is_some_and(|total| total + size <= self.limit) {
            return Ok(true);
        }
        // Other processes write and delete here, too.
        let mut copies = self.copies.entries(FOLDER)?;
        let mut bytes: u64 = copies.iter().map(|(_, stat)| stat.size).sum();
        copies.sort_by_key(|(_, stat)| std::cmp::Reverse(stat.age));
        for (copy, stat) in copies {
            let copy = format!("{FOLDER}/{copy}");
            if bytes + size <= self.limit {
                break;
            }
            if !used.contains(&copy) {
                self.copies.delete(&copy)?;
                bytes -= stat.size;
            }
        }
        *total = Some(bytes);
        Ok(bytes + size <= self.limit)
    }

    /// Does without the copy of a part, and asks the store anew when the part is opened next.
    fn forget(&self, name: &str) {
        if let Some(copy) = self.known_copy(name) {
            // Should it stay, it is damaged, and found out again.
            let _ = self.copies.delete(&copy.name);
            let (used, total) = &mut *lock(&self.used);
            used.remove(&copy.name);
            *total = None;
        }
        lock(&self.known).remove(name);
    }
}

/// A part's copy: its name among the copies, and the part's size in bytes.
struct Copy {
    name: String,
    size: u64,
}

/// Whether it is the name of a part, which nobody changes.
fn is_part(name: &str) -> bool {
    let file = name.split_once('/').map_or(name, |(_, file)| file);
    number(file).is_some_and(|(_, is_used)| is_used)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update leaves what it guards whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartStore for WithCopies {
    fn place(&self, name: &str) -> PathBuf {
        self.store.place(name)
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        self.store.make_folder(folder)
    }

    fn folders(&self) -> Result<Vec<String>> {
        self.store.folders()
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.entries(folder)?.into_iter().map(|(name, _)| name).collect())
    }

    fn entries(&self, folder: &str) -> Result<Vec<(String, Stat)>> {
        let entries = self.store.entries(folder)?;
        let mut known = lock(&self.known);
        for (file, stat) in &entries {
            let name = format!("{folder}/{file}");
            if is_part(&name) {
                known.insert(name, stat.clone());
            }
        }
        drop(known);
        Ok(entries)
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        self.store.stat(name)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.forget(name);
        self.store.get(name)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        if let Some(copy) = self.copy_of(name)?
            && (self.is_there(&copy) || self.fetch(name, &copy)?)
            // A copy that cannot be read says nothing about the part.
            && let Ok(bytes) = self.copies.get_range(&copy.name, range.clone())
        {
            lock(&self.used).0.insert(copy.name);
            return Ok(bytes);
        }
        self.store.get_range(name, range)
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        // The end is what a part is opened by: of those that are only opened there is no copy.
        if let Some(copy) = self.copy_of(name)?
            && self.is_there(&copy)
            && let Ok(found) = self.copies.tail(&copy.name, length)
        {
            return Ok(found);
        }
        self.store.tail(name, length)
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let is_written = self.store.put_if_absent(name, bytes);
        lock(&self.known).remove(name);
        is_written
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        lock(&self.known).remove(name);
        self.store.put(name, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.forget(from);
        self.store.rename(from, to)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.forget(name);
        self.store.delete(name)
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        self.store.delete_folder(folder)
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        self.store.check_writable(folder)
    }

    fn parallel(&self) -> usize {
        self.store.parallel()
    }

    fn block(&self) -> usize {
        self.store.block()
    }
}

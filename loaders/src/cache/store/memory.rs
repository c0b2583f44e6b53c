//! A store in memory.

use super::{PartStore, Stat};
use crate::{Error, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A store in this process's memory, as long as it lives. For tests, and for runs whose results nobody keeps.
#[derive(Debug, Default)]
pub struct MemoryStore {
    files: Mutex<BTreeMap<String, File>>,
    written: AtomicU64,
}

#[derive(Debug)]
struct File {
    bytes: Bytes,
    written: Instant,
    /// How many files were written before.
    version: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn file(&self, bytes: &[u8]) -> File {
        File {
            bytes: Bytes::copy_from_slice(bytes),
            written: Instant::now(),
            version: self.written.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        // Every update leaves the map whole.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartStore for MemoryStore {
    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("memory://{name}"))
    }

    fn make_folder(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn folders(&self) -> Result<Vec<String>> {
        let files = self.lock();
        let folders: BTreeSet<&str> = files.keys().filter_map(|name| Some(name.split_once('/')?.0)).collect();
        Ok(folders.into_iter().map(str::to_owned).collect())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let within = |name: &String| Some(name.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        Ok(self.lock().keys().filter_map(within).collect())
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let stat = |file: &File| Stat {
            size: file.bytes.len() as u64,
            age: file.written.elapsed(),
            version: Some(file.version.to_string().into()),
        };
        Ok(self.lock().get(name).map(stat))
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let missing = || Error::io(&self.place(name), "cannot read")(ErrorKind::NotFound.into());
        self.lock().get(name).map(|file| file.bytes.clone()).ok_or_else(missing)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.get(name)?;
        let within = |end: u64| usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.slice(within(range.start)..within(range.end)))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        let size = self.get(name)?.len() as u64;
        Ok((self.get_range(name, size.saturating_sub(length)..size)?, size))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let mut files = self.lock();
        let is_absent = !files.contains_key(name);
        if is_absent {
            files.insert(name.to_owned(), self.file(bytes));
        }
        Ok(is_absent)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = self.file(bytes);
        self.lock().insert(name.to_owned(), file);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut files = self.lock();
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.lock().remove(name);
        Ok(())
    }

    fn delete_folder(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn check_writable(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

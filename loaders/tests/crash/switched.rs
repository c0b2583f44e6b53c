//! A store that can be switched off, and whose clock can go wrong.

use diver_loaders::cache::{MemoryStore, PartStore, Stat};
use diver_loaders::{Error, Result};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A store in memory that its clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switched {
    store: Arc<MemoryStore>,
    is_down: Arc<AtomicBool>,
    /// What is added to the age of every file, in seconds.
    jump: Arc<AtomicU64>,
}

impl Switched {
    /// From now on every request fails, or none does.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// From now on every file is older by so much.
    pub(crate) fn set_jump(&self, jump: Duration) {
        self.jump.store(jump.as_secs(), Ordering::SeqCst);
    }

    fn reach<T>(&self, name: &str, request: impl FnOnce(&MemoryStore) -> Result<T>) -> Result<T> {
        if self.is_down.load(Ordering::SeqCst) {
            let reason = std::io::Error::other("503 Service Unavailable");
            return Err(Error::io(&self.place(name), "cannot reach")(reason));
        }
        request(&self.store)
    }
}

impl PartStore for Switched {
    fn place(&self, name: &str) -> PathBuf {
        self.store.place(name)
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        self.reach(folder, |store| store.make_folder(folder))
    }

    fn folders(&self) -> Result<Vec<String>> {
        self.reach("", PartStore::folders)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.reach(folder, |store| store.list(folder))
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let jump = Duration::from_secs(self.jump.load(Ordering::SeqCst));
        let stat = self.reach(name, |store| store.stat(name))?;
        Ok(stat.map(|stat| Stat { age: stat.age + jump, ..stat }))
    }

    fn get(&self, name: &str) -> Result<bytes::Bytes> {
        self.reach(name, |store| store.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<bytes::Bytes> {
        self.reach(name, |store| store.get_range(name, range))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(bytes::Bytes, u64)> {
        self.reach(name, |store| store.tail(name, length))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.reach(name, |store| store.put_if_absent(name, bytes))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.reach(name, |store| store.put(name, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.reach(from, |store| store.rename(from, to))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.reach(name, |store| store.delete(name))
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        self.reach(folder, |store| store.delete_folder(folder))
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        self.reach(folder, |store| store.check_writable(folder))
    }
}

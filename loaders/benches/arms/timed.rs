//! A store that takes the time of each call.

use bytes::Bytes;
use diver_loaders::Result;
use diver_loaders::cache::{LocalStore, PartStore, Stat};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Seconds by the name of a method.
type Calls = Arc<Mutex<BTreeMap<&'static str, f64>>>;

#[derive(Debug)]
pub(crate) struct Timed {
    store: LocalStore,
    calls: Calls,
}

impl Timed {
    pub(crate) fn new(store: LocalStore) -> Self {
        Self { store, calls: Calls::default() }
    }

    pub(crate) fn calls(&self) -> Calls {
        Arc::clone(&self.calls)
    }

    fn time<T>(&self, name: &'static str, call: impl FnOnce(&LocalStore) -> T) -> T {
        let started = Instant::now();
        let result = call(&self.store);
        *self.calls.lock().unwrap().entry(name).or_default() += started.elapsed().as_secs_f64();
        result
    }
}

impl PartStore for Timed {
    fn place(&self, name: &str) -> PathBuf {
        self.store.place(name)
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        self.time("make_folder", |store| store.make_folder(folder))
    }

    fn folders(&self) -> Result<Vec<String>> {
        self.time("folders", PartStore::folders)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.time("list", |store| store.list(folder))
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        self.time("stat", |store| store.stat(name))
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.time("get", |store| store.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.time("get_range", |store| store.get_range(name, range))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        self.time("tail", |store| store.tail(name, length))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.time("put_if_absent", |store| store.put_if_absent(name, bytes))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.time("put", |store| store.put(name, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.time("rename", |store| store.rename(from, to))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.time("delete", |store| store.delete(name))
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        self.time("delete_folder", |store| store.delete_folder(folder))
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        self.time("check_writable", |store| store.check_writable(folder))
    }
}

//! A cache on a store that fails: nothing is lost, nothing wrong is read.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use diver_loaders::cache::{CacheOptions, MemoryStore, PartStore, Stat};
use diver_loaders::refine::{Progress, RawBatch, Silent};
use diver_loaders::{
    Cache, CancelToken, Conditioning, Error, Identity, MemorySource, Refine, Refinery, Result, RgbImage,
};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SAMPLES: usize = 60;

/// A store whose requests fail now and then: before anything is done, or, of those that write, after it is done, as when
/// a connection is torn before the answer comes.
#[derive(Clone, Debug)]
struct Faulty {
    store: Arc<MemoryStore>,
    /// One of so many requests fails; 0 for none.
    every: u64,
    requests: Arc<AtomicU64>,
}

impl Faulty {
    fn new(every: u64) -> Self {
        Self { store: Arc::default(), every, requests: Arc::default() }
    }

    /// The same store, in good health.
    fn sound(&self) -> Self {
        Self { every: 0, ..self.clone() }
    }

    /// A number that looks random, another one for each request.
    fn draw(&self) -> u64 {
        let number = self.requests.fetch_add(1, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 17
    }

    fn fails(&self) -> bool {
        self.every > 0 && self.draw().is_multiple_of(self.every)
    }

    fn failure(&self, name: &str) -> Error {
        let reason = ["503 Slow Down", "connection reset", "timed out"][(self.draw() % 3) as usize];
        Error::io(&self.place(name), "cannot reach")(std::io::Error::other(reason))
    }

    fn read<T>(&self, name: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.fails() { Err(self.failure(name)) } else { read() }
    }

    fn write<T>(&self, name: &str, write: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.fails() {
            return Err(self.failure(name));
        }
        let done = write()?;
        if self.fails() { Err(self.failure(name)) } else { Ok(done) }
    }
}

impl PartStore for Faulty {
    fn place(&self, name: &str) -> PathBuf {
        self.store.place(name)
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        self.write(folder, || self.store.make_folder(folder))
    }

    fn folders(&self) -> Result<Vec<String>> {
        self.read("", || self.store.folders())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.read(folder, || self.store.list(folder))
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        self.read(name, || self.store.stat(name))
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.read(name, || self.store.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.read(name, || self.store.get_range(name, range))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        self.read(name, || self.store.tail(name, length))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.write(name, || self.store.put_if_absent(name, bytes))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, || self.store.put(name, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.write(from, || self.store.rename(from, to))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.write(name, || self.store.delete(name))
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        self.write(folder, || self.store.delete_folder(folder))
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        self.write(folder, || self.store.check_writable(folder))
    }
}

fn set() -> MemorySource {
    let values = (0..SAMPLES * 12).map(|at| ((at * 37) % 256) as f32 / 255.0).collect();
    MemorySource::unit(SAMPLES, [3, 2, 2], values, vec![0; SAMPLES]).unwrap()
}

/// The identity, three images at a time.
struct Threes;

impl Refine for Threes {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Identity.fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        3
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        Identity.check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        Identity.refine(batch, cancel, progress)
    }
}

/// What a refinement of the set is, if all is well.
fn expected() -> Vec<Vec<u8>> {
    let mut refinery = Refinery::new(set(), Threes, None).unwrap();
    let indices: Vec<usize> = (0..SAMPLES).collect();
    let images = refinery.images(&indices, &CancelToken::new(), &Silent).unwrap();
    images.iter().map(|image| image.as_bytes().to_vec()).collect()
}

#[test]
fn a_store_that_fails_loses_nothing_and_mixes_nothing_up() {
    // Other numbers are other sequences of failures.
    [7, 9, 11, 13].into_iter().for_each(nothing_is_lost_where_one_fails_of);
}

fn nothing_is_lost_where_one_fails_of(requests: u64) {
    let store = Faulty::new(requests);
    let expiry = Duration::from_millis(300);
    let cache =
        |store: Faulty| Cache::on(store).with_options(CacheOptions::new().lease_expiry(expiry)).unwrap();
    let fingerprint = Identity.fingerprint().unwrap();
    let work = || {
        for _ in 0..2000 {
            let done = Refinery::new(set(), Threes, Some(&cache(store.clone())))
                .and_then(|mut refinery| refinery.run(0..SAMPLES, &CancelToken::new(), &Silent));
            // Those who tidy up meanwhile fail as often.
            let _ = cache(store.clone())
                .images(&fingerprint)
                .and_then(|images| images.compact(&CancelToken::new()));
            if done.is_ok() {
                return;
            }
        }
        panic!("a run ends in spite of everything");
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let sound = cache(store.sound());
    let found = sound.verify(&CancelToken::new(), &|_, _| ()).unwrap();
    assert_eq!((found.damaged.len(), found.faults.len()), (0, 0), "{found:?}");
    assert!(
        store
            .sound()
            .list(&sound.list().unwrap()[0].name)
            .unwrap()
            .iter()
            .all(|name| !name.ends_with("corrupt"))
    );
    let mut refinery = Refinery::new(set(), Threes, Some(&sound)).unwrap();
    assert_eq!(refinery.run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap().refined, 0, "no row is lost");
    let indices: Vec<usize> = (0..SAMPLES).collect();
    let images = refinery.images(&indices, &CancelToken::new(), &Silent).unwrap();
    assert!(images.iter().map(|image| image.as_bytes().to_vec()).eq(expected()));
}

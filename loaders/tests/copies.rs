//! Copies on this machine of a cache that is far away.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{
    CacheOptions, ImageForm, ImageRow, LocalStore, MemoryStore, PartStore, Partition,
};
use diver_loaders::cache::{RowKey, Stat};
use diver_loaders::{Cache, CancelToken, Digest, Label, Result, RgbImage};
use serde_json::json;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store that counts how often bytes of parts are asked for.
#[derive(Clone, Debug, Default)]
struct Far {
    store: Arc<MemoryStore>,
    reads: Arc<AtomicUsize>,
}

impl Far {
    fn count<T>(&self, name: &str, found: Result<T>) -> Result<T> {
        if name.ends_with(".parquet") {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        found
    }

    /// Reads since this was asked last.
    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

impl PartStore for Far {
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
        self.store.list(folder)
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        self.store.stat(name)
    }

    fn get(&self, name: &str) -> Result<bytes::Bytes> {
        self.count(name, self.store.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<bytes::Bytes> {
        self.count(name, self.store.get_range(name, range))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(bytes::Bytes, u64)> {
        self.count(name, self.store.tail(name, length))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.store.put_if_absent(name, bytes)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.store.put(name, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.store.rename(from, to)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.store.delete(name)
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        self.store.delete_folder(folder)
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        self.store.check_writable(folder)
    }
}

/// Images that no page cache of the decoder's holds whole: noise, 96 KB each.
const SIDE: usize = 180;

fn key(n: u8) -> RowKey {
    RowKey::from(Digest::of(&[n]))
}

fn image(n: u8) -> RgbImage {
    let mut state = u64::from(n) + 1;
    let noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    RgbImage::new(SIDE, SIDE, std::iter::repeat_with(noise).take(SIDE * SIDE * 3).collect()).unwrap()
}

/// Commits images `ns` as one part.
fn commit(partition: &Partition, ns: Range<u8>) {
    let rows: Vec<ImageRow> = ns
        .map(|n| ImageRow {
            key: key(n),
            image: Arc::new(image(n)),
            form: ImageForm::Png,
            label: Label::Hard(0),
            index: n.into(),
            variant: 0,
            seconds: 0.0,
        })
        .collect();
    partition.commit(&rows, &[]).unwrap();
}

fn open(store: &Far, options: CacheOptions) -> Partition {
    let cache = Cache::on(store.clone()).with_options(options).unwrap();
    cache.images(&json!({ "refiner": "test" })).unwrap()
}

fn assert_all(partition: &Partition, ns: Range<u8>) {
    for n in ns {
        assert_eq!(partition.get(&key(n)).unwrap(), Some(image(n)), "image {n}");
    }
}

fn copies(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder.join("diver-parts")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_part_is_fetched_once() {
    let (store, folder) = (Far::default(), tempfile::tempdir().unwrap());
    let options = || CacheOptions::new().local(folder.path());
    let writer = open(&store, CacheOptions::new());
    commit(&writer, 0..4);
    commit(&writer, 4..8);
    store.reads();
    let reader = open(&store, options());
    assert_eq!((reader.len(), copies(folder.path()).len()), (8, 0), "opening copies nothing");
    assert_all(&reader, 0..8);
    assert_eq!(copies(folder.path()).len(), 2);
    store.reads();
    assert_all(&reader, 0..8);
    // A later run opens the parts from their copies, too.
    let later = open(&store, options());
    assert_all(&later, 0..8);
    assert_eq!(store.reads(), 0, "all of it was at hand");
}

#[test]
fn a_copy_is_never_taken_for_another_part() {
    let (store, folder) = (Far::default(), tempfile::tempdir().unwrap());
    let options = || CacheOptions::new().local(folder.path());
    commit(&open(&store, CacheOptions::new()), 0..4);
    let reader = open(&store, options());
    assert_all(&reader, 0..4);
    // The cache is emptied, and another part takes the number.
    let part = format!("{}/part-00000000.parquet", store.folders().unwrap()[0]);
    store.delete(&part).unwrap();
    commit(&open(&store, CacheOptions::new()), 8..12);
    let later = open(&store, options());
    assert_eq!(later.get(&key(0)).unwrap(), None);
    assert_all(&later, 8..12);
    // Whoever had it open goes on with what it knew, or finds what is there now.
    reader.get(&key(0)).unwrap();
    reader.refresh().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    reader.refresh().unwrap();
    assert_all(&later, 8..12);
}

#[test]
fn a_damaged_copy_is_fetched_again() {
    let (store, folder) = (Far::default(), tempfile::tempdir().unwrap());
    commit(&open(&store, CacheOptions::new()), 0..4);
    let reader = open(&store, CacheOptions::new().local(folder.path()));
    assert_all(&reader, 0..4);
    for damage in [true, false] {
        let copy = copies(folder.path()).remove(0);
        let mut bytes = std::fs::read(&copy).unwrap();
        if damage {
            // Within the images: the file's end tells what is in it.
            (4..bytes.len() / 2).for_each(|at| bytes[at] ^= 0x55);
        } else {
            bytes.truncate(bytes.len() / 2);
        }
        std::fs::write(&copy, bytes).unwrap();
        assert_all(&reader, 0..4);
        assert!(
            !store.list(&store.folders().unwrap()[0]).unwrap().iter().any(|name| name.ends_with("corrupt"))
        );
    }
}

#[test]
fn copies_stay_within_their_bound() {
    let (store, folder) = (Far::default(), tempfile::tempdir().unwrap());
    let writer = open(&store, CacheOptions::new());
    (0..8).for_each(|n| commit(&writer, 2 * n..2 * n + 2));
    let size = 2 * (SIDE * SIDE * 3) as u64;
    let bounded = || CacheOptions::new().local(folder.path()).local_limit(3 * size + size / 2);
    let bytes = || copies(folder.path()).iter().map(|copy| copy.metadata().unwrap().len()).sum::<u64>();
    let reader = open(&store, bounded());
    assert_all(&reader, 0..16);
    assert_eq!(copies(folder.path()).len(), 3, "what does not fit is read where it is");
    assert!(bytes() <= 3 * size + size / 2);
    let first = copies(folder.path());
    // In another run other parts are wanted, and the old copies make room.
    let later = open(&store, bounded());
    assert_all(&later, 10..16);
    assert_eq!(copies(folder.path()).len(), 3);
    assert!(first.iter().any(|copy| !copy.exists()));
    store.reads();
    assert_all(&later, 10..16);
    assert_eq!(store.reads(), 0);
}

#[test]
fn a_merged_part_is_copied_in_place_of_those_that_went() {
    let (store, folder) = (Far::default(), tempfile::tempdir().unwrap());
    let writer = open(&store, CacheOptions::new());
    (0..4).for_each(|n| commit(&writer, 2 * n..2 * n + 2));
    let reader = open(&store, CacheOptions::new().local(folder.path()));
    assert_all(&reader, 0..8);
    writer.compact(&CancelToken::new()).unwrap();
    reader.refresh().unwrap();
    assert_all(&reader, 0..8);
    store.reads();
    assert_all(&reader, 0..8);
    assert_eq!(store.reads(), 0);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let refused = |folder: &Path| {
        Cache::on(Far::default()).with_options(CacheOptions::new().local(folder)).unwrap_err().to_string()
    };
    assert!(refused(&file).contains("file"));
    assert!(refused(Path::new("s3://bucket/copies")).contains("local"));
    // A folder that is deleted meanwhile only costs the copies.
    let store = Far::default();
    commit(&open(&store, CacheOptions::new()), 0..4);
    let copies = folder.path().join("copies");
    let reader = open(&store, CacheOptions::new().local(&copies));
    std::fs::remove_dir_all(&copies).unwrap();
    std::fs::write(&copies, b"").unwrap();
    assert_all(&reader, 0..4);
    drop(LocalStore::open(folder.path().join("other")).unwrap());
}

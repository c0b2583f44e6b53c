//! Readers of a cache's files. A bucket is often shared, so they may come from anyone: no digest tells who wrote them.

use super::write;
use diver_loaders::cache::{Artifact, CacheOptions, ImageRow, LogitRow, Partition, RowKey};
use diver_loaders::refine::{Progress, RawBatch, Silent};
use diver_loaders::{
    Cache, CancelToken, Conditioning, Digest, Error, MemorySource, Refine, Refinery, Result, RgbImage,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// What the keys of the rows in the sound parts of `corpus/` are digests of.
pub(crate) const CACHED: [&[u8]; 2] = [b"first", b"second"];

/// A part of images.
pub(super) fn cache(folder: &Path, bytes: &[u8]) -> bool {
    let cache = Cache::open(folder.join("cache")).expect("a folder can be made");
    let partition = cache.images(&json!({"refiner": "fuzz"})).expect("a folder can be made");
    part(&cache, &partition, bytes, include_bytes!("corpus/cache/sound"))
}

/// A part of logits.
pub(super) fn logits(folder: &Path, bytes: &[u8]) -> bool {
    let cache = Cache::open(folder.join("cache")).expect("a folder can be made");
    let partition = cache.logits(&json!({"teacher": "fuzz"})).expect("a folder can be made");
    part(&cache, &partition, bytes, include_bytes!("corpus/logits/sound_float32"))
}

/// Reads the rows of a part; then gathers it with a sound one, and reads what is there whole.
fn part<A: Artifact>(cache: &Cache, partition: &Partition<A>, bytes: &[u8], sound: &[u8]) -> bool {
    write(&partition.path(), "part-00000000.parquet", bytes);
    let _ = partition.refresh();
    let rows = CACHED.map(|key| partition.get(&RowKey::from(Digest::of(key))));
    write(&partition.path(), "part-00000001.parquet", sound);
    let _ = partition.compact(&CancelToken::new());
    let _ = cache.verify(&CancelToken::new(), &|_, _| ());
    // A damaged part was given another name.
    let _ = fs::remove_dir_all(cache.root());
    rows.iter().all(|row| matches!(row, Ok(Some(_))))
}

/// What a row holds, once its digest is found to be right.
pub(super) fn rows(_: &Path, bytes: &[u8]) -> bool {
    ImageRow::decode(bytes).is_ok() | LogitRow::decode(bytes).is_ok()
}

/// A lease, and the other small files of a cache: `gathered` and `fingerprint.json`.
pub(super) fn leases(folder: &Path, bytes: &[u8]) -> bool {
    let cache = Cache::open(folder.join("cache")).expect("a folder can be made");
    let shortest = CacheOptions::new().lease_expiry(Duration::from_millis(100));
    let cache = cache.with_options(shortest).expect("it is the shortest");
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let mut refinery =
        Refinery::new(leased(), First(Arc::clone(&first)), Some(&cache)).expect("a folder can be made");
    let partition = refinery.partition().expect("it is on disk").path();
    let leases = PathBuf::from(format!("{}-leases", partition.display()));
    let _ = fs::create_dir(&leases);
    write(&leases, "lease-x.json", bytes);
    write(&partition, "gathered", bytes);
    // It ends with the first batch: a lease of both samples is waited for until it expires.
    let _ = refinery.run(0..2, &CancelToken::new(), &Silent);
    drop(refinery);
    let other = cache.root().join("0123456789abcdef");
    let _ = fs::create_dir(&other);
    write(&other, "fingerprint.json", bytes);
    let _ = cache.list();
    let _ = cache.explain(&json!({"refiner": "fuzz"}), &[].into());
    let _ = fs::remove_dir_all(cache.root());
    // The sound lease is of the first sample.
    first.load(Ordering::Relaxed) == 1
}

/// The samples that leases are of.
pub(crate) fn leased() -> MemorySource {
    static SET: LazyLock<MemorySource> = LazyLock::new(|| {
        let pixels = (0..24).map(|value| value as f32 / 23.0).collect();
        MemorySource::unit(2, [3, 2, 2], pixels, vec![0, 1]).expect("the shape fits")
    });
    SET.clone()
}

/// A refiner that takes note of the first sample that it gets, and refines none.
struct First(Arc<AtomicUsize>);

impl Refine for First {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(json!({"refiner": "first"}))
    }

    fn preferred_batch(&self) -> usize {
        1
    }

    fn check_conditioning(&self, _: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(&mut self, batch: &RawBatch<'_>, _: &CancelToken, _: &dyn Progress) -> Result<Vec<RgbImage>> {
        if let Some(Conditioning::Class(class)) = batch.conditioning.first() {
            self.0.store(*class, Ordering::Relaxed);
        }
        Err(Error::Cancelled)
    }
}

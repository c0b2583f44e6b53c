//! Looking into a cache and tidying it, while others use it.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{CacheOptions, ImageForm, ImageRow, MemoryStore, Partition, RowKey, Rules};
use diver_loaders::{Cache, CancelToken, Digest, Error, Label, RgbImage};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn key(n: usize) -> RowKey {
    RowKey::from(Digest::of(&n.to_le_bytes()))
}

fn row(n: usize, grey: u8) -> ImageRow {
    ImageRow {
        form: ImageForm::Png,
        key: key(n),
        image: Arc::new(RgbImage::new(4, 3, vec![grey; 36]).unwrap()),
        label: Label::Hard(n % 2),
        index: n,
        variant: 0,
        seconds: 0.25,
    }
}

fn names() -> Vec<String> {
    vec!["cat".into(), "dog".into()]
}

fn fingerprint(steps: u32) -> Value {
    json!({ "refiner": "test", "knobs": { "steps": steps, "gamma": 0.1 } })
}

/// Commits samples `0..samples`, `each` in a part; sample n has grey level n.
fn fill(partition: &Partition, samples: usize, each: usize) {
    for first in (0..samples).step_by(each) {
        let rows: Vec<ImageRow> = (first..samples.min(first + each)).map(|n| row(n, n as u8)).collect();
        partition.commit(&rows, &names()).unwrap();
    }
}

fn grey(partition: &Partition, n: usize) -> Option<u8> {
    partition.get(&key(n)).unwrap().map(|image| image.as_bytes()[0])
}

fn parts(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    files
}

fn never() -> CancelToken {
    CancelToken::new()
}

#[test]
fn a_listing_says_what_is_there_and_in_what_neighbours_differ() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    fill(&cache.images(&fingerprint(50)).unwrap(), 6, 2);
    fill(&cache.images(&fingerprint(20)).unwrap(), 3, 3);
    fs::create_dir(folder.path().join("notes")).unwrap();
    let mut listed = cache.list().unwrap();
    listed.sort_by_key(|one| one.rows);
    let told: Vec<_> =
        listed.iter().map(|one| (one.rows, one.parts, one.differs["knobs.steps"].clone())).collect();
    assert_eq!(told, [(3, 1, json!(20)), (6, 3, json!(50))]);
    assert!(listed.iter().all(|one| one.differs.len() == 1 && one.bytes > 1000 && one.unused_seconds < 60.0));
    assert_eq!(listed[0].fingerprint, Some(fingerprint(20)));
}

#[test]
fn an_explanation_names_the_nearest_and_every_difference() {
    let cache = Cache::on(MemoryStore::new());
    fill(&cache.images(&fingerprint(50)).unwrap(), 6, 6);
    cache.images(&json!({ "refiner": "other" })).unwrap();
    let keys: BTreeSet<RowKey> = (0..8).map(key).collect();
    let own = cache.explain(&fingerprint(50), &keys).unwrap();
    assert_eq!((own.found, own.wanted, own.neighbours.len()), (6, 8, 1));
    let other = cache.explain(&fingerprint(20), &keys).unwrap();
    assert_eq!((other.found, other.wanted), (0, 8));
    assert_eq!((own.verdict, other.verdict), ("partly", "miss"));
    let nearest = &other.neighbours[0];
    assert_eq!((nearest.found, nearest.differences.len()), (6, 1));
    assert_eq!(
        serde_json::to_value(&nearest.differences[0]).unwrap(),
        json!({
            "field": "knobs.steps", "wanted": 20, "theirs": 50
        })
    );
    assert_eq!(other.neighbours[1].differences.len(), 3);
}

#[test]
fn a_check_finds_damage_of_any_row_and_sets_it_aside() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let partition = cache.images(&fingerprint(50)).unwrap();
    fill(&partition, 9, 3);
    let sound = cache.verify(&never(), &|_, _| ()).unwrap();
    assert_eq!((sound.rows, sound.parts, sound.damaged.len(), sound.faults.len()), (9, 3, 0, 0));
    let victim = parts(&partition.path()).remove(1);
    let mut bytes = fs::read(&victim).unwrap();
    bytes[100] ^= 1;
    fs::write(&victim, bytes).unwrap();
    cache.images(&fingerprint(20)).unwrap();
    fs::write(cache.images(&fingerprint(20)).unwrap().path().join("fingerprint.json"), "{}").unwrap();
    let found = cache.verify(&never(), &|_, _| ()).unwrap();
    assert_eq!((found.rows, found.parts, found.damaged.len(), found.faults.len()), (6, 2, 1, 1));
    assert!(!victim.exists() && victim.with_extension("corrupt").exists());
    let cancelled = CancelToken::new();
    cancelled.cancel();
    assert!(matches!(cache.verify(&cancelled, &|_, _| ()), Err(Error::Cancelled)));
}

#[test]
fn gathering_parts_keeps_every_row_and_which_of_two_counts() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let partition = cache.images(&fingerprint(50)).unwrap();
    fill(&partition, 40, 2);
    // A second row of a key, committed later: it never counts.
    partition.commit(&[row(1, 250), row(100, 100)], &names()).unwrap();
    let before = cache.images(&fingerprint(50)).unwrap();
    let done = partition.compact(&never()).unwrap();
    assert_eq!((done.gathered, done.into, done.rows), (21, 1, 41));
    assert_eq!(parts(&partition.path()).len(), 1);
    // A process that was late: its row was committed after all that were gathered.
    let late = cache.images(&fingerprint(50)).unwrap();
    late.commit(&[row(3, 251)], &names()).unwrap();
    for partition in [&partition, &before, &late, &cache.images(&fingerprint(50)).unwrap()] {
        partition.refresh().unwrap();
        assert_eq!(
            (0..40).map(|n| grey(partition, n)).collect::<Vec<_>>(),
            (0..40).map(Some).collect::<Vec<_>>()
        );
        assert_eq!((grey(partition, 100), partition.len()), (Some(100), 41));
    }
    assert_eq!(partition.compact(&never()).unwrap().rows, 41);
    assert_eq!(partition.compact(&never()).unwrap().gathered, 0, "one part is not gathered again");
    assert_eq!(diver_loaders::open(partition.path()).unwrap().info().num_samples, 41, "a dataset as before");
}

#[test]
fn nobody_loses_a_row_while_parts_are_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Cache::open(folder.path()).unwrap().images(&fingerprint(50)).unwrap();
    const SAMPLES: usize = 200;
    fill(&open(), 20, 1);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                scope.spawn(move || {
                    let partition = open();
                    for n in (20 + writer..SAMPLES).step_by(2) {
                        partition.commit(&[row(n, n as u8)], &names()).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let partition = open();
                while !is_done.load(Ordering::SeqCst) {
                    partition.compact(&never()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            let partition = open();
            while !is_done.load(Ordering::SeqCst) {
                for n in 0..20 {
                    assert_eq!(grey(&partition, n), Some(n as u8));
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_done.store(true, Ordering::SeqCst);
    });
    let partition = open();
    let files =
        || fs::read_dir(partition.path()).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(partition.len(), SAMPLES, "{:?}", files());
    assert!((0..SAMPLES).all(|n| grey(&partition, n) == Some(n as u8)));
}

#[test]
fn what_was_used_least_recently_goes_first_and_nothing_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path())
        .unwrap()
        .with_options(CacheOptions::new().lease_expiry(Duration::from_millis(200)))
        .unwrap();
    let partitions: Vec<_> = (0..3).map(|steps| cache.images(&fingerprint(steps)).unwrap()).collect();
    let hour = Duration::from_secs(3600);
    for (age, partition) in (0..).zip(&partitions) {
        fill(partition, 4, 4);
        for file in fs::read_dir(partition.path()).unwrap() {
            let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_modified(std::time::SystemTime::now() - hour * age).unwrap();
        }
    }
    let name = |at: usize| partitions[at].path().file_name().unwrap().to_str().unwrap().to_owned();
    let gone = |rules: &Rules, apply| -> Vec<String> {
        cache.gc(rules, apply, &never()).unwrap().into_iter().map(|one| one.name).collect()
    };
    let older = Rules { unused_for: Some(hour * 3 / 2), ..Rules::default() };
    assert_eq!(gone(&older, false), [name(2)]);
    assert!(partitions[2].path().exists(), "a dry run");
    let bytes = cache.list().unwrap()[0].bytes;
    assert_eq!(gone(&Rules { keep_bytes: Some(bytes * 2), ..Rules::default() }, true), [name(2)]);
    assert!(!partitions[2].path().exists());
    let named = |text: &str| Rules { fingerprints: vec![text.to_owned()], ..Rules::default() };
    assert!(matches!(
        cache.gc(&named("nothing"), true, &never()),
        Err(Error::Config { option: "fingerprint", .. })
    ));
    // Someone is adding to it.
    let leases = folder.path().join(format!("{}-leases", name(0)));
    fs::create_dir(&leases).unwrap();
    let lease = |beat: u32| {
        fs::write(leases.join("lease-x.json"), json!({ "holder": "x", "beat": beat, "keys": [] }).to_string())
            .unwrap()
    };
    lease(0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut beat = 1;
            while !is_done.load(Ordering::SeqCst) {
                lease(beat);
                beat += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let kept = cache.gc(&named(&name(0)), true, &never()).unwrap();
        assert!(kept[0].is_in_use && partitions[0].path().exists());
        is_done.store(true, Ordering::SeqCst);
    });
    assert!(!cache.gc(&named(&name(0)[..8]), true, &never()).unwrap()[0].is_in_use, "its holder died");
    assert!(!partitions[0].path().exists() && !leases.exists());
}

#[test]
fn a_bound_holds_while_a_cache_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    fill(&cache.images(&fingerprint(1)).unwrap(), 20, 5);
    let size = cache.list().unwrap()[0].bytes;
    let bounded = cache.clone().with_options(CacheOptions::new().limit(size + size / 2)).unwrap();
    fill(&bounded.images(&fingerprint(2)).unwrap(), 20, 5);
    let both: Vec<usize> = cache.list().unwrap().iter().map(|one| one.rows).collect();
    assert_eq!(both, [20, 20], "looked at with the first part, when there was room");
    bounded.images(&fingerprint(2)).unwrap().commit(&[row(50, 50)], &names()).unwrap();
    let left: Vec<usize> = cache.list().unwrap().iter().map(|one| one.rows).collect();
    assert_eq!(left, [21], "the other one was used less recently");
}

#[test]
fn parts_of_a_newer_format_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let partition = cache.images(&fingerprint(50)).unwrap();
    fill(&partition, 2, 1);
    let part = parts(&partition.path()).remove(0);
    let bytes = fs::read(&part).unwrap();
    let at = bytes.windows(12).position(|window| window == b"diver.format").unwrap();
    let mut newer = bytes.clone();
    let digit = at + 12 + newer[at + 12..].iter().position(|byte| *byte == b'2').unwrap();
    newer[digit] = b'9';
    // One that comes in the place of a part that is known, with other rows, is left alone as well.
    let mut other = newer.clone();
    other[100] ^= 1;
    fs::write(&part, other).unwrap();
    assert_eq!((grey(&partition, 0), part.exists()), (None, true));
    fs::write(&part, newer).unwrap();
    let partition = cache.images(&fingerprint(50)).unwrap();
    assert_eq!((grey(&partition, 0), grey(&partition, 1)), (None, Some(1)));
    assert!(part.exists(), "neither set aside nor overwritten");
    fill(&partition, 1, 1);
    assert_eq!(parts(&partition.path()).len(), 3);
}

#[test]
fn writers_keep_the_number_of_parts_low_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    // Two processes.
    let writers = [cache.images(&fingerprint(50)).unwrap(), cache.images(&fingerprint(50)).unwrap()];
    const SAMPLES: usize = 300;
    for n in 0..SAMPLES {
        writers[n % 2].commit(&[row(n, n as u8)], &names()).unwrap();
    }
    let path = writers[0].path();
    // Merging goes on beside the writers, who may be faster: they write on until it has caught up.
    let (begun, mut written) = (Instant::now(), SAMPLES);
    while parts(&path).len() >= SAMPLES / 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} parts", parts(&path).len());
        writers[0].commit(&[row(written, 0)], &names()).unwrap();
        written += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    for partition in &writers {
        partition.refresh().unwrap();
        assert_eq!(partition.len(), written);
        for n in 0..SAMPLES {
            assert_eq!(grey(partition, n), Some(n as u8));
        }
    }
    drop(writers);
    assert!(parts(&path).len() < SAMPLES / 2, "{} parts", parts(&path).len());
    let reader = cache.images(&fingerprint(50)).unwrap();
    assert!((0..SAMPLES).all(|n| grey(&reader, n) == Some(n as u8)));
    // Whoever gathered has given its lease back.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

//! The cache's side of `benches/cache.py`, which lets this process and others take turns: it reads one arm a line,
//! answers with one line of JSON, and ends with its input. Its arguments are a folder, the number of rows to be indexed
//! and the number of images.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod timed;

use diver_loaders::cache::{Artifact, ImageForm, ImageRow, LocalStore, Partition, RowKey};
use diver_loaders::refine::{Progress, RawBatch, Silent};
use diver_loaders::{
    Cache, CancelToken, Conditioning, Digest, Identity, Label, Loader, MemorySource, Refine, Refinery,
    Result, RgbImage,
};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use timed::Timed;

const SIDE: usize = 224;
/// Rows that are written at once, as many as a refiner gets.
const BATCH: usize = 32;
/// How long the refiner takes for an image.
const REFINES: Duration = Duration::from_millis(20);

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    // `cargo test --benches` gives none.
    let [folder, rows, images] = &arguments[..] else { return };
    let arms = Arms::new(folder.into(), rows.parse().unwrap(), images.parse().unwrap());
    for line in std::io::stdin().lines() {
        println!("{}", arms.run(&line.unwrap()));
    }
}

struct Arms {
    folder: PathBuf,
    rows: usize,
    images: Vec<Arc<RgbImage>>,
    pngs: Vec<Vec<u8>>,
}

impl Arms {
    fn new(folder: PathBuf, rows: usize, images: usize) -> Self {
        let images: Vec<_> = (0..images).map(|n| Arc::new(image(n, SIDE))).collect();
        let pngs = images.iter().map(|image| image.to_png().unwrap()).collect();
        Self { folder, rows, images, pngs }
    }

    /// What an arm took, in seconds, or the folder that was filled.
    fn run(&self, arm: &str) -> Value {
        let count = self.images.len();
        match arm.split_whitespace().collect::<Vec<_>>()[..] {
            ["fill", "index", each] => self.fill_index(each.parse().unwrap()),
            ["fill", "images"] => self.fill_images(),
            ["index", each] => self.index(each),
            ["random"] => self.read((0..count).map(|n| n * 7919 % count)),
            ["sequential"] => self.read(0..count),
            ["loader"] => self.stream(),
            ["decoder"] => {
                seconds(|| self.pngs.iter().for_each(|png| drop(RgbImage::from_png(png).unwrap()))).into()
            }
            ["refiner"] => self.refine(None),
            ["refiner", "writing"] => {
                let folder = tempfile::tempdir_in(&self.folder).unwrap();
                self.refine(Some(&Cache::open(folder.path()).unwrap()))
            }
            ["write"] => self.write(),
            _ => panic!("no arm {arm}"),
        }
    }

    /// The images as a set.
    fn set(&self, count: usize) -> MemorySource {
        let planar = |image: &Arc<RgbImage>| {
            let bytes = image.as_bytes().to_vec();
            (0..3).flat_map(move |c| {
                bytes[c..].iter().step_by(3).map(|b| f32::from(*b) / 255.0).collect::<Vec<_>>()
            })
        };
        let values = self.images[..count].iter().flat_map(planar).collect();
        MemorySource::unit(count, [3, SIDE, SIDE], values, vec![0; count]).unwrap()
    }

    fn fill_index(&self, each: usize) -> Value {
        let partition = open(&self.folder.join(each.to_string()));
        let image = Arc::new(image(0, 2));
        for first in (0..self.rows).step_by(each) {
            partition.commit(&rows(first..first + each, |_| Arc::clone(&image)), &[]).unwrap();
        }
        json!(partition.path())
    }

    fn fill_images(&self) -> Value {
        let partition = open(&self.folder.join("images"));
        for first in (0..self.images.len()).step_by(BATCH) {
            let last = (first + BATCH).min(self.images.len());
            partition.commit(&rows(first..last, |n| Arc::clone(&self.images[n])), &[]).unwrap();
        }
        json!(partition.path())
    }

    fn index(&self, each: &str) -> Value {
        let folder = self.folder.join(each);
        seconds(|| assert_eq!(open(&folder).len(), self.rows)).into()
    }

    fn read(&self, order: impl Iterator<Item = usize>) -> Value {
        let partition = open(&self.folder.join("images"));
        seconds(|| order.for_each(|n| assert!(partition.get(&key(n)).unwrap().is_some()))).into()
    }

    /// An epoch of refined images from the cache, in order, by as many threads as there are cores.
    fn stream(&self) -> Value {
        let cache = Cache::open(self.folder.join("loader")).unwrap();
        let loader = Loader::builder(self.set(self.images.len())).refiner(Identity).cache(cache);
        let mut loader = loader.batch_size(BATCH).memory_limit(0).build().unwrap();
        let mut epoch = |epoch| {
            let samples: usize = loader.epoch(epoch).map(|batch| batch.unwrap().labels().len()).sum();
            assert_eq!(samples, self.images.len());
        };
        // In the first, samples are hashed, and refined if it is the first of all.
        epoch(0);
        // Batches are made ahead, those of the next epoch, too: of several, one begins and ends with as many at hand.
        const EPOCHS: u64 = 4;
        (seconds(|| (1..=EPOCHS).for_each(epoch)) / EPOCHS as f64).into()
    }

    fn refine(&self, cache: Option<&Cache>) -> Value {
        let count = self.images.len().min(4 * BATCH);
        let mut refinery = Refinery::new(self.set(count), Slow, cache).unwrap();
        seconds(|| assert_eq!(refinery.run(0..count, &CancelToken::new(), &Silent).unwrap().refined, count))
            .into()
    }

    /// A part, and what its making is made of.
    fn write(&self) -> Value {
        let folder = tempfile::tempdir_in(&self.folder).unwrap();
        let store = Timed::new(LocalStore::open(folder.path().to_owned()).unwrap());
        let calls = store.calls();
        let partition = Cache::on(store).images(&json!({ "bench": "write" })).unwrap();
        let count = BATCH.min(self.images.len());
        let rows = rows(0..count, |n| Arc::clone(&self.images[n]));
        calls.lock().unwrap().clear();
        let whole = seconds(|| drop(partition.commit(&rows, &[]).unwrap()));
        let in_store = calls.lock().unwrap().clone();
        let table = seconds(|| drop(ImageRow::table(&rows, &[]).unwrap()));
        let png = seconds(|| rows.iter().for_each(|row| drop(row.image.to_png().unwrap())));
        let digest = seconds(|| self.pngs[..count].iter().for_each(|png| drop(Digest::of(png).to_string())));
        let part = fs::read(partition.path().join("part-00000000.parquet")).unwrap();
        let mut file = fs::File::create(folder.path().join("alone")).unwrap();
        let written = seconds(|| file.write_all(&part).unwrap());
        let synced = seconds(|| file.sync_all().unwrap());
        json!({
            "rows": count,
            "bytes": part.len(),
            "whole": whole,
            "png": png,
            "blake3": digest,
            "arrow": table - png - digest,
            "parquet": whole - table - in_store.values().sum::<f64>(),
            "store": in_store,
            "of put_if_absent, writing alone": written,
            "of put_if_absent, fsync alone": synced,
        })
    }
}

/// A refiner that takes its time on another device, and changes nothing.
struct Slow;

impl Refine for Slow {
    fn fingerprint(&self) -> Option<Value> {
        Some(json!({ "refiner": "slow" }))
    }

    fn preferred_batch(&self) -> usize {
        BATCH
    }

    fn check_conditioning(&self, _: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        let started = Instant::now();
        let images = Identity.refine(batch, cancel, progress);
        std::thread::sleep((REFINES * batch.len() as u32).saturating_sub(started.elapsed()));
        images
    }
}

fn key(n: usize) -> RowKey {
    RowKey::from(Digest::of(&n.to_le_bytes()))
}

fn rows(range: Range<usize>, image: impl Fn(usize) -> Arc<RgbImage>) -> Vec<ImageRow> {
    let row = |n| ImageRow {
        form: ImageForm::Png,
        key: key(n),
        image: image(n),
        label: Label::Hard(0),
        index: n,
        variant: 0,
        seconds: 0.02,
    };
    range.map(row).collect()
}

/// As smooth as photographs are, with some noise.
fn image(n: usize, side: usize) -> RgbImage {
    let mut state = n as u32;
    let noise = (0..side * side * 3).map(|at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((at / 3 % side) as u8).wrapping_add((state >> 29) as u8)
    });
    RgbImage::new(side, side, noise.collect()).unwrap()
}

fn open(folder: &Path) -> Partition {
    Cache::open(folder).unwrap().images(&json!({ "bench": "arms" })).unwrap()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

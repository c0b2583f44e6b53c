//! What the cache costs: `cargo bench -p diver-loaders --bench cache`. How long a process needs to notice a new part and
//! to write one, beside caches with few parts; how long a cache takes to open, and how much memory its index takes; how
//! fast rows are read, beside the decoder alone. `-- --quick` takes small caches, to see that all of it runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use diver_loaders::cache::{ImageForm, ImageRow, Partition, RowKey};
use diver_loaders::{Cache, Digest, Label, RgbImage};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 30;

fn key(n: usize) -> RowKey {
    RowKey::from(Digest::of(&n.to_le_bytes()))
}

fn rows(range: std::ops::Range<usize>, image: &Arc<RgbImage>) -> Vec<ImageRow> {
    let row = |n| ImageRow {
        form: ImageForm::Png,
        key: key(n),
        image: Arc::clone(image),
        label: Label::Hard(n % 10),
        index: n,
        variant: 0,
        seconds: 0.02,
    };
    range.map(row).collect()
}

fn image(side: usize) -> Arc<RgbImage> {
    let mut state = 1_u32;
    let noise = (0..side * side * 3).map(|at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // As smooth as photographs are, with some noise.
        ((at / 3 % side) as u8).wrapping_add((state >> 29) as u8)
    });
    Arc::new(RgbImage::new(side, side, noise.collect()).unwrap())
}

fn open(folder: &Path) -> Partition {
    Cache::open(folder).unwrap().images(&serde_json::json!({ "bench": "cache" })).unwrap()
}

/// Commits so many micro-batches, and returns how many parts there are then: writers merge small ones.
fn fill(folder: &Path, batches: usize, each: usize) -> usize {
    let (partition, image) = (open(folder), image(2));
    for batch in 0..batches {
        partition.commit(&rows(batch * each..(batch + 1) * each, &image), &[]).unwrap();
    }
    drop(partition);
    Cache::open(folder).unwrap().list().unwrap()[0].parts
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

/// A micro-batch: one process commits a part, another one takes note of it.
fn micro_batches(sizes: &[usize]) {
    println!("a micro-batch of 10 rows, written by one process and noticed by another:");
    let mut first = None;
    for batches in sizes {
        let folder = tempfile::tempdir().unwrap();
        let parts = fill(folder.path(), *batches, 10);
        let (writer, reader, image) = (open(folder.path()), open(folder.path()), image(2));
        let (mut wrote, mut noticed) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let first = (batches + round) * 10;
            let rows = rows(first..first + 10, &image);
            wrote.push(seconds(|| drop(writer.commit(&rows, &[]).unwrap())));
            noticed.push(seconds(|| reader.refresh().unwrap()));
            assert!(reader.contains(&key(first)));
        }
        let (wrote, noticed) = (median(wrote), median(noticed));
        let (base_wrote, base_noticed) = *first.get_or_insert((wrote, noticed));
        println!(
            "  after {batches:6} others, in {parts:3} parts: written in {:.2} ms ({:.2}x), noticed in {:.3} ms ({:.2}x)",
            wrote * 1e3,
            wrote / base_wrote,
            noticed * 1e3,
            noticed / base_noticed
        );
    }
}

fn cold(rows: usize, each: &[usize]) {
    for each in each {
        let folder = tempfile::tempdir().unwrap();
        let parts = fill(folder.path(), rows / each, *each);
        let before = resident();
        let mut partition = None;
        let time = seconds(|| partition = Some(open(folder.path())));
        let bytes = resident().saturating_sub(before);
        let found = partition.as_ref().map_or(0, Partition::len);
        println!(
            "{found} rows, written {each} at a time, in {parts} parts: open {time:.3} s, {} bytes of memory a row",
            bytes / found.max(1)
        );
    }
}

fn reading(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (partition, image) = (open(folder.path()), image(256));
    for first in (0..count).step_by(32) {
        partition.commit(&rows(first..(first + 32).min(count), &image), &[]).unwrap();
    }
    let png = image.to_png().unwrap();
    let encode =
        seconds(|| (0..count / 8 + 1).for_each(|_| drop(image.to_png().unwrap()))) / (count / 8 + 1) as f64;
    let write = {
        let folder = tempfile::tempdir().unwrap();
        let partition = open(folder.path());
        seconds(|| drop(partition.commit(&rows(0..32, &image), &[]).unwrap())) / 32.0
    };
    let decode = seconds(|| (0..count).for_each(|_| drop(RgbImage::from_png(&png).unwrap())));
    let read = seconds(|| {
        (0..count).for_each(|n| assert!(partition.get(&key(n * 7919 % count)).unwrap().is_some()));
    });
    println!("{count} images of 256 x 256:");
    println!("  the PNG decoder alone, from memory {:.0} images/s", count as f64 / decode);
    println!("  rows at random {:.0} images/s, {:.2}x of the decoder", count as f64 / read, decode / read);
    println!(
        "  writing {:.2} ms an image, of which {:.2} ms are PNG: {:.1} % of a refiner that takes 20 ms",
        write * 1e3,
        encode * 1e3,
        write / 0.02 * 100.0
    );
}

fn main() {
    if std::env::args().any(|argument| argument == "--quick") {
        micro_batches(&[10, 100]);
        cold(1000, &[100, 10]);
        reading(64);
    } else {
        micro_batches(&[100, 2000, 10_000]);
        cold(100_000, &[1000, 10]);
        reading(2000);
    }
}

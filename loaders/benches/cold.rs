//! What a cold epoch costs beside the refiner alone: `cargo bench -p diver-loaders --bench cold`. The refiner is a stub
//! that sleeps for as long as a GPU would take, for each call and for each image. `-- --quick` takes few images, to see
//! that all of it runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use diver_loaders::refine::{Progress, RawBatch};
use diver_loaders::{
    Cache, CancelToken, Conditioning, Loader, MemorySource, OnMiss, Refine, Result, RgbImage, Source as _,
};
use std::time::{Duration, Instant};

/// Sleeps, and returns grey.
#[derive(Clone)]
struct Stub {
    call: Duration,
    image: Duration,
    preferred: usize,
}

impl Stub {
    /// What `count` images take in calls of the size that it prefers.
    fn alone(&self, count: usize) -> f64 {
        let calls = u32::try_from(count.div_ceil(self.preferred)).unwrap();
        (self.call * calls + self.image * u32::try_from(count).unwrap()).as_secs_f64()
    }
}

impl Refine for Stub {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "bench": "cold" }))
    }

    fn preferred_batch(&self) -> usize {
        self.preferred
    }

    fn check_conditioning(&self, _: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(&mut self, batch: &RawBatch<'_>, _: &CancelToken, _: &dyn Progress) -> Result<Vec<RgbImage>> {
        std::thread::sleep(self.call + self.image * u32::try_from(batch.len()).unwrap());
        let side = batch.width;
        // As smooth as photographs are, with some noise.
        let bytes = |at: usize| ((at / 3 % side) as u8).wrapping_add(((at * 2_654_435_761) >> 29) as u8 & 7);
        (0..batch.len())
            .map(|_| RgbImage::new(side, side, (0..side * side * 3).map(bytes).collect()))
            .collect()
    }
}

/// Images of which no two are equal.
fn set(count: usize, side: usize) -> MemorySource {
    let size = 3 * side * side;
    let value = |at: usize| match at % size {
        0 => at / size % 256,
        1 => at / size / 256,
        place => place % 256,
    };
    let values = (0..count * size).map(|at| value(at) as f32 / 255.0).collect();
    MemorySource::unit(count, [3, side, side], values, vec![0; count]).unwrap()
}

/// Seconds until the first batch, and for the epoch.
fn epoch(set: MemorySource, stub: &Stub, batch: usize, cache: Option<Cache>, on_miss: OnMiss) -> (f64, f64) {
    let count = set.info().num_samples as u64;
    let mut builder =
        Loader::builder(set).refiner(stub.clone()).batch_size(batch).shuffle(true).on_miss(on_miss);
    if let Some(cache) = cache {
        builder = builder.cache(cache);
    }
    let mut loader = builder.build().unwrap();
    let started = Instant::now();
    let mut first = None;
    for batch in loader.epoch(0) {
        batch.unwrap();
        first.get_or_insert_with(|| started.elapsed().as_secs_f64());
    }
    while loader.stats().misses < count {
        std::thread::sleep(Duration::from_millis(2));
    }
    (first.unwrap(), started.elapsed().as_secs_f64())
}

fn main() {
    let is_quick = std::env::args().any(|arg| arg == "--quick");
    let count = if is_quick { 64 } else { 1024 };
    let ms = Duration::from_millis;
    println!(
        "the refiner alone, beside a cold epoch of {count} images of 32 x 32, 40 ms a call and 1 ms an image:"
    );
    println!("{:>10} {:>6} {:>10} {:>12}", "preferred", "batch", "of alone", "first batch");
    for preferred in [128, 32] {
        let stub = Stub { call: ms(40), image: ms(1), preferred };
        for batch in [4, 16, 64] {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::open(folder.path()).unwrap();
            let (first, all) = epoch(set(count, 32), &stub, batch, Some(cache), OnMiss::Wait);
            let own = stub.alone(batch);
            println!(
                "{preferred:>10} {batch:>6} {:>10.3} {:>6.0} + {:.0} ms",
                stub.alone(count) / all,
                own * 1e3,
                (first - own) * 1e3
            );
        }
    }
    let count = count / 2;
    println!("{count} images of 224 x 224, batches of 64, 32 preferred:");
    println!("{:>10} {:>10} {:>10} {:>12}", "ms a image", "disk", "memory", "raw on miss");
    for image in [5, 20] {
        let stub = Stub { call: ms(0), image: ms(image), preferred: 32 };
        let folder = tempfile::tempdir().unwrap();
        let cache = |name: &str| Some(Cache::open(folder.path().join(name)).unwrap());
        let of = |cache, on_miss| stub.alone(count) / epoch(set(count, 224), &stub, 64, cache, on_miss).1;
        let (disk, memory, raw) =
            (of(cache("a"), OnMiss::Wait), of(None, OnMiss::Wait), of(cache("b"), OnMiss::Raw));
        println!("{image:>10} {disk:>10.3} {memory:>10.3} {raw:>12.3}");
        if is_quick {
            break;
        }
    }
}

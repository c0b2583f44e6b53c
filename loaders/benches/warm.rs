//! What a warm epoch costs beside a bare loop that fills the same batches: `cargo bench -p diver-loaders --bench warm`.
//! `-- --quick` takes few images, to see that all of it runs.
//!
//! The bare loop has every image in memory, a list of the order in which they are wanted, and one buffer for each thread: it
//! takes bytes to normalised planes in one pass, or copies floats. The loader looks samples up by a seeded order, finds them in its cache or
//! set, checks that floats are finite, makes targets, and hands batches from threads to the consumer.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use diver_loaders::stream::Permutation;
use diver_loaders::{
    Identity, Label, Loader, MemorySource, Mix, Normalize, Source as _, SourceInfo, ValueSpace,
};
use std::hint::black_box;
use std::time::Instant;

const BATCH: usize = 64;
const ROUNDS: usize = 5;

fn main() {
    let is_quick = std::env::args().any(|arg| arg == "--quick");
    println!("a warm epoch, shuffled, batches of {BATCH}, float32: images a second, and of the bare loop");
    println!("{:>8} {:>16} {:>8} {:>12} {:>12} {:>6}", "", "images", "threads", "bare loop", "loader", "of");
    for (count, side) in [(1000, 224), (50_000, 32)] {
        let count = if is_quick { count / 20 } else { count };
        for is_refined in [true, false] {
            for threads in [1, 2] {
                measure(count, side, is_refined, threads);
            }
        }
    }
}

fn measure(count: usize, side: usize, is_refined: bool, threads: usize) {
    let set = set(count, side);
    let bare = Bare::new(&set, is_refined);
    let builder = Loader::builder(set).shuffle(true).batch_size(BATCH).threads(threads);
    let mut loader = if is_refined {
        builder.refiner(Identity).mix(Mix::constant(1.0).unwrap()).build().unwrap()
    } else {
        builder.build().unwrap()
    };
    let mut epoch = |number: u64| loader.epoch(number).for_each(|batch| drop(black_box(batch.unwrap())));
    // In the first, samples are refined.
    epoch(0);
    let (mut alone, mut streamed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        alone.push(seconds(|| bare.run(threads)));
        // Batches are made ahead, those of the next epoch, too: of several, one begins and ends with as many at hand.
        let first = 1 + 2 * round as u64;
        streamed.push(seconds(|| (first..first + 2).for_each(&mut epoch)) / 2.0);
    }
    let rate = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        count as f64 / times[times.len() / 2]
    };
    let (alone, streamed) = (rate(&mut alone), rate(&mut streamed));
    println!(
        "{:>8} {:>16} {threads:>8} {alone:>12.0} {streamed:>12.0} {:>6.2}",
        if is_refined { "refined" } else { "raw" },
        format!("{count} x {side}^2"),
        streamed / alone
    );
}

fn set(count: usize, side: usize) -> MemorySource {
    let size = 3 * side * side;
    // Images of which no two are equal.
    let value = |at: usize| match at % size {
        0 => at / size % 256,
        1 => at / size / 256,
        place => place % 256,
    };
    let normalize = Normalize::IMAGENET;
    let area = side * side;
    let values =
        (0..count * size).map(|at| normalize.apply(at % size / area, value(at) as f32 / 255.0)).collect();
    let one = MemorySource::unit(1, [3, side, side], vec![0.0; size], vec![0]).unwrap();
    let value_space = ValueSpace::Normalized(normalize);
    let info = SourceInfo { num_samples: count, value_space, ..one.info().clone() };
    MemorySource::new(info, values, vec![Label::Hard(0); count]).unwrap()
}

/// Images in memory, as bytes with their channels interleaved, or as normalised floats, and their order.
struct Bare {
    images: Images,
    size: usize,
    order: Vec<usize>,
}

enum Images {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Bare {
    fn new(set: &MemorySource, is_refined: bool) -> Self {
        let info = set.info();
        let size: usize = info.shape.iter().product();
        let values = 0..info.num_samples * size;
        let images = match is_refined {
            true => Images::Bytes(values.map(|at| at as u8).collect()),
            false => Images::Floats(values.map(|at| at as f32).collect()),
        };
        let mut order: Vec<usize> = (0..info.num_samples).collect();
        Permutation::new(order.len(), "bench", 0, 0).send(&mut order);
        Self { images, size, order }
    }

    /// Fills every batch of an epoch, by several threads.
    fn run(&self, threads: usize) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || self.share(thread, threads));
            }
        });
    }

    fn share(&self, thread: usize, threads: usize) {
        let mut batch = vec![0.0; BATCH * self.size];
        for indices in self.order.chunks(BATCH).skip(thread).step_by(threads) {
            for (index, out) in indices.iter().zip(batch.chunks_exact_mut(self.size)) {
                let range = index * self.size..(index + 1) * self.size;
                match &self.images {
                    Images::Bytes(bytes) => normalise(&bytes[range], out),
                    Images::Floats(values) => out.copy_from_slice(&values[range]),
                }
            }
            black_box(&batch);
        }
    }
}

fn normalise(image: &[u8], out: &mut [f32]) {
    let Normalize { mean, std } = Normalize::IMAGENET;
    let (red, rest) = out.split_at_mut(image.len() / 3);
    let (green, blue) = rest.split_at_mut(image.len() / 3);
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((r, g), b)) in image.as_chunks::<3>().0.iter().zip(planes) {
        *r = f32::from(pixel[0]) * (1.0 / 255.0 / std[0]) - mean[0] / std[0];
        *g = f32::from(pixel[1]) * (1.0 / 255.0 / std[1]) - mean[1] / std[1];
        *b = f32::from(pixel[2]) * (1.0 / 255.0 / std[2]) - mean[2] / std[2];
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

//! How fast sets open and images decode: `cargo bench -p diver-loaders --bench sources`. Decoding is timed beside the
//! decoder alone, and opening a folder beside `find`, which looks at every file, too, in turns in one run; the ratios
//! are what counts. Opening one large file has nothing beside it.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use diver_loaders::{Loader, Source, open};
use image::{ImageFormat, RgbImage};
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 5;
/// As large as most methods' images of ImageNet.
const SIDE: u32 = 224;
const DECODED: usize = 600;
const SCANNED: usize = 50_000;
const CLASSES: usize = 10;
/// Of 3 x 32 x 32 floats: 2.2 GB.
const LARGE: u64 = 180_000;

fn main() {
    // `cargo test --benches` asks for none.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    decoding();
    scanning();
    opening();
}

fn decoding() {
    let folder = tempfile::tempdir().unwrap();
    write_jpegs(folder.path(), DECODED, SIDE);
    let files: Vec<Vec<u8>> = (0..DECODED).map(|i| fs::read(path_of(folder.path(), i)).unwrap()).collect();
    let source = open(folder.path()).unwrap();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut loader =
        Loader::builder(open(folder.path()).unwrap()).batch_size(50).shuffle(true).build().unwrap();

    let (mut alone, mut by_sample, mut by_loader) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(seconds(|| {
            on_threads(cores, |i| {
                let image = image::load_from_memory(&files[i]).unwrap().into_rgb8();
                std::hint::black_box(image);
            });
        }));
        by_sample.push(seconds(|| {
            on_threads(cores, |i| {
                std::hint::black_box(source.sample(i).unwrap());
            });
        }));
        by_loader.push(seconds(|| {
            for batch in loader.iter() {
                std::hint::black_box(batch.unwrap().images());
            }
        }));
    }
    let rate = |seconds: &[f64]| DECODED as f64 / median(seconds);
    println!("{DECODED} JPEGs of {SIDE} x {SIDE}, {cores} threads, images/s:");
    println!("  the decoder alone, from memory {:8.0}", rate(&alone));
    for (name, seconds) in [("Source::sample", &by_sample), ("an epoch of Loader", &by_loader)] {
        println!("  {name:30} {:8.0}  {:.2}x of the decoder", rate(seconds), ratio(&alone, seconds));
    }
}

fn scanning() {
    let folder = tempfile::tempdir().unwrap();
    write_jpegs(folder.path(), SCANNED, 8);
    let (mut find, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        find.push(seconds(|| {
            let found =
                Command::new("find").arg(folder.path()).args(["-type", "f", "-printf", "%s\n"]).output();
            assert!(found.unwrap().stdout.len() > SCANNED);
        }));
        opened.push(seconds(|| assert_eq!(open(folder.path()).unwrap().info().samples, SCANNED)));
    }
    println!("a folder of {SCANNED} JPEGs:");
    println!(
        "  find with sizes {:.3} s, open {:.3} s: {:.2}x",
        median(&find),
        median(&opened),
        ratio(&opened, &find)
    );
}

fn opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let (images, labels) = (LARGE * 3 * 32 * 32 * 4, LARGE * 8);
    let header = format!(
        r#"{{"images":{{"dtype":"F32","shape":[{LARGE},3,32,32],"data_offsets":[0,{images}]}},"labels":{{"dtype":"I64","shape":[{LARGE}],"data_offsets":[{images},{}]}}}}"#,
        images + labels
    );
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend(header.as_bytes());
    fs::write(&path, &head).unwrap();
    // Zeros that take no space.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(head.len() as u64 + images + labels)
        .unwrap();
    let times: Vec<f64> = (0..ROUNDS)
        .map(|_| seconds(|| assert_eq!(open(&path).unwrap().info().samples as u64, LARGE)))
        .collect();
    println!("a file of {:.1} GB: open {:.3} s", (images + labels) as f64 / 1e9, median(&times));
}

fn path_of(folder: &Path, index: usize) -> std::path::PathBuf {
    folder.join((index % CLASSES).to_string()).join(format!("{:06}.jpg", index / CLASSES))
}

/// Waves of every colour and length, so that no image compresses to nothing; large sets repeat a few.
fn write_jpegs(folder: &Path, count: usize, side: u32) {
    (0..CLASSES).for_each(|class| fs::create_dir(folder.join(class.to_string())).unwrap());
    let encoded: Vec<Vec<u8>> = (0..count.min(50))
        .map(|index| {
            let image = RgbImage::from_fn(side, side, |x, y| {
                let wave = |speed: f32| {
                    let angle = speed * (x as f32 * (index + 1) as f32 + y as f32 * 1.7) / 50.0;
                    (128.0 + 100.0 * angle.sin() + 20.0 * (7.0 * angle).cos()) as u8
                };
                image::Rgb([wave(1.0), wave(0.6), wave(2.3)])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
            bytes.into_inner()
        })
        .collect();
    (0..count).for_each(|index| fs::write(path_of(folder, index), &encoded[index % encoded.len()]).unwrap());
}

/// Calls `work` with every index below [`DECODED`], shared out over threads.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || (thread..DECODED).step_by(threads).for_each(work));
        }
    });
}

fn seconds(run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    started.elapsed().as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The median of the rounds' ratios.
fn ratio(a: &[f64], b: &[f64]) -> f64 {
    median(&a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>())
}

//! How fast sets open and images decode: `cargo bench -p diver-loaders --bench sources`. Decoding is timed beside the
//! decoder alone, opening a folder beside `find`, which looks at every file, too, and opening a table beside the crate
//! `parquet` reading its footer and labels, in turns in one run; the ratios are what counts. Opening one large file has
//! nothing beside it. `-- --quick` takes small sets, to see that all of it runs: its ratios mean little.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use diver_loaders::{Loader, Source, open};
use image::{ImageFormat, RgbImage};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::file::properties::WriterProperties;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 5;
/// As large as most methods' images of ImageNet.
const SIDE: u32 = 224;
const CLASSES: usize = 10;
/// Rows of a table that are written at once, and of its row groups.
const GROUP: usize = 10_000;

/// How many images each part of the benchmark has.
struct Sizes {
    decoded: usize,
    scanned: usize,
    rows: usize,
    /// Of 3 x 32 x 32 floats.
    large: u64,
}

const WHOLE: Sizes = Sizes { decoded: 600, scanned: 50_000, rows: 1_000_000, large: 180_000 };
const QUICK: Sizes = Sizes { decoded: 50, scanned: 1000, rows: 20_000, large: 1000 };

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    // `cargo test --benches` asks for none.
    if !has("--bench") {
        return;
    }
    let sizes = if has("--quick") { QUICK } else { WHOLE };
    decoding(sizes.decoded);
    scanning(sizes.scanned);
    table(sizes.rows);
    opening(sizes.large);
}

fn decoding(images: usize) {
    let folder = tempfile::tempdir().unwrap();
    write_jpegs(folder.path(), images, SIDE);
    let files: Vec<Vec<u8>> = (0..images).map(|i| fs::read(path_of(folder.path(), i)).unwrap()).collect();
    let source = open(folder.path()).unwrap();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut loader =
        Loader::builder(open(folder.path()).unwrap()).batch_size(50).shuffle(true).build().unwrap();

    let (mut alone, mut by_sample, mut by_loader) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(seconds(|| {
            on_threads(cores, images, |i| {
                let image = image::load_from_memory(&files[i]).unwrap().into_rgb8();
                std::hint::black_box(image);
            });
        }));
        by_sample.push(seconds(|| {
            on_threads(cores, images, |i| {
                std::hint::black_box(source.sample(i).unwrap());
            });
        }));
        by_loader.push(seconds(|| {
            for batch in loader.iter() {
                std::hint::black_box(batch.unwrap().image_bytes());
            }
        }));
    }
    let rate = |seconds: &[f64]| images as f64 / median(seconds);
    println!("{images} JPEGs of {SIDE} x {SIDE}, {cores} threads, images/s:");
    println!("  the decoder alone, from memory {:8.0}", rate(&alone));
    for (name, seconds) in [("Source::sample", &by_sample), ("an epoch of Loader", &by_loader)] {
        println!("  {name:30} {:8.0}  {:.2}x of the decoder", rate(seconds), ratio(&alone, seconds));
    }
}

fn scanning(images: usize) {
    let folder = tempfile::tempdir().unwrap();
    write_jpegs(folder.path(), images, 8);
    let (mut find, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        find.push(seconds(|| {
            let found =
                Command::new("find").arg(folder.path()).args(["-type", "f", "-printf", "%s\n"]).output();
            assert!(found.unwrap().stdout.len() > images);
        }));
        opened.push(seconds(|| assert_eq!(open(folder.path()).unwrap().info().num_samples, images)));
    }
    println!("a folder of {images} JPEGs:");
    println!(
        "  find with sizes {:.3} s, open {:.3} s: {:.2}x",
        median(&find),
        median(&opened),
        ratio(&opened, &find)
    );
}

/// A table of small images as `datasets` writes them.
fn table(rows: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    write_table(&path, rows);
    let (mut read, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        read.push(seconds(|| assert_eq!(labels(&path), rows)));
        opened.push(seconds(|| assert_eq!(open(&path).unwrap().info().num_samples, rows)));
    }
    println!("a table of {rows} images:");
    println!(
        "  its footer and labels {:.3} s, open {:.3} s: {:.2}x",
        median(&read),
        median(&opened),
        ratio(&opened, &read)
    );
}

fn write_table(path: &Path, rows: usize) {
    let fields = Fields::from(vec![Field::new("bytes", DataType::Binary, true)]);
    let pngs: Vec<Vec<u8>> = (0..CLASSES as u8)
        .map(|red| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            RgbImage::from_pixel(4, 4, image::Rgb([red, 7, 9]))
                .write_to(&mut bytes, ImageFormat::Png)
                .unwrap();
            bytes.into_inner()
        })
        .collect();
    let group = |rows: std::ops::Range<usize>| {
        let bytes = BinaryArray::from_iter_values(rows.clone().map(|row| &pngs[row % CLASSES]));
        let images = StructArray::new(fields.clone(), vec![Arc::new(bytes) as ArrayRef], None);
        let labels = Int64Array::from_iter_values(rows.map(|row| (row % CLASSES) as i64));
        let columns: [(&str, ArrayRef); 2] = [("image", Arc::new(images)), ("label", Arc::new(labels))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    // Images do not repeat in real tables: without this, a dictionary of ten would take all of this one's place.
    let properties = WriterProperties::builder().set_dictionary_enabled(false);
    let properties = properties.set_max_row_group_row_count(Some(GROUP)).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, group(0..1).schema(), Some(properties)).unwrap();
    for first in (0..rows).step_by(GROUP) {
        writer.write(&group(first..rows.min(first + GROUP))).unwrap();
    }
    writer.close().unwrap();
}

/// Reads the footer of a table and its labels, and returns how many there are.
fn labels(path: &Path) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["label"]);
    let batches = reader.with_projection(mask).build().unwrap();
    batches.map(|batch| std::hint::black_box(batch.unwrap()).num_rows()).sum()
}

fn opening(samples: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let (images, labels) = (samples * 3 * 32 * 32 * 4, samples * 8);
    let header = format!(
        r#"{{"images":{{"dtype":"F32","shape":[{samples},3,32,32],"data_offsets":[0,{images}]}},"labels":{{"dtype":"I64","shape":[{samples}],"data_offsets":[{images},{}]}}}}"#,
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
        .map(|_| seconds(|| assert_eq!(open(&path).unwrap().info().num_samples as u64, samples)))
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

/// Calls `work` with every index below `count`, shared out over threads.
fn on_threads(threads: usize, count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || (thread..count).step_by(threads).for_each(work));
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

//! The fuzz targets on the inputs that are kept: sound ones, and what once failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/fuzz/readers.rs"]
mod readers;

use diver_loaders::cache::{Row, RowKey};
use diver_loaders::export::{ExportFormat, export};
use diver_loaders::{Cache, CancelToken, Digest, Label, MemorySource, RgbImage, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

#[test]
fn what_is_kept_is_read_without_a_panic() {
    let mut count = 0;
    for (target, reader) in readers::READERS {
        let folder = tempfile::tempdir().unwrap();
        for input in fs::read_dir(corpus(target)).into_iter().flatten() {
            let input = input.unwrap().path();
            // Shown where one fails.
            println!("{}", input.display());
            reader(folder.path(), &fs::read(&input).unwrap());
            count += 1;
        }
    }
    assert!(count > readers::READERS.len() / 2, "the corpus is there");
}

/// `cargo test -p diver-loaders --test fuzz_corpus -- --ignored`
#[test]
#[ignore = "writes the seeds that no fixture is for"]
fn write_seeds() {
    let values: Vec<f32> = (0..2 * 48).map(|value| value as f32 / 95.0).collect();
    let set = MemorySource::unit(2, [3, 4, 4], values, vec![1, 0]).unwrap();
    let made = tempfile::tempdir().unwrap();
    for (format, target, file) in [
        (ExportFormat::Parquet, "parquet", "data-00000.parquet"),
        (ExportFormat::WebDataset, "webdataset", "data-000000.tar"),
        (ExportFormat::Safetensors, "safetensors", "data.safetensors"),
        (ExportFormat::ImageFolder, "image", "00001/class00001_id00000.png"),
        (ExportFormat::Dc, "norm", "norm.json"),
    ] {
        let folder = made.path().join(target);
        let samples = (0..2).map(|index| set.sample(index));
        export(set.info(), samples, format, &folder, &CancelToken::new()).unwrap();
        fs::create_dir_all(corpus(target)).unwrap();
        fs::copy(folder.join(file), corpus(target).join("sound")).unwrap();
    }

    let generation = Cache::open(made.path().join("cache")).unwrap();
    let generation = generation.generation(&serde_json::json!({})).unwrap();
    let rows = readers::CACHED.map(|key| Row {
        key: RowKey::from(Digest::of(key)),
        image: Arc::new(RgbImage::new(2, 2, vec![7; 12]).unwrap()),
        label: Label::Hard(1),
        index: 0,
        variant: 0,
        seconds: 0.5,
    });
    generation.commit(&rows, &["cat".to_owned(), "dog".to_owned()]).unwrap();
    fs::create_dir_all(corpus("cache")).unwrap();
    fs::copy(generation.path().join("part-00000000.parquet"), corpus("cache").join("sound")).unwrap();
}

//! The fuzz targets on the inputs that are kept: sound ones, and what once failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/fuzz/readers.rs"]
mod readers;

use diver_loaders::cache::{ImageForm, ImageRow, RowKey};
use diver_loaders::export::{ExportFormat, export};
use diver_loaders::{
    Cache, CancelToken, ClassMap, Digest, Label, MemorySource, RgbImage, Source, SourceInfo,
};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

/// Sound inputs of targets that fixtures are for; libFuzzer begins with all fixtures.
const FIXTURES: [(&str, &str); 16] = [
    ("torch", "torch/small.pt"),
    ("torch", "torch/small_legacy.pt"),
    ("mtt_images", "torch/CIFAR100/best/images_best.pt"),
    ("mtt_labels", "torch/CIFAR100/best/labels_best.pt"),
    ("mtt_labels", "torch/edf/Normal/lr_best.pt"),
    ("pickle", "torch/named/arrays.pkl"),
    ("pickle", "torch/named/tensors.pkl"),
    ("torch", "torch/named/subset.pt"),
    ("npz", "torch/named/compressed.npz"),
    ("arrow", "arrow/train/data-00000-of-00001.arrow"),
    ("arrow", "feather/lz4/train.feather"),
    ("arrow", "feather/zstd/train.feather"),
    ("fkd", "fkd/cutmix/epoch_0/batch_0.tar"),
    ("parts", "torch/CIFAR100/best/images_best.pt"),
    ("zca", "torch/zca/transform.pt"),
    ("zca", "torch/zca/transform.safetensors"),
];

#[test]
fn what_is_kept_is_read_without_a_panic_and_what_is_sound_is_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for (target, reader) in readers::READERS {
        let folder = tempfile::tempdir().unwrap();
        let kept = fs::read_dir(corpus(target)).into_iter().flatten().map(|input| input.unwrap().path());
        let of_target = FIXTURES.iter().filter(|(of, _)| *of == target);
        let mut sound = 0;
        for input in kept.chain(of_target.map(|(_, fixture)| fixtures.join(fixture))) {
            // Shown where one fails.
            println!("{target}: {}", input.display());
            let is_read = reader(folder.path(), &fs::read(&input).unwrap());
            let name = input.file_name().unwrap().to_str().unwrap();
            if name.starts_with("sound") || input.starts_with(&fixtures) {
                assert!(is_read, "{target} does not read {}", input.display());
                sound += 1;
            }
        }
        assert!(sound > 0, "{target} has a sound input");
    }
}

/// A tensor of floats as numpy's npy.
fn npy(shape: &str, values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
    bytes
}

/// `cargo test -p diver-loaders --test fuzz_corpus -- --ignored`
#[test]
#[ignore = "writes the seeds that no fixture is for"]
fn write_seeds() {
    let values: Vec<f32> = (0..2 * 48).map(|value| value as f32 / 95.0).collect();
    let set = MemorySource::unit(2, [3, 4, 4], values, vec![1, 0]).unwrap();
    // What is written of classes is read, too.
    let info = SourceInfo {
        classes: Some(vec!["tench".to_owned(), "English springer".to_owned()]),
        class_map: ClassMap::indices(vec![0, 217]).unwrap(),
        ..set.info().clone()
    };
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
        export(&info, samples, format, &folder, &CancelToken::new()).unwrap();
        fs::create_dir_all(corpus(target)).unwrap();
        fs::copy(folder.join(file), corpus(target).join("sound")).unwrap();
    }

    // A transform of the whitened fixture's images, of 12 values, in numpy's kind of file.
    fs::create_dir_all(corpus("zca")).unwrap();
    let mut npz = zip::ZipWriter::new(fs::File::create(corpus("zca").join("sound")).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let identity = (0..144).map(|place| f32::from(u8::from(place % 13 == 0)));
    for (name, array) in
        [("mean_vector", npy("(12,)", [0.5; 12])), ("transform_inv", npy("(12, 12)", identity))]
    {
        npz.start_file(format!("{name}.npy"), stored).unwrap();
        npz.write_all(&array).unwrap();
    }
    npz.finish().unwrap();

    let partition = Cache::open(made.path().join("cache")).unwrap();
    let partition = partition.images(&serde_json::json!({})).unwrap();
    let rows = readers::CACHED.map(|key| ImageRow {
        form: ImageForm::Png,
        key: RowKey::from(Digest::of(key)),
        image: Arc::new(RgbImage::new(2, 2, vec![7; 12]).unwrap()),
        label: Label::Hard(1),
        index: 0,
        variant: 0,
        seconds: 0.5,
    });
    partition.commit(&rows, &["cat".to_owned(), "dog".to_owned()]).unwrap();
    fs::create_dir_all(corpus("cache")).unwrap();
    fs::copy(partition.path().join("part-00000000.parquet"), corpus("cache").join("sound")).unwrap();
}

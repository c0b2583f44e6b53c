//! The fuzz targets on the inputs that are kept: sound ones, and what once failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/fuzz/bounded.rs"]
mod bounded;
#[path = "../../tests/fuzz/readers.rs"]
mod readers;

use diver_loaders::cache::{Artifact, ImageForm, ImageRow, LogitForm, LogitRow, RowKey};
use diver_loaders::export::{ExportFormat, export};
use diver_loaders::refine::{Progress, RawBatch, Silent};
use diver_loaders::{
    Cache, CancelToken, ClassMap, Conditioning, Digest, Identity, Label, MemorySource, Refine, Refinery,
    Result, RgbImage, Source, SourceInfo,
};
use readers::caches::{CACHED, leased};
use std::fs;
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static BOUNDED: bounded::Bounded = bounded::Bounded;

/// What one input may take, on a machine that is busy. All together take a second.
const LONGEST: Duration = Duration::from_secs(20);

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
            let start = Instant::now();
            let is_read = reader(folder.path(), &fs::read(&input).unwrap());
            assert!(start.elapsed() < LONGEST, "{target} takes too long for {}", input.display());
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

    write_seeds_of_caches(made.path());
}

fn write_seeds_of_caches(made: &Path) {
    let cache = Cache::open(made.join("cache")).unwrap();
    let classes = ["cat".to_owned(), "dog".to_owned()];
    let keep = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    };
    let key = |key: &[u8]| RowKey::from(Digest::of(key));

    let partition = cache.images(&serde_json::json!({})).unwrap();
    let rows = CACHED.map(|name| ImageRow {
        form: ImageForm::Png,
        key: key(name),
        image: Arc::new(RgbImage::new(2, 2, vec![7; 12]).unwrap()),
        label: Label::Hard(1),
        index: 0,
        variant: 0,
        seconds: 0.5,
    });
    partition.commit(&rows, &classes).unwrap();
    keep("cache", "sound", &fs::read(partition.path().join("part-00000000.parquet")).unwrap());
    let table = ImageRow::table(&rows[..1], &classes).unwrap();
    keep("rows", "sound_image", &ImageRow::content(&table).unwrap());

    for (half, top_k) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
        let form = LogitForm { half, top_k: NonZero::new(top_k) };
        let rows = CACHED.map(|name| LogitRow::new(key(name), 1, &[0.5, -2.0, 3.0, 0.25], form).unwrap());
        let name = format!(
            "sound{}{}",
            if half { "_float16" } else { "_float32" },
            if top_k > 0 { "_top" } else { "" }
        );
        let partition = cache.logits(&serde_json::json!({ "form": name })).unwrap();
        partition.commit(&rows, &classes).unwrap();
        keep("logits", &name, &fs::read(partition.path().join("part-00000000.parquet")).unwrap());
        let table = LogitRow::table(&rows[..1], &classes).unwrap();
        keep("rows", &name, &LogitRow::content(&table).unwrap());
    }

    let folder = made.join("leased");
    let refiner = Held { folder: folder.clone() };
    let mut refinery = Refinery::new(leased(), refiner, Some(&Cache::open(&folder).unwrap())).unwrap();
    refinery.run(0..1, &CancelToken::new(), &Silent).unwrap();
}

/// A refiner that keeps the lease of what it refines.
struct Held {
    folder: PathBuf,
}

impl Refine for Held {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Identity.fingerprint()
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
        let folders = fs::read_dir(&self.folder).unwrap().map(|folder| folder.unwrap().path());
        let leases = folders.filter(|folder| folder.to_str().unwrap().ends_with("-leases"));
        let lease = leases.flat_map(|folder| fs::read_dir(folder).unwrap()).next().unwrap().unwrap().path();
        fs::create_dir_all(corpus("leases")).unwrap();
        fs::copy(lease, corpus("leases").join("sound")).unwrap();
        Identity.refine(batch, cancel, progress)
    }
}

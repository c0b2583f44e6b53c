//! Every reader of diver, on bytes from anywhere: none may panic, hang, or ask for much memory at once. `make fuzz` runs
//! them under libFuzzer, and `loaders/tests/fuzz_corpus.rs` on the inputs in `corpus/`, where those that once failed are
//! kept.

use diver_loaders::cache::RowKey;
use diver_loaders::source::OpenOptions;
use diver_loaders::source::fkd::SoftLabels;
use diver_loaders::{Cache, CancelToken, ClassMap, Digest, Source, open};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A reader of one kind of file.
pub(crate) type Reader = fn(&Path, &[u8]);

/// The readers by the names of their targets. Each gets an empty folder, or the one that it had before.
pub(crate) const READERS: [(&str, Reader); 15] = [
    ("torch", torch),
    ("mtt_images", mtt_images),
    ("mtt_labels", mtt_labels),
    ("npz", npz),
    ("safetensors", safetensors),
    ("parquet", parquet),
    ("arrow", arrow),
    ("webdataset", webdataset),
    ("image", image),
    ("fkd", fkd),
    ("classes", classes),
    ("norm", norm),
    ("parts", parts),
    ("zca", zca),
    ("cache", cache),
];

/// What the keys of the sound part in `corpus/cache` are digests of.
pub(crate) const CACHED: [&[u8]; 2] = [b"first", b"second"];

/// Samples of a set that are read.
const READ: usize = 4;

fn torch(folder: &Path, bytes: &[u8]) {
    set(folder, "set.pt", bytes);
}

fn mtt_images(folder: &Path, bytes: &[u8]) {
    write(folder, "labels_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    write(folder, "images_best.pt", bytes);
    read(folder);
}

fn mtt_labels(folder: &Path, bytes: &[u8]) {
    write(folder, "images_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/images_best.pt"));
    write(folder, "labels_best.pt", bytes);
    read(folder);
    // The learning rate that EDF and DATM store is read by the same name.
    write(folder, "labels_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    write(folder, "lr_best.pt", bytes);
    read(folder);
    let _ = fs::remove_file(folder.join("lr_best.pt"));
}

fn npz(folder: &Path, bytes: &[u8]) {
    set(folder, "set.npz", bytes);
}

fn safetensors(folder: &Path, bytes: &[u8]) {
    set(folder, "set.safetensors", bytes);
}

fn parquet(folder: &Path, bytes: &[u8]) {
    set(folder, "set.parquet", bytes);
}

fn arrow(folder: &Path, bytes: &[u8]) {
    set(folder, "set.arrow", bytes);
}

fn webdataset(folder: &Path, bytes: &[u8]) {
    set(folder, "set.tar", bytes);
}

fn image(folder: &Path, bytes: &[u8]) {
    let _ = fs::create_dir(folder.join("0"));
    write(folder, "0/image.png", bytes);
    read(folder);
}

fn fkd(folder: &Path, bytes: &[u8]) {
    static IMAGES: LazyLock<Box<dyn Source>> = LazyLock::new(|| {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let images = images.map(|root| root.join("tests/fixtures/fkd/images")).find(|path| path.is_dir());
        open(images.expect("the fixtures are there")).expect("they are sound")
    });
    let epoch = folder.join("epoch_0");
    let _ = fs::create_dir(&epoch);
    write(&epoch, "batch_0.tar", bytes);
    // The other batches' sizes make up for no damage to the first one's.
    write(&epoch, "batch_1.tar", include_bytes!("../fixtures/fkd/cutmix/epoch_0/batch_1.tar"));
    write(&epoch, "batch_2.tar", include_bytes!("../fixtures/fkd/cutmix/epoch_0/batch_2.tar"));
    if let Ok(labels) = SoftLabels::open(folder, &**IMAGES)
        && let Ok(views) = labels.views(0, 0)
    {
        let _ = views.pixels(&**IMAGES, 8, &IMAGES.info().normalize, &CancelToken::new());
    }
}

fn classes(folder: &Path, bytes: &[u8]) {
    let path = write(folder, "classes.txt", bytes);
    if let Ok(map) = ClassMap::from_file(path) {
        let _ = map.conditioning(0);
    }
}

fn norm(folder: &Path, bytes: &[u8]) {
    write(folder, "norm.json", bytes);
    set(folder, "res_DM_CIFAR10_1ipc.pt", include_bytes!("../fixtures/torch/small.pt"));
}

/// A part of a set in several, beside a sound one.
fn parts(folder: &Path, bytes: &[u8]) {
    write(folder, "images_best_0.pt", include_bytes!("../fixtures/torch/CIFAR100/best/images_best.pt"));
    write(folder, "labels_best_0.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    write(folder, "images_best_1.pt", bytes);
    write(folder, "labels_best_1.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    read(folder);
}

/// The transform of a whitened set, in each kind of file.
fn zca(folder: &Path, bytes: &[u8]) {
    write(folder, "images_best.pt", include_bytes!("../fixtures/torch/zca/images_best.pt"));
    write(folder, "labels_best.pt", include_bytes!("../fixtures/torch/zca/labels_best.pt"));
    // By its first bytes one of torch or safetensors, or else by its name one of npz.
    for name in ["zca", "zca.npz"] {
        let transform = write(folder, name, bytes);
        read_with(&OpenOptions::new().zca(transform), folder);
    }
}

fn cache(folder: &Path, bytes: &[u8]) {
    let cache = Cache::open(folder.join("cache")).expect("a folder can be made");
    let fingerprint = serde_json::json!({"refiner": "fuzz"});
    let generation = cache.generation(&fingerprint).expect("a folder can be made");
    write(generation.path(), "part-00000000.parquet", bytes);
    let _ = generation.refresh();
    for key in CACHED {
        let _ = generation.get(&RowKey::from(Digest::of(key)));
    }
    // A damaged part was given another name.
    let _ = fs::remove_dir_all(folder.join("cache"));
}

/// Opens a set in a file of its own.
fn set(folder: &Path, name: &str, bytes: &[u8]) {
    read(&write(folder, name, bytes));
}

/// Reads what a training would.
fn read(path: &Path) {
    read_with(&OpenOptions::new(), path);
}

fn read_with(options: &OpenOptions, path: &Path) {
    let Ok(source) = options.open(path) else { return };
    let info = source.info();
    for index in (0..info.samples.min(READ)).chain([info.samples - 1]) {
        let _ = source.label(index);
        if let Ok(sample) = source.sample(index) {
            let _ = (sample.digest(), sample.to_pixels(&info.value_space));
        }
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder can be written to");
    path
}

//! Every reader of diver, on bytes from anywhere: none may panic, hang, or ask for much memory at once. `make fuzz` runs
//! them under libFuzzer, and `loaders/tests/fuzz_corpus.rs` on the inputs in `corpus/`, where those that once failed are
//! kept.

// Two crates use this file, one by its name and one by its path.
#[path = "caches.rs"]
pub(crate) mod caches;

use diver_loaders::labels::fkd::SoftLabels;
use diver_loaders::source::{OpenOptions, SourceInfo};
use diver_loaders::{CancelToken, ClassMap, Source, open};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A reader of one kind of file; whether it could read it.
pub(crate) type Reader = fn(&Path, &[u8]) -> bool;

/// The readers by the names of their targets. Each gets an empty folder, or the one that it had before.
pub(crate) const READERS: [(&str, Reader); 20] = [
    ("torch", torch),
    ("pickle", pickle),
    ("mtt_images", mtt_images),
    ("mtt_labels", mtt_labels),
    ("npz", npz),
    ("safetensors", safetensors),
    ("parquet", parquet),
    ("arrow", arrow),
    ("webdataset", webdataset),
    ("zip", zip),
    ("image", image),
    ("fkd", fkd),
    ("classes", classes),
    ("norm", norm),
    ("parts", parts),
    ("zca", zca),
    ("cache", caches::cache),
    ("logits", caches::logits),
    ("rows", caches::rows),
    ("leases", caches::leases),
];

/// Samples of a set that are read.
const READ: usize = 4;

fn torch(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.pt", bytes)
}

fn pickle(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.pkl", bytes)
}

fn mtt_images(folder: &Path, bytes: &[u8]) -> bool {
    keep(folder, "labels_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    write(folder, "images_best.pt", bytes);
    read(folder).is_some()
}

fn mtt_labels(folder: &Path, bytes: &[u8]) -> bool {
    // The learning rate that EDF and DATM store is read by the same reader.
    let read = ["labels_best.pt", "lr_best.pt"].map(|name| {
        let folder = folder.join(name);
        let _ = fs::create_dir(&folder);
        keep(&folder, "images_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/images_best.pt"));
        if name != "labels_best.pt" {
            keep(&folder, "labels_best.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
        }
        write(&folder, name, bytes);
        read(&folder).is_some()
    });
    read.contains(&true)
}

fn npz(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.npz", bytes)
}

fn safetensors(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.safetensors", bytes)
}

fn parquet(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.parquet", bytes)
}

fn arrow(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.arrow", bytes)
}

fn webdataset(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.tar", bytes)
}

/// Class folders in a zip file.
fn zip(folder: &Path, bytes: &[u8]) -> bool {
    set(folder, "set.zip", bytes)
}

fn image(folder: &Path, bytes: &[u8]) -> bool {
    let _ = fs::create_dir(folder.join("0"));
    write(folder, "0/image.png", bytes);
    read(folder).is_some()
}

fn fkd(folder: &Path, bytes: &[u8]) -> bool {
    static IMAGES: LazyLock<Box<dyn Source>> = LazyLock::new(|| {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let images = images.map(|root| root.join("tests/fixtures/fkd/images")).find(|path| path.is_dir());
        open(images.expect("the fixtures are there")).expect("they are sound")
    });
    let epoch = folder.join("epoch_0");
    let _ = fs::create_dir(&epoch);
    write(&epoch, "batch_0.tar", bytes);
    // The other batches' sizes make up for no damage to the first one's.
    keep(&epoch, "batch_1.tar", include_bytes!("../fixtures/fkd/cutmix/epoch_0/batch_1.tar"));
    keep(&epoch, "batch_2.tar", include_bytes!("../fixtures/fkd/cutmix/epoch_0/batch_2.tar"));
    let views = SoftLabels::open(folder, &**IMAGES).and_then(|labels| labels.views(0, 0));
    views
        .is_ok_and(|views| views.pixels(&**IMAGES, 12, &IMAGES.info().normalize, &CancelToken::new()).is_ok())
}

fn classes(folder: &Path, bytes: &[u8]) -> bool {
    let path = write(folder, "classes.txt", bytes);
    ClassMap::from_file(path).is_ok_and(|map| map.conditioning(0).is_ok())
}

fn norm(folder: &Path, bytes: &[u8]) -> bool {
    write(folder, "norm.json", bytes);
    let set = keep(folder, "set.pt", include_bytes!("../fixtures/torch/small.pt"));
    // Without the constants that it has, others are assumed, and noted.
    read(&set).is_some_and(|info| info.notes.is_empty())
}

/// A part of a set in several, beside a sound one.
fn parts(folder: &Path, bytes: &[u8]) -> bool {
    keep(folder, "images_best_0.pt", include_bytes!("../fixtures/torch/CIFAR100/best/images_best.pt"));
    keep(folder, "labels_best_0.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    write(folder, "images_best_1.pt", bytes);
    keep(folder, "labels_best_1.pt", include_bytes!("../fixtures/torch/CIFAR100/best/labels_best.pt"));
    read(folder).is_some()
}

/// The transform of a whitened set, in each kind of file.
fn zca(folder: &Path, bytes: &[u8]) -> bool {
    keep(folder, "images_best.pt", include_bytes!("../fixtures/torch/zca/images_best.pt"));
    keep(folder, "labels_best.pt", include_bytes!("../fixtures/torch/zca/labels_best.pt"));
    // By its first bytes one of torch or safetensors, or else by its name one of npz.
    let read = ["zca", "zca.npz"].map(|name| {
        let transform = write(folder, name, bytes);
        read_with(&OpenOptions::new().zca(transform), folder).is_some()
    });
    read.contains(&true)
}

/// Reads a set in a file of its own.
fn set(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    read(&write(folder, name, bytes)).is_some()
}

/// Reads what a training would. What was read, if all of it could be.
fn read(path: &Path) -> Option<SourceInfo> {
    read_with(&OpenOptions::new(), path)
}

fn read_with(options: &OpenOptions, path: &Path) -> Option<SourceInfo> {
    let source = options.open(path).ok()?;
    let info = source.info();
    let mut is_read = true;
    for index in (0..info.num_samples.min(READ)).chain([info.num_samples - 1]) {
        let sample = source.sample(index);
        is_read &= source.label(index).is_ok() && sample.is_ok();
        if let Ok(sample) = sample {
            let _ = (sample.digest(), sample.to_pixels(&info.value_space));
        }
    }
    is_read.then(|| info.clone())
}

/// A sound file beside the one in question, written once.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    if path.exists() { path } else { write(folder, name, bytes) }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder can be written to");
    path
}

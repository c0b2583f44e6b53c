//! The evaluation over the shipped examples: from files on disk to an accuracy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use diver::eval::{Architecture, Network, Recipe, accuracy, endless, labelled, train};
use diver::{Cache, DeviceChoice, Knobs, Loader, Mode, OpenOptions, Refiner, Source};
use std::path::{Path, PathBuf};
use tch::Device;

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

/// A test set in the space that `set` is normalised in.
fn test_set(path: &str, set: &dyn Source) -> Box<dyn Source> {
    OpenOptions::new().normalization(set.info().normalize).open(example(path)).unwrap()
}

#[test]
fn shipped_data_sets_are_whole() {
    for (path, samples, first, last) in [
        ("digits/train.parquet", 500, "0", "9"),
        ("digits/validation.parquet", 180, "0", "9"),
        ("digits/test.parquet", 359, "0", "9"),
        ("shapes/train.parquet", 500, "disc", "cross"),
        ("shapes/validation.parquet", 1000, "disc", "cross"),
        ("shapes/test.parquet", 500, "disc", "cross"),
    ] {
        let set = diver::open(example(path)).unwrap();
        let info = set.info();
        assert_eq!((info.num_samples, info.num_classes, info.shape), (samples, 10, [3, 32, 32]), "{path}");
        let names = info.classes.as_ref().unwrap();
        assert_eq!((names[0].as_str(), names[9].as_str()), (first, last), "{path}");
    }
}

#[test]
fn the_examples_stay_small() {
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| match entry.metadata().unwrap() {
                data if data.is_dir() => bytes(&entry.path()),
                data => data.len(),
            })
            .sum()
    }
    let bytes = bytes(&example(""));
    assert!(bytes <= 20_000_000, "{bytes}");
}

#[test]
fn shipped_distilled_sets_say_how_they_are_normalised() {
    for (path, per_class, mean, std) in [
        ("digits/dm_ipc1", 1, 0.305, 0.36),
        ("digits/dc_ipc1", 1, 0.305, 0.36),
        ("digits/dm_ipc10", 10, 0.305, 0.36),
        ("shapes/dm_ipc1", 1, 0.45, 0.25),
        ("shapes/dc_ipc1", 1, 0.45, 0.25),
        ("shapes/dm_ipc10", 10, 0.45, 0.25),
    ] {
        let folder = example(path);
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let dc = files.filter(|f| f.file_name().unwrap().to_string_lossy().starts_with("res_"));
        for file in dc.chain([folder.join("images_best.pt")]) {
            let set = diver::open(&file).unwrap();
            let info = set.info();
            assert_eq!((info.num_samples, info.num_classes), (10 * per_class, 10), "{}", file.display());
            assert_eq!(
                (info.normalize.mean, info.normalize.std),
                ([mean; 3], [std; 3]),
                "{}",
                file.display()
            );
            assert!(info.notes.is_empty(), "{:?}", info.notes);
        }
    }
}

#[test]
fn a_convnet_reads_digits_after_ten_distilled_images() {
    let set = diver::open(example("digits/dm_ipc1")).unwrap();
    let (images, labels) = labelled(&*test_set("digits/test.parquet", &*set)).unwrap();
    let mut loader = Loader::builder(set).batch_size(50).shuffle(true).build().unwrap();
    let mut network = Network::new(Architecture::ConvNet, 32, 10, 0, Device::Cpu).unwrap();
    let before = accuracy(&network, &images, &labels).unwrap();
    train(&mut network, endless(&mut loader, Device::Cpu), &Recipe::default()).unwrap();
    let after = accuracy(&network, &images, &labels).unwrap();
    assert!(before < 0.3 && after > 0.8, "from {before} to {after}");
}

#[test]
fn training_on_refined_images_refines_each_of_them_once() {
    let folder = tempfile::tempdir().unwrap();
    let refined = || {
        let knobs = Knobs::builder().mode(Mode::Vae).build().unwrap();
        let refiner = Refiner::builder(example("digits/backbone"))
            .device(DeviceChoice::Cpu)
            .knobs(knobs)
            .build()
            .unwrap();
        let set = diver::open(example("digits/dm_ipc1")).unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let mut loader = Loader::builder(set).refiner(refiner).cache(cache).batch_size(4).build().unwrap();
        let mut network = Network::new(Architecture::Mlp, 32, 10, 0, Device::Cpu).unwrap();
        let recipe = Recipe { steps: 7, ..Recipe::default() };
        let losses = train(&mut network, endless(&mut loader, Device::Cpu), &recipe).unwrap();
        (losses, loader.stats().misses)
    };
    let (first, second) = (refined(), refined());
    assert_eq!((first.1, second.1), (10, 0));
    assert_eq!(first.0, second.0);
}

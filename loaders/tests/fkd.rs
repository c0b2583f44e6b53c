//! Soft-label trees against what torch and PIL make of them (`tests/fixtures/make_fkd_fixtures.py`).
#![allow(clippy::unwrap_used)]

use diver_loaders::source::fkd::SoftLabels;
use diver_loaders::{Normalize, Source, open};
use std::path::{Path, PathBuf};

const SIDE: usize = 12;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/fkd").join(name)
}

fn images() -> Box<dyn Source> {
    open(fixture("images")).unwrap()
}

#[test]
fn views_are_what_torch_and_pil_make() {
    let images = images();
    let plain = Normalize::new([0.0; 3], [1.0; 3]).unwrap();
    for tree in ["cutmix", "mixup", "old", "indexed"] {
        let labels = SoftLabels::open(fixture(tree), &images).unwrap();
        assert_eq!((labels.epochs(), labels.batches()), (2, 3), "{tree}");
        let views = labels.views(1, 0).unwrap();
        assert_eq!((views.len(), views.classes()), (10, 12), "{tree}");
        let bytes = std::fs::read(fixture(&format!("{tree}.f32"))).unwrap();
        let expected: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let pixels = views.pixels(&images, SIDE, &plain).unwrap();
        assert_eq!(pixels.len(), expected.len());
        let off = pixels.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1.01 / 255.0, "{tree}: off by {} grey levels", off * 255.0);
    }
}

#[test]
fn every_image_has_its_label_once_an_epoch() {
    let images = images();
    for tree in ["cutmix", "mixup", "old", "indexed"] {
        let labels = SoftLabels::open(fixture(tree), &images).unwrap();
        for epoch in 0..2 {
            let mut seen = Vec::new();
            for batch in 0..3 {
                let views = labels.views(epoch, batch).unwrap();
                assert_eq!(views.mix().is_some(), tree.ends_with("mix") || tree == "mixup", "{tree}");
                for (row, index) in views.indices().iter().enumerate() {
                    assert_eq!(
                        views.label(row).class(),
                        images.label(*index).unwrap().class(),
                        "{tree}, row {row}"
                    );
                    seen.push(*index);
                }
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..24), "{tree}");
        }
    }
}

#[test]
fn labels_of_other_images_are_refused() {
    let images = images();
    let message = |root: &Path, images: &dyn Source| SoftLabels::open(root, images).unwrap_err().to_string();
    assert!(message(&fixture("images"), &images).contains("epoch_0/batch_0.tar is expected"));
    let folder = tempfile::tempdir().unwrap();

    // As many images, of other classes.
    let shuffled = folder.path().join("shuffled");
    for class in 0..12 {
        let to = shuffled.join(format!("{:02}", (class + 5) % 12));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(fixture("images").join(class.to_string())).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let error = message(&fixture("cutmix"), &open(&shuffled).unwrap());
    assert!(error.contains("of other images, or of another order"), "{error}");
    std::fs::remove_dir_all(shuffled.join("11")).unwrap();
    let error = message(&fixture("cutmix"), &open(&shuffled).unwrap());
    assert!(error.contains("labels 24 images, where") && error.contains("has 22"), "{error}");

    let dc = open(fixture("../torch/small.pt")).unwrap();
    assert!(message(&fixture("cutmix"), &dc).contains("this is of format dc"));
    let labels = SoftLabels::open(fixture("cutmix"), &images).unwrap();
    assert!(labels.views(2, 0).is_err() && labels.views(0, 3).is_err());
}

#[test]
fn no_changed_byte_panics() {
    let images = images();
    let folder = tempfile::tempdir().unwrap();
    let epoch = folder.path().join("epoch_0");
    std::fs::create_dir(&epoch).unwrap();
    for batch in 0..3 {
        let name = format!("batch_{batch}.tar");
        std::fs::copy(fixture("cutmix/epoch_0").join(&name), epoch.join(name)).unwrap();
    }
    let path = epoch.join("batch_2.tar");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x81;
        std::fs::write(&path, &bytes).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let views = SoftLabels::open(folder.path(), &images).and_then(|labels| labels.views(0, 2));
            if let Ok(views) = views {
                let _ = views.pixels(&images, SIDE, &Normalize::IMAGENET);
            }
        }));
        assert!(outcome.is_ok(), "byte {at}");
    }
}

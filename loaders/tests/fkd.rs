//! Soft-label trees against what torch and PIL make of them (`tests/fixtures/make_fkd_fixtures.py`).
#![allow(clippy::unwrap_used)]

use diver_loaders::labels::fkd::{SoftLabels, Views};
use diver_loaders::{CancelToken, Error, Normalize, Source, open};
use std::io::{Read as _, Write as _};
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
        let pixels = views.pixels(&images, SIDE, &plain, &CancelToken::new()).unwrap();
        assert_eq!(pixels.len(), expected.len());
        let off = pixels.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1.01 / 255.0, "{tree}: off by {} grey levels", off * 255.0);
    }
}

#[test]
fn boxes_are_scaled_from_what_the_teacher_saw() {
    let images = images();
    let plain = Normalize::new([0.0; 3], [1.0; 3]).unwrap();
    let open = || SoftLabels::open(fixture("cutmix"), &images).unwrap();
    let made = |labels: &SoftLabels, side| {
        labels.views(1, 0).and_then(|views| views.pixels(&images, side, &plain, &CancelToken::new()))
    };
    // The fixture's box: rows 2 to 8 and columns 3 to 11 of 12.
    let (at_teachers, unsaid) = (open().with_teacher_side(SIDE).unwrap(), open());
    assert_eq!(made(&at_teachers, SIDE).unwrap(), made(&unsaid, SIDE).unwrap());
    let views = at_teachers.views(1, 0).unwrap();
    let partners = &views.mix().unwrap().partners;
    for (side, [top, left, bottom, right]) in [(24, [4, 6, 16, 22]), (6, [1, 2, 4, 6]), (16, [3, 4, 11, 15])]
    {
        let mixed = made(&at_teachers, side).unwrap();
        // Of so many pixels, the box is none of the view: the images themselves.
        let own = made(&open().with_teacher_side(1 << 20).unwrap(), side).unwrap();
        for (place, value) in mixed.iter().enumerate() {
            let (row, inner) = (place / (3 * side * side), place % (3 * side * side));
            let (y, x) = (inner / side % side, inner % side);
            let is_boxed = (top..bottom).contains(&y) && (left..right).contains(&x);
            let of = if is_boxed { partners[row] } else { row };
            assert_eq!(*value, own[of * 3 * side * side + inner], "side {side}, row {row}, y {y}, x {x}");
        }
    }
    let error = made(&unsaid, 4).unwrap_err().to_string();
    assert!(
        error.contains("`mix_bbox`: [2, 3, 8, 11] lies outside of 4 x 4 pixels: say at which"),
        "{error}"
    );
    let error = made(&open().with_teacher_side(10).unwrap(), SIDE).unwrap_err().to_string();
    assert!(error.contains("outside of 10 x 10 pixels"), "{error}");
    assert!(open().with_teacher_side(0).unwrap_err().to_string().starts_with("teacher_side: 0"));
}

#[test]
fn views_that_nobody_wants_are_not_made() {
    let images = images();
    let views = SoftLabels::open(fixture("cutmix"), &images).unwrap().views(0, 0).unwrap();
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = views.pixels(&images, SIDE, &Normalize::IMAGENET, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
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

/// Most labels fit, so only what the teacher says of each class shows that some are numbered in another order.
#[test]
fn labels_of_some_classes_in_another_order_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str, called: fn(usize) -> String| {
        let root = folder.path().join(name);
        for class in 0..12 {
            let to = root.join(called(class));
            std::fs::create_dir_all(&to).unwrap();
            for entry in std::fs::read_dir(fixture("images").join(class.to_string())).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        open(root).unwrap()
    };
    let same = copy("same", |class| class.to_string());
    // As text, 02 comes between 0 and 1, not after 11: four classes change places, and eight stay.
    let renamed = copy("renamed", |class| if class == 2 { "02".into() } else { class.to_string() });
    // Rows that show most of their own image in both epochs.
    let tree = folder.path().join("tree");
    tree_of(&tree, &[(0, 0.8), (1, 0.8)]);
    for tree in [&tree, &fixture("indexed")] {
        let shown = tree.display();
        assert!(SoftLabels::open(tree, &same).is_ok(), "{shown}");
        let error = SoftLabels::open(tree, &renamed).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{shown}: {error:?}");
        let error = error.to_string();
        assert!(
            ["1 as 10", "10 as 11", "11 as 02", "02 as 1"].iter().all(|pair| error.contains(pair)),
            "{error}"
        );
    }
}

/// Copies a batch of a fixture whose rows were mixed: `share` is each row's own now, and where it is the smaller one,
/// the teacher says what it said of the partner.
fn mixed_by(share: f64, from: &str, to: &Path) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(fixture(from)).unwrap()).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let mut entries: Vec<(String, Vec<u8>)> = names
        .into_iter()
        .map(|name| {
            let mut bytes = Vec::new();
            archive.by_name(&name).unwrap().read_to_end(&mut bytes).unwrap();
            (name, bytes)
        })
        .collect();
    let entry = |end: &str| entries.iter().position(|(name, _)| name.ends_with(end)).unwrap();
    let (pickle, index, soft) = (entry("/data.pkl"), entry("/data/2"), entry("/data/3"));
    let at = entries[pickle].1.windows(9).position(|bytes| {
        bytes[0] == b'G' && [0.25_f64, 0.75].iter().any(|share| bytes[1..] == share.to_be_bytes())
    });
    let at = at.expect("a share of 0.25 or 0.75") + 1;
    entries[pickle].1[at..at + 8].copy_from_slice(&share.to_be_bytes());
    if share < 0.5 {
        let partners: Vec<usize> =
            entries[index].1.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as usize).collect();
        let logits = entries[soft].1.clone();
        let each = logits.len() / partners.len();
        entries[soft].1 =
            partners.iter().flat_map(|partner| &logits[partner * each..][..each]).copied().collect();
    }
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let mut writer = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(name, stored).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// A tree of the epochs of the fixture `cutmix`, each with a share for its batches.
fn tree_of(folder: &Path, epochs: &[(usize, f64)]) {
    for (epoch, (from, share)) in epochs.iter().enumerate() {
        for batch in 0..3 {
            let to = folder.join(format!("epoch_{epoch}/batch_{batch}.tar"));
            mixed_by(*share, &format!("cutmix/epoch_{from}/batch_{batch}.tar"), &to);
        }
    }
}

#[test]
fn the_order_is_found_however_views_were_mixed() {
    let images = images();
    let folder = tempfile::tempdir().unwrap();
    let class = |views: &Views, row: usize| images.label(views.indices()[row]).unwrap().class();

    // More of the partner than of the image itself.
    let partners = folder.path().join("partners");
    tree_of(&partners, &[(0, 0.8), (1, 0.3)]);
    let views = SoftLabels::open(&partners, &images).unwrap().views(1, 0).unwrap();
    for row in 0..views.len() {
        assert_eq!(views.label(row).class(), class(&views, views.mix().unwrap().partners[row]), "row {row}");
    }

    // Only the third epoch tells. What newer torch draws for its second one, older torch does for the third.
    let late = folder.path().join("late");
    tree_of(&late, &[(0, 0.5), (1, 0.5), (1, 0.9)]);
    let views = SoftLabels::open(&late, &images).unwrap().views(2, 0).unwrap();
    assert!((0..views.len()).all(|row| views.label(row).class() == class(&views, row)));

    // A batch of the epoch that is looked at may be of any number of rows.
    let long = folder.path().join("long");
    tree_of(&long, &[(0, 0.8), (1, 0.8)]);
    std::fs::copy(fixture("cutmix/epoch_0/batch_0.tar"), long.join("epoch_1/batch_2.tar")).unwrap();
    let error = SoftLabels::open(&long, &images).unwrap_err().to_string();
    assert!(error.contains("batch_2.tar: 10 rows from 20 on, of 24 images"), "{error}");

    let even = folder.path().join("even");
    tree_of(&even, &[(0, 0.5), (1, 0.5)]);
    let error = SoftLabels::open(&even, &images).unwrap_err().to_string();
    assert!(error.contains("`mix_lam` is 0.5 in all of 6 batches") && !error.contains("%"), "{error}");
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
                let _ = views.pixels(&images, SIDE, &Normalize::IMAGENET, &CancelToken::new());
            }
        }));
        assert!(outcome.is_ok(), "byte {at}");
    }
}

//! What is exported opens again as what it was.
#![allow(clippy::unwrap_used)]

use diver_loaders::export::{ExportFormat, export};
use diver_loaders::source::{LabelKind, OpenOptions, ValueSpace, Values, conformance};
use diver_loaders::{
    CancelToken, ClassMap, Label, MemorySource, Normalize, Result, Sample, Source, SourceInfo, StoredPixels,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const FORMATS: [ExportFormat; 6] = [
    ExportFormat::Dc,
    ExportFormat::Mtt,
    ExportFormat::ImageFolder,
    ExportFormat::WebDataset,
    ExportFormat::Parquet,
    ExportFormat::Safetensors,
];

fn constants() -> Normalize {
    Normalize::new([0.1, 0.25, 0.5], [0.3, 0.5, 0.7]).unwrap()
}

fn set(space: ValueSpace, shape: [usize; 3], values: Vec<f32>, labels: Vec<Label>) -> MemorySource {
    let (classes, kind) = match &labels[0] {
        Label::Logits(logits) => (logits.len(), LabelKind::Logits),
        _ => (1 + labels.iter().map(Label::class).max().unwrap(), LabelKind::Hard),
    };
    let mut info = MemorySource::unit(1, [1, 1, 1], vec![0.0], vec![0]).unwrap().info().clone();
    info = SourceInfo { samples: labels.len(), classes, shape, labels: kind, value_space: space, ..info };
    info.normalize = constants();
    MemorySource::new(info, values, labels).unwrap()
}

fn write(source: &dyn Source, format: ExportFormat, folder: &Path) -> Result<Vec<String>> {
    let samples = (0..source.info().samples).map(|index| source.sample(index));
    Ok(export(source.info(), samples, format, folder, &CancelToken::new())?.notes)
}

/// The file that is to be opened, or the folder.
fn entry(folder: &Path, format: ExportFormat) -> PathBuf {
    match format {
        ExportFormat::Dc => folder.join("res_DIVER.pt"),
        ExportFormat::Safetensors => folder.join("data.safetensors"),
        _ => folder.to_owned(),
    }
}

fn of_pixels(format: ExportFormat) -> bool {
    matches!(format, ExportFormat::ImageFolder | ExportFormat::WebDataset | ExportFormat::Parquet)
}

/// Samples by class: class folders have no other order.
fn by_class(source: &dyn Source) -> Vec<Sample> {
    let mut samples: Vec<Sample> = (0..source.info().samples).map(|i| source.sample(i).unwrap()).collect();
    samples.sort_by_key(|sample| sample.label.class());
    samples
}

/// Checks that `format` gives `source` back, as far as it can.
fn check(source: &dyn Source, format: ExportFormat, options: &OpenOptions) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("exported");
    write(source, format, &folder).unwrap();
    let again = options.open(entry(&folder, format)).unwrap();
    conformance::check(&again);
    let (info, own) = (again.info(), source.info());
    assert_eq!(
        (info.samples, info.classes, info.normalize),
        (own.samples, own.classes, own.normalize),
        "{format:?}"
    );
    for (new, old) in by_class(&again).into_iter().zip(by_class(source)) {
        let soft = matches!(format, ExportFormat::Mtt | ExportFormat::Parquet | ExportFormat::Safetensors);
        if soft {
            assert_eq!(new.label, old.label, "{format:?}");
        }
        assert_eq!(new.label.class(), old.label.class(), "{format:?}");
        if of_pixels(format) {
            let bytes =
                |pixels: Vec<f32>| pixels.into_iter().map(|p| (p * 255.0).round() as u8).collect::<Vec<_>>();
            let pixels = bytes(old.to_pixels(&own.value_space).unwrap());
            assert_eq!(new.pixels, StoredPixels::U8(pixels), "{format:?}");
        } else {
            let normalized = |sample: Sample, info: &SourceInfo| {
                sample.into_normalized(&info.value_space, &info.normalize)
            };
            assert_eq!(normalized(new, info), normalized(old, own), "{format:?}");
        }
    }
}

fn labels(soft: bool, classes: &[usize]) -> Vec<Label> {
    let logits = |class: usize| (0..4).map(|i| if i == class { 2.5 } else { -0.75 * i as f32 }).collect();
    classes
        .iter()
        .map(|class| if soft { Label::Logits(logits(*class)) } else { Label::Hard(*class) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sets_come_back(
        normalized: bool,
        soft: bool,
        grey: bool,
        (height, width) in (1_usize..6, 1_usize..6),
        classes in proptest::collection::vec(0_usize..4, 1..9),
        seed: u32,
    ) {
        let shape = [if grey { 1 } else { 3 }, height, width];
        let space = if normalized { ValueSpace::Normalized(constants()) } else { ValueSpace::Unit };
        let count = classes.len() * shape.iter().product::<usize>();
        let value = |i: usize| {
            let unit = ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / (1 << 24) as f32;
            if normalized { unit * 6.0 - 3.0 } else { unit }
        };
        let source = set(space, shape, (0..count).map(value).collect(), labels(soft, &classes));
        for format in FORMATS {
            // Class folders say nothing of classes that are missing at the end.
            check(&source, format, &OpenOptions::new().num_classes(source.info().classes));
        }
    }
}

#[test]
fn bytes_and_whitened_floats_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let unit = set(
        ValueSpace::Unit,
        [3, 2, 2],
        (0..36).map(|i| i as f32 / 35.0).collect(),
        labels(false, &[2, 0, 1]),
    );
    write(&unit, ExportFormat::ImageFolder, &images).unwrap();
    let bytes = diver_loaders::open(&images).unwrap();
    for format in FORMATS {
        check(&bytes, format, &OpenOptions::new());
    }

    let values = (0..36).map(|i| i as f32 - 20.0).collect();
    let whitened = set(ValueSpace::Whitened, [3, 2, 2], values, labels(false, &[2, 0, 1]));
    for format in FORMATS {
        if of_pixels(format) {
            let error = write(&whitened, format, &folder.path().join("none")).unwrap_err().to_string();
            assert!(error.contains("ZCA-whitened"), "{error}");
            assert!(!folder.path().join("none").exists(), "nothing is left of a failed export");
        } else {
            check(&whitened, format, &OpenOptions::new().values(Values::Whitened));
        }
    }
}

#[test]
fn folders_keep_wordnet_ids_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let woof = ClassMap::named("imagewoof").unwrap();
    let mut info = set(ValueSpace::Unit, [3, 1, 1], vec![0.5; 30], labels(false, &[0; 10])).info().clone();
    let wnids =
        woof.as_indices().unwrap().iter().map(|i| diver_loaders::imagenet::wnid(*i).unwrap().to_owned());
    info = SourceInfo { classes: 10, class_names: Some(wnids.collect()), ..info };
    let values = (0..30).map(|i| (i / 3) as f32 / 10.0).collect();
    let source = MemorySource::new(info, values, (0..10).map(Label::Hard).collect()).unwrap();
    let path = folder.path().join("woof");
    write(&source, ExportFormat::ImageFolder, &path).unwrap();
    assert!(path.join("n02096294/0.png").is_file());
    check(&source, ExportFormat::ImageFolder, &OpenOptions::new().classes(woof));
}

#[test]
fn what_the_format_does_not_hold_is_said_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let values = (0..12).map(|i| i as f32 - 6.0).collect();
    let source = set(ValueSpace::Normalized(constants()), [3, 2, 2], values, labels(true, &[1]));
    let notes = write(&source, ExportFormat::WebDataset, &folder.path().join("a/b")).unwrap();
    assert!(notes.len() == 2 && notes[0].contains("no logits") && notes[1].contains("clamped"), "{notes:?}");
    assert!(write(&source, ExportFormat::Mtt, &folder.path().join("mtt")).unwrap().is_empty());

    let error = write(&source, ExportFormat::Mtt, &folder.path().join("mtt")).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let path = folder.path().join("cancelled");
    let samples = [source.sample(0)];
    assert!(export(source.info(), samples, ExportFormat::Dc, &path, &cancelled).is_err());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

//! Every fixture and shipped set opens as it always did: format, shape, labels, constants, and the bytes of each sample,
//! against `tests/fixtures/listing.tsv`. What refined images are cached under hangs on these bytes.
//!
//! `DIVER_WRITE_LISTING=1 cargo test -p diver-loaders --test listing` writes the listing anew; a line that changes or
//! goes is a set that opens otherwise than before, and needs a reason.
#![allow(clippy::unwrap_used)]

use diver_loaders::source::{LabelKind, OpenOptions, ValueSpace, Values};
use diver_loaders::{ClassMap, Label, Source};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files and folders are all opened, as far as they are datasets.
const ROOTS: [&str; 5] = [
    "tests/fixtures/torch",
    "tests/fixtures/arrow",
    "tests/fixtures/feather",
    "tests/fixtures/fkd/images",
    "examples",
];

/// Sets that are opened with options, too.
fn with_options() -> Vec<(&'static str, &'static str, OpenOptions)> {
    let new = OpenOptions::new;
    vec![
        ("tests/fixtures/torch/res_DM_CIFAR10_ConvNet_2ipc.pt", "experiment=0", new().experiment(0)),
        ("tests/fixtures/torch/small.pt", "num_classes=10", new().num_classes(10)),
        ("tests/fixtures/torch/latest", "values=normalized", new().values(Values::Normalized)),
        ("tests/fixtures/torch/idc/data.pt", "factor=1", new().factor(1)),
        (
            "tests/fixtures/torch/idc/data.pt",
            "factor=3 dataset=imagenet",
            new().factor(3).dataset("imagenet"),
        ),
        ("tests/fixtures/torch/texture", "canvas=2", new().canvas(2)),
        ("tests/fixtures/torch/named/bytes.pt", "dataset=cifar10", new().dataset("cifar10")),
        (
            "tests/fixtures/torch/edf",
            "classes=3,1,2",
            new().classes(ClassMap::indices(vec![3, 1, 2]).unwrap()),
        ),
    ]
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Everything below `path`, in the order of names.
fn below(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if path.is_dir() {
        let mut inner: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        inner.sort();
        inner.iter().for_each(|path| below(path, found));
    }
}

/// What is fixed of an open set; none if a sample of it cannot be read.
fn line(name: &str, options: &str, source: &dyn Source) -> Option<String> {
    let info = source.info();
    let [channels, height, width] = info.shape;
    let labels = match info.labels {
        LabelKind::Hard => "hard",
        LabelKind::Logits => "logits",
        LabelKind::Probabilities => "probabilities",
        _ => "other",
    };
    let space = match info.value_space {
        ValueSpace::Unit => "unit".to_owned(),
        ValueSpace::Whitened => "whitened".to_owned(),
        ValueSpace::Normalized(normalize) => format!("{:?}/{:?}", normalize.mean, normalize.std),
        _ => "other".to_owned(),
    };
    let mut hasher = blake3::Hasher::new();
    for index in 0..info.num_samples {
        let sample = source.sample(index).ok()?;
        hasher.update(sample.digest().as_bytes());
        match &sample.label {
            Label::Logits(logits) => logits.iter().for_each(|logit| _ = hasher.update(&logit.to_le_bytes())),
            label => _ = hasher.update(&label.class().to_le_bytes()),
        }
    }
    let names = info.classes.as_ref().map(|names| names.join(",")).unwrap_or_default();
    let map = info.class_map.as_indices().map(|map| format!("{map:?}")).unwrap_or_default();
    Some(format!(
        "{name}\t{options}\t{}\t{}\t{}\t{channels}x{height}x{width}\t{labels}\t{space}\t{:?}/{:?}\t{map}\t{names}\t{:?}\t{}",
        info.format,
        info.num_samples,
        info.num_classes,
        info.normalize.mean,
        info.normalize.std,
        info.learning_rate,
        hasher.finalize().to_hex()
    ))
}

#[test]
fn every_set_opens_as_it_did() {
    let repository = repository();
    let file = repository.join("tests/fixtures/listing.tsv");
    if std::env::var_os("DIVER_WRITE_LISTING").is_some() {
        let mut paths = Vec::new();
        ROOTS.iter().for_each(|root| below(&repository.join(root), &mut paths));
        let mut text = String::new();
        for path in paths {
            let name = path.strip_prefix(&repository).unwrap().to_str().unwrap();
            let opened = diver_loaders::open(&path).ok();
            if let Some(line) = opened.and_then(|source| line(name, "", &source)) {
                writeln!(text, "{line}").unwrap();
            }
        }
        for (name, options, open) in with_options() {
            let source = open.open(repository.join(name)).unwrap();
            writeln!(text, "{}", line(name, options, &source).unwrap()).unwrap();
        }
        fs::write(&file, text).unwrap();
    }
    let listing = fs::read_to_string(&file).unwrap();
    assert!(listing.lines().count() > 40, "the listing is whole");
    let mut changed = Vec::new();
    for expected in listing.lines() {
        let mut fields = expected.split('\t');
        let (name, options) = (fields.next().unwrap(), fields.next().unwrap());
        let path = repository.join(name);
        let opened = match with_options().into_iter().find(|(of, with, _)| (*of, *with) == (name, options)) {
            Some((_, _, open)) => open.open(&path),
            None => diver_loaders::open(&path),
        };
        let found = match &opened {
            Ok(source) => {
                line(name, options, source).unwrap_or_else(|| format!("{name}: a sample cannot be read"))
            }
            Err(error) => error.to_string(),
        };
        if found != expected {
            changed.push(format!("- {expected}\n+ {found}"));
        }
    }
    assert!(changed.is_empty(), "{} sets open otherwise:\n{}", changed.len(), changed.join("\n"));
}

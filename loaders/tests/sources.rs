//! The readers against files that torch itself wrote (`tests/fixtures/make_torch_fixtures.py`), and against
//! hostile ones.
#![allow(clippy::unwrap_used)]

use arrow::array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use diver_loaders::export::{ExportFormat, export};
use diver_loaders::source::{LabelKind, OpenOptions, SourceInfo, ValueSpace, Values, conformance, open};
use diver_loaders::{CancelToken, Label, Normalize, Source, StoredPixels};
use parquet::arrow::ArrowWriter;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch").join(name)
}

#[derive(serde::Deserialize)]
struct Expected {
    shape: [usize; 4],
    values: Vec<f32>,
    labels: Labels,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Labels {
    Hard(Vec<usize>),
    Logits(Vec<Vec<f32>>),
}

/// Checks a source, value for value, against what torch reads.
fn check(source: &dyn Source, name: &str) {
    check_within(source, name, 0.0);
}

fn check_within(source: &dyn Source, name: &str, tolerance: f32) {
    let json = fs::read(fixture("expected.json")).unwrap();
    let mut all: std::collections::HashMap<String, Expected> = serde_json::from_slice(&json).unwrap();
    let expected = all.remove(name).unwrap_or_else(|| panic!("{name} is not in expected.json"));
    conformance::check(source);
    let info = source.info();
    assert_eq!(info.num_samples, expected.shape[0], "{name}");
    assert_eq!(info.shape, expected.shape[1..], "{name}");
    let each = expected.values.len() / info.num_samples;
    for (index, values) in expected.values.chunks_exact(each).enumerate() {
        let sample = source.sample(index).unwrap();
        match sample.pixels {
            StoredPixels::F32(pixels) => {
                let off = pixels.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(
                    off <= tolerance && pixels.len() == values.len(),
                    "{name}, sample {index}: off by {off}"
                );
            }
            StoredPixels::U8(bytes) => {
                let pixels: Vec<f32> = bytes.into_iter().map(f32::from).collect();
                assert_eq!(pixels, values, "{name}, sample {index}");
            }
        }
        let label = match &expected.labels {
            Labels::Hard(labels) => Label::Hard(labels[index]),
            Labels::Logits(logits) => Label::Logits(logits[index].clone()),
        };
        assert_eq!(sample.label, label, "{name}, sample {index}");
    }
}

fn message(path: &Path) -> String {
    open(path).err().unwrap_or_else(|| panic!("{} must be refused", path.display())).to_string()
}

fn refused(name: &str) -> String {
    let text = message(&fixture("hostile").join(name));
    assert!(text.contains(name), "the file is named: {text}");
    text
}

#[test]
fn dc_files_of_both_containers() {
    for name in ["res_DM_CIFAR10_ConvNet_2ipc.pt", "res_DC_SVHN_legacy.pt"] {
        for experiment in 0..3 {
            let source = OpenOptions::new().experiment(experiment).open(fixture(name)).unwrap();
            check(&source, &format!("{name}#{experiment}"));
        }
        let last = open(fixture(name)).unwrap();
        check(&last, &format!("{name}#2"));
        assert_eq!((last.info().format.as_str(), last.info().num_classes), ("dc", 2));
        let error = OpenOptions::new().experiment(3).open(fixture(name)).unwrap_err().to_string();
        assert!(
            error.starts_with("experiment: 3 ") && error.ends_with("holds experiments 0 to 2"),
            "{error}"
        );
    }
}

#[test]
fn every_way_that_torch_writes_a_file() {
    for name in [
        "small.pt",
        "small_legacy.pt",
        "cuda.pt",
        "cuda_legacy.pt",
        "protocol3.pt",
        "protocol4.pt",
        "protocol5.pt",
        "beside.pt",
        "big_endian.pt",
        "no_checksums.pt",
        "res_DSA_MNIST_ConvNet_1ipc.pt",
    ] {
        check(&open(fixture(name)).unwrap(), name);
    }
}

#[test]
fn mtt_and_edf_folders() {
    for name in ["CIFAR100/best", "latest", "edf", "latest/images_900.pt"] {
        let source = open(fixture(name)).unwrap();
        check(&source, name);
        assert_eq!(source.info().format.as_str(), "mtt", "{name}");
    }
    let edf = open(fixture("edf")).unwrap();
    assert_eq!((edf.info().labels, edf.info().num_classes), (LabelKind::Logits, 3));
    assert_eq!(edf.info().learning_rate, Some(0.01));
    assert!(edf.info().method.as_ref().unwrap().starts_with("EDF or DATM"), "{:?}", edf.info().method);
}

#[test]
fn whitened_images_stream_raw_and_have_no_pixels() {
    // A run with --zca, by the file beside it; DATM's, by logits with small images.
    for (name, reason) in [("latest", "images_zca_2000.pt lies beside"), ("edf", "are DATM's")] {
        let source = open(fixture(name)).unwrap();
        let info = source.info();
        assert_eq!(info.value_space, ValueSpace::Whitened, "{name}");
        assert!(info.notes.iter().any(|note| note.contains(reason)), "{:?}", info.notes);
        let sample = source.sample(0).unwrap();
        let error = sample.to_pixels(&info.value_space).unwrap_err().to_string();
        assert!(error.starts_with("values: ") && error.contains("ZCA-whitened"), "{error}");
        let StoredPixels::F32(stored) = sample.pixels.clone() else { panic!("floats are expected") };
        assert_eq!(sample.into_normalized(&info.value_space, &info.normalize), stored);

        let told = OpenOptions::new().values(Values::Normalized).open(fixture(name)).unwrap();
        assert_eq!(told.info().value_space, ValueSpace::Normalized(Normalize::IMAGENET));
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| fs::copy(fixture(from), folder.path().join(to)).unwrap();
    copy("latest/images_900.pt", "images_zca_900.pt");
    copy("latest/labels_900.pt", "labels_900.pt");
    let pixels = open(folder.path().join("images_zca_900.pt")).unwrap();
    assert_eq!(pixels.info().value_space, ValueSpace::Unit, "with ZCA undone, they are pixels");

    // What lies beside the images says more than their folder, but for those whose name tells.
    copy("latest/images_900.pt", "images_best.pt");
    copy("latest/labels_900.pt", "labels_best.pt");
    let space = |values: &str, name: &str| {
        // It has one image.
        let text = format!(r#"{{"mean": 0.5, "std": 0.5, "values": "{values}"}}"#);
        fs::write(folder.path().join("norm.json"), text).unwrap();
        let info = open(folder.path().join(name)).unwrap().info().clone();
        assert_eq!(info.notes, ["the set has a single class"]);
        info.value_space
    };
    let half = Normalize::new([0.5; 3], [0.5; 3]).unwrap();
    assert_eq!(space("normalized", "images_best.pt"), ValueSpace::Normalized(half));
    assert_eq!(space("whitened", "images_best.pt"), ValueSpace::Whitened);
    assert_eq!(space("whitened", "images_zca_900.pt"), ValueSpace::Unit);
}

#[test]
fn a_users_transform_makes_pixels_of_whitened_values() {
    for transform in ["zca/transform.pt", "zca/transform.safetensors"] {
        let source = OpenOptions::new().zca(fixture(transform)).open(fixture("zca")).unwrap();
        check_within(&source, "zca", 1e-5);
        let info = source.info();
        assert_eq!((info.value_space, info.notes.len()), (ValueSpace::Unit, 1));
        assert!(info.notes[0].contains("normalised with ImageNet's"), "{:?}", info.notes);
        assert!(source.sample(0).unwrap().to_pixels(&info.value_space).is_ok());
    }
    let refused = |options: OpenOptions, set: &str| options.open(fixture(set)).unwrap_err().to_string();
    let zca = |name: &str| OpenOptions::new().zca(fixture(name));
    let error = refused(zca("hostile/zca.pt"), "zca");
    assert!(
        ["zca.pt: `transform_inv`: ", "[12, 11]", "[12, 12]"].iter().all(|part| error.contains(part)),
        "{error}"
    );
    let error = refused(zca("small.pt"), "zca");
    assert!(error.contains("small.pt: `mean_vector`: ") && error.contains("`mean`"), "{error}");
    let error = refused(zca("zca/transform.pt").values(Values::Unit), "zca");
    assert!(
        error.starts_with("zca: the values of ") && error.contains("are pixels, not whitened"),
        "{error}"
    );
    let error = refused(
        zca("zca/transform.pt"),
        "dc_bench/KIP/kip_cifar10_ConvNet3_ssize3_zca_nol_noaug_ckpt1000.npz",
    );
    assert!(error.starts_with("zca: KIP"), "{error}");
    // Pixels are not taken for whitened because there is a transform.
    let error = refused(zca("zca/transform.pt"), "latest/images_zca_2000.pt");
    assert!(error.starts_with("zca: ") && error.contains("already has pixels"), "{error}");
    let error = refused(zca("zca/transform.pt"), "named/bytes.pt");
    assert!(error.starts_with("zca: ") && error.contains("bytes"), "{error}");
    let unit = tempfile::tempdir().unwrap();
    let set = OpenOptions::new().zca(fixture("zca/transform.pt")).open(fixture("zca")).unwrap();
    let samples = (0..3).map(|index| set.sample(index));
    let out = unit.path().join("out");
    export(set.info(), samples, ExportFormat::Safetensors, &out, &CancelToken::new()).unwrap();
    let again = OpenOptions::new().zca(fixture("zca/transform.pt")).open(out.join("data.safetensors"));
    assert!(again.unwrap_err().to_string().contains("are pixels, not whitened"));
}

#[test]
fn texture_canvases_are_cut_into_windows() {
    let canvases = open(fixture("texture")).unwrap();
    assert_eq!((canvases.info().num_samples, canvases.info().shape), (2, [3, 6, 8]), "no dataset is named");
    let windows = OpenOptions::new().canvas(2).open(fixture("texture")).unwrap();
    check(&windows, "texture");
    let refused =
        |canvas, name: &str| OpenOptions::new().canvas(canvas).open(fixture(name)).unwrap_err().to_string();
    assert!(refused(4, "texture").starts_with("canvas: 4 does not divide images of 6 x 8 pixels"));
    assert!(refused(2, "small.pt").contains("small.pt was recognised as DC"));

    // By the name of a dataset whose images are smaller: in the path it is but a hint.
    let folder = tempfile::tempdir().unwrap();
    for (dataset, side, along) in
        [("CIFAR100", 64, 2), ("tiny-imagenet", 128, 2), ("CIFAR10", 32, 1), ("CIFAR10", 80, 1)]
    {
        let values = (0..3 * side * side).map(|place| (place % 7) as f32 / 7.0).collect();
        let set = diver_loaders::MemorySource::unit(1, [3, side, side], values, vec![0]).unwrap();
        let run = folder.path().join(dataset).join(format!("run{side}"));
        fs::create_dir_all(run.parent().unwrap()).unwrap();
        export(set.info(), [set.sample(0)], ExportFormat::Mtt, &run, &CancelToken::new()).unwrap();
        let opened = |options: OpenOptions| options.open(&run).unwrap().info().clone();
        let noted = |info: &SourceInfo, text| info.notes.iter().any(|note| note.contains(text));

        let info = opened(OpenOptions::new());
        assert_eq!((info.num_samples, info.shape), (1, [3, side, side]));
        assert_eq!(noted(&info, "pass `canvas` (2) if they are texture canvases"), along > 1, "{dataset}");
        let info = opened(OpenOptions::new().dataset(dataset));
        assert_eq!(
            (info.num_samples, info.shape),
            (along * along, [3, side / along, side / along]),
            "{dataset}"
        );
        assert_eq!(noted(&info, "taken for texture canvases"), along > 1, "{dataset}");
        let info = opened(OpenOptions::new().dataset(dataset).canvas(1));
        assert_eq!((info.num_samples, info.shape, info.notes.len()), (1, [3, side, side], 0));
    }

    // A word that is a dataset's name to those who say so.
    let values = vec![0.5; 3 * 128 * 128];
    let set = diver_loaders::MemorySource::unit(1, [3, 128, 128], values, vec![0]).unwrap();
    fs::create_dir(folder.path().join("tiny-tests")).unwrap();
    let run = folder.path().join("tiny-tests/run");
    export(set.info(), [set.sample(0)], ExportFormat::Mtt, &run, &CancelToken::new()).unwrap();
    let whole = open(&run).unwrap();
    assert_eq!((whole.info().shape, whole.info().notes.len()), ([3, 128, 128], 0));
    assert_eq!(OpenOptions::new().dataset("tiny").open(&run).unwrap().info().num_samples, 4);
}

#[test]
fn multi_formation_is_decoded() {
    let idc = open(fixture("idc")).unwrap();
    check_within(&idc, "idc", 1e-5);
    assert_eq!((idc.info().format.as_str(), idc.info().value_space), ("idc", ValueSpace::Unit));
    assert!(idc.info().notes.iter().any(|note| note.contains("2 x 2 images")), "{:?}", idc.info().notes);
    for (factor, name) in [(1, "idc factor 1"), (3, "idc factor 3")] {
        let options = OpenOptions::new().factor(factor).dataset("imagenet");
        let source = options.open(fixture("idc/data.pt")).unwrap();
        check_within(&source, name, 1e-5);
        assert_eq!(source.info().notes, [""; 0]);
    }
    let phases = open(fixture("phases")).unwrap();
    check_within(&phases, "phases", 1e-5);
    assert_eq!((phases.info().format.as_str(), phases.info().num_classes), ("idc", 4));
    assert_eq!(phases.info().notes.len(), 2, "of all phases at once: {:?}", phases.info().notes);
    let ncfm = open(fixture("ncfm/distilled_data")).unwrap();
    check_within(&ncfm, "ncfm", 1e-5);
    assert!(ncfm.info().path.ends_with("data_2000.pt"));
    let error = OpenOptions::new().factor(2).open(fixture("small.pt")).unwrap_err().to_string();
    assert!(error.starts_with("factor: "), "{error}");
    let normalized = OpenOptions::new().factor(2).values(Values::Normalized);
    let error = normalized.open(fixture("hostile/not_square.pt")).unwrap_err().to_string();
    assert!(error.contains("square"), "{error}");
}

#[test]
fn large_files_are_read_sample_by_sample() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let (samples, each) = (180_000_u64, 3 * 32 * 32 * 4_u64);
    let (images, labels) = (samples * each, samples * 8);
    let header = serde_json::json!({
        "images": {"dtype": "F32", "shape": [samples, 3, 32, 32], "data_offsets": [0, images]},
        "labels": {"dtype": "I64", "shape": [samples], "data_offsets": [images, images + labels]},
    })
    .to_string();
    // 2.2 GB of zeros that take no space, and a last image that has a value.
    let file = fs::File::create(&path).unwrap();
    let data = 8 + header.len() as u64;
    std::os::unix::fs::FileExt::write_all_at(&file, &(header.len() as u64).to_le_bytes(), 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, header.as_bytes(), 8).unwrap();
    file.set_len(data + images + labels).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &0.25_f32.to_le_bytes(), data + images - 4).unwrap();
    let started = std::time::Instant::now();
    let source = open(&path).unwrap();
    let seconds = started.elapsed().as_secs_f32();
    assert!(seconds < 5.0, "opened in {seconds} s, as if all of it was read");
    assert_eq!(source.info().num_samples as u64, samples);
    let StoredPixels::F32(pixels) = source.sample(source.info().num_samples - 1).unwrap().pixels else {
        panic!("floats are expected")
    };
    assert_eq!((pixels.last(), pixels.len()), (Some(&0.25), 3072));
    assert_eq!(source.sample(0).unwrap().pixels, StoredPixels::F32(vec![0.0; 3072]));
}

#[test]
fn files_of_dc_bench() {
    let random = open(fixture("dc_bench/random")).unwrap();
    check(&random, "dc_bench/random");
    let parts = open(fixture("dc_bench/TM/tinyimagenet/IPC50")).unwrap();
    check(&parts, "dc_bench/TM/tinyimagenet/IPC50");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("images_best_1.pt"), b"").unwrap();
    assert!(
        message(folder.path()).contains("images_best_0.pt: this part of the set is missing"),
        "{}",
        message(folder.path())
    );
    fs::copy(fixture("ncfm/distilled_data/data_2000.pt"), folder.path().join("images_best.pt")).unwrap();
    assert!(message(folder.path()).contains("images_best_0.pt"), "{}", message(folder.path()));
    let kip = open(fixture("dc_bench/KIP/kip_cifar10_ConvNet3_ssize3_zca_nol_noaug_ckpt1000.npz")).unwrap();
    check(&kip, "kip");
    assert_eq!((kip.info().format.as_str(), kip.info().value_space), ("kip", ValueSpace::Whitened));
}

#[test]
fn tensors_by_name() {
    for (name, space) in [
        ("named/bytes.pt", ValueSpace::Unit),
        ("named/compressed.npz", ValueSpace::Unit),
        ("named/stored.npz", ValueSpace::Unit),
        ("named/arrays.pkl", ValueSpace::Unit),
        ("named/tensors.pkl", ValueSpace::Unit),
        ("named/expanded.pt", ValueSpace::Unit),
        ("named/dataset.pt", ValueSpace::Unit),
        ("named/subset.pt", ValueSpace::Unit),
        ("named/joined.pt", ValueSpace::Unit),
        ("named/normalised.safetensors", ValueSpace::Normalized(Normalize::IMAGENET)),
    ] {
        let source = open(fixture(name)).unwrap();
        check(&source, name);
        assert_eq!((source.info().format.as_str(), source.info().value_space), ("tensors", space), "{name}");
        let floats = matches!(source.sample(0).unwrap().pixels, StoredPixels::F32(_));
        let noted = source.info().notes.iter().any(|note| note.contains("the images are taken"));
        assert_eq!(noted, floats, "{name}: {:?}", source.info().notes);
    }
    let unit = OpenOptions::new().values(Values::Unit).dataset("imagenet");
    let told = unit.open(fixture("named/probabilities.safetensors")).unwrap();
    assert_eq!(told.info().value_space, ValueSpace::Unit);
    assert!(!told.info().notes.iter().any(|note| note.contains("the images are taken")));
    let error = OpenOptions::new().values(Values::Whitened).open(fixture("named/bytes.pt")).unwrap_err();
    assert!(error.to_string().starts_with("values: ") && error.to_string().contains("bytes"), "{error}");
}

/// Images of one pixel, all of class 0.
fn safetensors_file(path: &Path, values: &[f32]) {
    let (samples, images) = (values.len() / 3, values.len() * 4);
    let end = images + 8 * samples;
    let header = serde_json::json!({
        "images": {"dtype": "F32", "shape": [samples, 3, 1, 1], "data_offsets": [0, images]},
        "labels": {"dtype": "I64", "shape": [samples], "data_offsets": [images, end]},
    })
    .to_string();
    let length = (header.len() as u64).to_le_bytes();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, [&length[..], header.as_bytes(), &data, &vec![0; end - images]].concat()).unwrap();
}

#[test]
fn what_is_far_from_pixels_is_not_taken_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.safetensors");
    let unit = || OpenOptions::new().values(Values::Unit).open(&path);
    for (values, reason) in [
        (
            [0.0, 255.0, 3.0],
            "`images`: expected pixels in [0, 1], found floats from 0 to 255: divide them by",
        ),
        (
            [-2.5, 1.0, 2.5],
            "`images`: expected pixels in [0, 1], found floats from -2.5 to 2.5: pass `values`",
        ),
    ] {
        safetensors_file(&path, &values);
        let error = unit().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    // As methods leave them that do not clamp.
    safetensors_file(&path, &[-0.5, 1.5, 0.0]);
    assert!(unit().is_ok());
    // As a file beside them says.
    safetensors_file(&path, &[0.0, 0.0, 9.0]);
    fs::write(folder.path().join("norm.json"), r#"{"mean": 0, "std": 1, "values": "unit"}"#).unwrap();
    assert!(message(&path).contains("floats from 0 to 9"), "{}", message(&path));
    fs::remove_file(folder.path().join("norm.json")).unwrap();
    // The last of many images, of which not all are looked at.
    let mut values = vec![0.5; 3 * 1000];
    values[2999] = 255.0;
    safetensors_file(&path, &values);
    assert!(
        message(&path).contains("floats from 0.5 to 255, like pixels from 0 to 255"),
        "{}",
        message(&path)
    );
}

#[test]
fn floats_of_bytes_are_not_taken_for_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.safetensors");
    let file = |values: [f32; 3]| safetensors_file(&path, &values);
    file([0.0, 255.0, 3.0]);
    let error = message(&path);
    let parts = ["set.safetensors: `images`: ", "from 0 to 255", "divide them by 255", "`normalized`"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let told = OpenOptions::new().values(Values::Normalized).open(&path).unwrap();
    assert_eq!(told.info().value_space, ValueSpace::Normalized(Normalize::IMAGENET));
    fs::write(folder.path().join("norm.json"), r#"{"mean": 0, "std": 0.1, "values": "normalized"}"#).unwrap();
    assert!(open(&path).is_ok());
    fs::remove_file(folder.path().join("norm.json")).unwrap();
    // Of dark and of bright images alone.
    for values in [[0.0, 2.7, 1.0], [-0.5, 255.0, 3.0]] {
        file(values);
        assert!(open(&path).is_ok(), "{values:?}");
    }
}

#[test]
fn probabilities_are_not_taken_for_logits() {
    let source = open(fixture("named/probabilities.safetensors")).unwrap();
    conformance::check(&source);
    let expected = [[0.25, 0.75], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]];
    assert_eq!(source.info().labels, LabelKind::Probabilities);
    for (index, expected) in expected.into_iter().enumerate() {
        assert_eq!(
            source.label(index).unwrap(),
            Label::Probabilities(expected.to_vec()),
            "they are used as they are"
        );
    }
    assert!(source.info().notes.iter().any(|note| note.contains("probabilities")));
}

#[test]
fn classes_can_be_widened() {
    let classes =
        |n, name| OpenOptions::new().num_classes(n).open(fixture(name)).map(|s| s.info().num_classes);
    assert_eq!(classes(10, "small.pt").unwrap(), 10);
    let error = classes(1, "small.pt").unwrap_err().to_string();
    assert!(error.contains("sample 1: label 1 is out of range") && error.contains("1 class"), "{error}");
    let error = classes(10, "edf").unwrap_err().to_string();
    assert!(
        error.starts_with("num_classes: ") && error.contains("10") && error.contains("`labels` has 3"),
        "{error}"
    );
}

#[test]
fn constants_follow_the_path_or_are_noted() {
    let constants = |name| {
        let info = open(fixture(name)).unwrap().info().clone();
        assert_eq!(info.value_space, ValueSpace::Normalized(info.normalize));
        (info.normalize.mean, info.notes)
    };
    let (mean, notes) = constants("res_DC_SVHN_legacy.pt");
    assert_eq!(mean, [0.4377, 0.4438, 0.4728]);
    assert!(notes[0].contains("constants of svhn"), "{notes:?}");
    assert_eq!(constants("CIFAR100/best").0, [0.4914, 0.4822, 0.4465], "MTT takes CIFAR-10's for both");
    let (mean, notes) = constants("small.pt");
    assert_eq!(mean, Normalize::IMAGENET.mean);
    assert!(notes[0].contains("ImageNet's") && notes[0].contains("`mean` and `std`"), "{notes:?}");

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("res_DM_CIFAR10.pt");
    fs::copy(fixture("small.pt"), &copy).unwrap();
    fs::write(folder.path().join("norm.json"), r#"{"mean": [0.1, 0.2, 0.3], "std": 0.5}"#).unwrap();
    let info = open(&copy).unwrap().info().clone();
    assert_eq!(info.normalize, Normalize::new([0.1, 0.2, 0.3], [0.5; 3]).unwrap());
    assert_eq!(info.notes, [""; 0]);
}

#[test]
fn a_pickle_that_calls_os_system_holds_no_images_and_is_not_run() {
    for name in ["os_system.pt", "os_system_legacy.pt", "os_system.pkl"] {
        let error = refused(name);
        assert!(error.contains("`data`") && error.contains("os.system"), "{error}");
        assert!(error.contains("torch.save("), "it says how to save tensors: {error}");
        assert!(!Path::new("os-system-ran").exists(), "the command ran");
    }
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    let mut wrong = Vec::new();
    for (name, reason) in [
        ("storage_too_large.pt", "`data[0][0]`: 48 bytes stored for 2147483647 F32 elements"),
        ("storage_too_large_legacy.pt", "the file is damaged"),
        ("storage_missing.pt", "`data[0][0]`: `data/0` is missing"),
        ("compressed.pt", "a compressed entry"),
        ("no_pickle.pt", "zip archive"),
        ("label_negative.pt", "sample 1: label -1 in `data[0][1]`"),
        ("label_huge.pt", "sample 1: label 1099511627776 is out of range"),
        ("label_fraction.pt", "sample 1: label 0.5 in `data[0][1]`"),
        ("label_missing.pt", "`data[0][1]`: 1 label for 2 images"),
        ("nan_logit.pt", "sample 1: "),
        ("two_channels.pt", "with 1 or 3 channels"),
        ("no_batch.pt", "`data[0][1]`: "),
        ("integer_images.pt", "I64"),
        ("complex.pt", "complex64"),
        ("no_experiments.pt", "`data`: expected a list"),
        ("not_a_pair.pt", "`data[0]`: expected a pair [images, labels]"),
        ("bare_list.pt", "it holds a list"),
        ("no_labels.pt", "no labels"),
        ("header_too_long.safetensors", "a header of 1099511627776 bytes"),
        ("too_short.safetensors", "`images`: F32 [2, 3, 1, 99] at bytes 0 to 2376 of 48"),
        ("objects.npz", "`images`: it is an array of Python objects"),
        ("bomb.npz", "F32 [1, 3, 1, 1] in "),
        ("too_long.npz", "bytes in a file of"),
        ("no_pixels.safetensors", "there are no images"),
        ("images_zca_5.pt", "labels_5.pt"),
        ("images_7.pt", "labels_7.pt"),
        ("tensor.pt", "name the files images.pt and labels.pt"),
    ] {
        let error = refused(name);
        if !error.contains(reason) {
            wrong.push(error);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_nan_pixel_is_reported_where_it_is() {
    let source = open(fixture("hostile/nan_pixel.pt")).unwrap();
    source.sample(0).unwrap();
    let error = source.sample(1).unwrap_err().to_string();
    assert!(error.contains("sample 1: pixel value NaN at channel 2, row 0, column 1"), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truncated.pt");
    for name in
        ["small.pt", "small_legacy.pt", "idc/data.pt", "named/probabilities.safetensors", "named/stored.npz"]
    {
        let whole = fs::read(fixture(name)).unwrap();
        let path = path.with_extension(Path::new(name).extension().unwrap());
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(open(&path).is_err(), "the first {length} bytes of {name}");
        }
    }
}

#[test]
fn no_changed_byte_panics() {
    let folder = tempfile::tempdir().unwrap();
    let parquet = folder.path().join("two.parquet");
    let png = image(image::ImageFormat::Png, 2, 2, 1);
    parquet_file(&parquet, &[Some(png.clone()), Some(png)], &[0, 1], true, true);
    let files = [
        "small.pt",
        "small_legacy.pt",
        "named/probabilities.safetensors",
        "named/compressed.npz",
        "named/stored.npz",
    ];
    for original in files.into_iter().map(fixture).chain([parquet]) {
        let whole = fs::read(&original).unwrap();
        let path = folder.path().join("changed").with_extension(original.extension().unwrap());
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff, whole[at]] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                fs::write(&path, &bytes).unwrap();
                let outcome = std::panic::catch_unwind(|| {
                    if let Ok(source) = open(&path) {
                        let samples = source.info().num_samples;
                        (0..samples).for_each(|index| drop(source.sample(index)));
                    }
                });
                assert!(outcome.is_ok(), "{}: byte {at} changed by {change:#04x} panics", original.display());
            }
        }
    }
}

#[test]
fn a_damaged_pixel_of_a_zip_file_is_found_by_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.pt");
    let mut bytes = fs::read(fixture("small.pt")).unwrap();
    let pixel = (-1.3_f32).to_le_bytes();
    let at = bytes.windows(4).position(|window| window == pixel).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = message(&path);
    assert!(error.contains("`data[0][0]`: damaged"), "{error}");
}

/// An encoded image whose value grows along each axis.
fn image(format: image::ImageFormat, width: u32, height: u32, red: u8) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([red, x as u8 * 9, y as u8 * 7]));
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn write(path: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn image_folders() {
    use image::ImageFormat::{Jpeg, Png};
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root.join("n02102040/1.png"), &image(Png, 3, 2, 20));
    write(root.join("n02102040/0.JPEG"), &image(Jpeg, 3, 2, 10));
    write(root.join("n01440764/b.png"), &image(Png, 3, 2, 30));
    write(root.join("n01440764/.hidden.png"), b"not an image");
    write(root.join("n01440764/notes.txt"), b"not an image");
    write(root.join(".cache/x.png"), b"not an image");
    write(root.join("readme.md"), b"not an image");
    let mut grey = Cursor::new(Vec::new());
    image::GrayImage::from_pixel(3, 2, image::Luma([77])).write_to(&mut grey, Png).unwrap();
    write(root.join("n01440764/a.png"), grey.get_ref());

    let source = open(root).unwrap();
    conformance::check(&source);
    let info = source.info();
    assert_eq!((info.format.as_str(), info.shape, info.num_samples), ("image-folder", [3, 2, 3], 4));
    assert_eq!(info.classes, Some(vec!["n01440764".into(), "n02102040".into()]));
    let labels: Vec<usize> = (0..4).map(|i| source.sample(i).unwrap().label.class()).collect();
    assert_eq!(labels, [0, 0, 1, 1]);
    let grey = source.sample(0).unwrap();
    assert_eq!(grey.pixels, StoredPixels::U8(vec![77; 18]));
    let planar = [vec![30; 6], vec![0, 9, 18, 0, 9, 18], vec![0, 0, 0, 7, 7, 7]].concat();
    assert_eq!(source.sample(1).unwrap().pixels, StoredPixels::U8(planar));

    write(root.join("n02102040/2.png"), &image(Png, 4, 2, 1));
    let error = message(root);
    assert!(error.contains("2.png: sample 4: 4 x 2 pixels where the first image has 3 x 2"), "{error}");
    fs::write(root.join("n02102040/2.png"), b"not an image").unwrap();
    let error = message(root);
    assert!(error.contains("2.png: sample 4: not an image"), "{error}");
    fs::remove_file(root.join("n02102040/2.png")).unwrap();
    fs::create_dir(root.join("n03000000")).unwrap();
    fs::create_dir(root.join("__MACOSX")).unwrap();
    let again = open(root).unwrap();
    assert_eq!((again.info().num_samples, again.info().num_classes), (4, 2));
    let notes = &again.info().notes;
    assert!(notes.iter().any(|note| note.contains("n03000000") && note.contains("no images")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("notes.txt")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("__MACOSX")), "{notes:?}");
}

#[test]
fn large_image_folders_are_checked_as_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let png = image(image::ImageFormat::Png, 2, 2, 5);
    for i in 0..1001 {
        write(folder.path().join(format!("0/{i:04}.png")), &png);
    }
    write(folder.path().join("0/0500.png"), &image(image::ImageFormat::Png, 2, 3, 5));
    let source = open(folder.path()).unwrap();
    source.sample(499).unwrap();
    let error = source.sample(500).unwrap_err().to_string();
    assert!(error.contains("0500.png: sample 500: 2 x 3 pixels"), "{error}");
}

#[test]
fn an_image_that_claims_to_be_huge_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path().join("0/0.png"),
        include_bytes!("../../tests/fuzz/corpus/image/claims_16777225_rows"),
    );
    let error = message(folder.path());
    assert!(error.contains("0.png: sample 0: 16 x 16777225 pixels, where at most 16777216"), "{error}");
}

#[test]
fn a_folder_of_datasets_is_none_and_names_them() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let error = message(&examples);
    for part in ["its subfolders are: open ", "digits/dc_ipc1", "digits/dm_ipc10"] {
        assert!(error.contains(part), "{error}");
    }

    let folder = tempfile::tempdir().unwrap();
    let png = image(image::ImageFormat::Png, 2, 2, 5);
    for path in ["train/cat", "train/dog", "val/cat", "val/dog"] {
        write(folder.path().join(path).join("0.png"), &png);
    }
    let error = message(folder.path());
    assert!(error.contains("/train, or pass split=") && error.contains("val"), "{error}");
    assert_eq!(OpenOptions::new().split("val").open(folder.path()).unwrap().info().num_samples, 2);
    assert!(open(folder.path().join("train")).is_ok());
}

#[test]
fn unknown_things_say_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(folder.path()).ends_with("the folder is empty"));
    let file = folder.path().join("data.bin");
    fs::write(&file, b"hello").unwrap();
    let error = message(folder.path());
    for format in ["data.bin", "Parquet", "class folders"] {
        assert!(error.contains(format), "{error}");
    }
    assert!(!error.contains("FKD"), "{error}");
    let error = message(&file);
    assert!(error.contains("begins with `hello`") && error.contains("Parquet"), "{error}");
    let error = message(&folder.path().join("absent"));
    assert!(error.contains("absent: cannot open"), "{error}");
    let png = image(image::ImageFormat::Png, 2, 2, 5);
    write(folder.path().join("0/0.png"), &png);
    let error = OpenOptions::new().experiment(0).open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("experiment: ") && error.contains("recognised as class folders"), "{error}");
}

/// A Parquet file as `datasets` writes it.
fn parquet_file(path: &Path, images: &[Option<Vec<u8>>], labels: &[i32], nested: bool, compressed: bool) {
    let bytes: ArrayRef = Arc::new(images.iter().map(Option::as_deref).collect::<BinaryArray>());
    let paths: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; images.len()]));
    let fields: Fields =
        vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into();
    let column: ArrayRef =
        if nested { Arc::new(StructArray::new(fields, vec![bytes, paths], None)) } else { bytes };
    let features =
        r#"{"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}"#;
    let schema = Schema::new(vec![
        Field::new("label", DataType::Int32, true),
        Field::new("image", column.data_type().clone(), true),
    ])
    .with_metadata([("huggingface".to_owned(), features.to_owned())]);
    let labels: ArrayRef = Arc::new(Int32Array::from(labels.to_vec()));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![labels, column]).unwrap();
    let compression = if compressed {
        parquet::basic::Compression::SNAPPY
    } else {
        parquet::basic::Compression::UNCOMPRESSED
    };
    let properties =
        parquet::file::properties::WriterProperties::builder().set_compression(compression).build();
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_files_and_folders() {
    use image::ImageFormat::{Jpeg, Png};
    let folder = tempfile::tempdir().unwrap();
    let encoded = |i: u8| Some(image(if i.is_multiple_of(2) { Png } else { Jpeg }, 3, 2, i));
    // More rows than are read at a time.
    let many: Vec<_> = (0..300).map(|i| encoded((i % 200) as u8)).collect();
    let labels: Vec<i32> = (0..300).map(|i| i % 2).collect();
    parquet_file(&folder.path().join("train-00000-of-00002.parquet"), &many, &labels, true, true);
    parquet_file(&folder.path().join("train-00001-of-00002.parquet"), &[encoded(250)], &[1], false, false);

    let source = open(folder.path()).unwrap();
    conformance::check(&source);
    let info = source.info();
    assert_eq!(
        (info.format.as_str(), info.num_samples, info.shape, info.num_classes),
        ("parquet", 301, [3, 2, 3], 3)
    );
    assert_eq!(info.classes, Some(["cat", "dog", "owl"].map(String::from).to_vec()));
    for index in [0, 2, 256, 298, 300] {
        let sample = source.sample(index).unwrap();
        let red = if index == 300 { 250 } else { index % 200 };
        let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
        assert_eq!(pixels, [vec![red as u8; 6], vec![0, 9, 18, 0, 9, 18], vec![0, 0, 0, 7, 7, 7]].concat());
    }
    assert_eq!(source.sample(300).unwrap().label, Label::Hard(1));
    assert_eq!(open(folder.path().join("train-00001-of-00002.parquet")).unwrap().info().num_samples, 1);

    for (number, fingerprint) in [(0, "ffffffffffffffff"), (1, "0123456789abcdef")] {
        let name = |end: &str| folder.path().join(format!("train-0000{number}-of-00002{end}.parquet"));
        fs::rename(name(""), name(&format!("-{fingerprint}"))).unwrap();
    }
    let again = open(folder.path()).unwrap();
    assert_eq!((again.info().num_samples, again.label(300).unwrap()), (301, Label::Hard(1)));

    fs::write(folder.path().join("test-00000-of-00001.parquet"), b"").unwrap();
    let error = message(folder.path());
    assert!(error.contains("several splits (test, train)"), "{error}");
}

#[test]
fn arrow_files_as_datasets_saves_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/arrow");
    // The folder of the only split, or the one that it lies in.
    assert_eq!(open(&folder).unwrap().info().num_samples, 3);
    let source = open(folder.join("train")).unwrap();
    conformance::check(&source);
    let info = source.info();
    assert_eq!(
        (info.format.as_str(), info.num_samples, info.shape, info.num_classes),
        ("arrow", 3, [3, 2, 3], 3)
    );
    assert_eq!(info.classes, Some(["cat", "dog", "owl"].map(String::from).to_vec()));
    for (index, class) in [2, 0, 1].into_iter().enumerate() {
        let sample = source.sample(index).unwrap();
        let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
        let red = vec![60 * index as u8 + 10; 6];
        assert_eq!(pixels, [red, vec![9, 0, 0, 9, 0, 0], vec![7; 6]].concat());
        assert_eq!(sample.label, Label::Hard(class));
    }

    // The other of the two kinds of file, and damage to it.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("set.arrow");
    let stream = fs::File::open(folder.join("train/data-00000-of-00001.arrow")).unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(stream, None).unwrap();
    let file = fs::File::create(&path).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &reader.schema()).unwrap();
    reader.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    writer.finish().unwrap();
    drop(writer);
    let again = open(&path).unwrap();
    for index in 0..3 {
        assert_eq!(again.sample(index).unwrap(), source.sample(index).unwrap());
    }
    let whole = fs::read(&path).unwrap();
    for keep in [0, 8, 12, 200, 600, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).unwrap();
        let error = message(&path);
        assert!(error.contains("set.arrow: "), "{error}");
    }
    for place in (0..whole.len()).step_by(5) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        if let Ok(source) = open(&path) {
            (0..source.info().num_samples).for_each(|index| drop(source.sample(index)));
        }
    }
}

#[test]
fn compressed_arrow_files_are_those_of_their_tables() {
    let fixtures = fixture("..");
    let source = open(fixtures.join("arrow/train")).unwrap();
    let check = |path: &Path| {
        let again = open(path).unwrap();
        conformance::check(&again);
        assert_eq!(again.info().format.as_str(), "arrow");
        assert_eq!(again.info().classes, source.info().classes);
        for index in 0..3 {
            assert_eq!(again.sample(index).unwrap(), source.sample(index).unwrap(), "{}", path.display());
        }
    };
    let folder = tempfile::tempdir().unwrap();
    for (compression, method) in [("lz4", CompressionType::LZ4_FRAME), ("zstd", CompressionType::ZSTD)] {
        check(&fixtures.join("feather").join(compression));
        check(&fixtures.join("feather").join(compression).join("train.feather"));

        let path = folder.path().join(compression).with_extension("arrow");
        let options = IpcWriteOptions::default().try_with_compression(Some(method)).unwrap();
        let stream = fs::File::open(fixtures.join("arrow/train/data-00000-of-00001.arrow")).unwrap();
        let reader = arrow::ipc::reader::StreamReader::try_new(stream, None).unwrap();
        let file = fs::File::create(&path).unwrap();
        let mut writer = StreamWriter::try_new_with_options(file, &reader.schema(), options).unwrap();
        reader.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
        writer.finish().unwrap();
        drop(writer);
        check(&path);

        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(message(&path).contains("it goes on after its end, for 4 bytes"), "{}", message(&path));
        for place in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0xff;
            fs::write(&path, bytes).unwrap();
            if let Ok(source) = open(&path) {
                (0..source.info().num_samples).for_each(|index| drop(source.sample(index)));
            }
        }
        // Columns claim to be large: more than memory is, or less.
        for claim in [i64::MAX, 1 << 45, 1 << 30] {
            let mut refused = 0;
            for at in (0..whole.len() - 8).step_by(8) {
                let mut bytes = whole.clone();
                let was = bytes[at..at + 8].first_chunk().copied().map(i64::from_le_bytes).unwrap();
                if (1..1 << 16).contains(&was) {
                    bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
                    fs::write(&path, bytes).unwrap();
                    let error = open(&path).err().map(|error| error.to_string()).unwrap_or_default();
                    refused += usize::from(error.contains("its compressed columns claim"));
                }
            }
            assert!(refused > 0, "{compression}: a claim of {claim} bytes");
        }
    }
}

#[test]
fn bad_parquet_rows_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.parquet");
    let png = |width| Some(image(image::ImageFormat::Png, width, 2, 1));
    for (images, labels, reason) in [
        (vec![png(2), png(2)], vec![0, -1], "sample 1: label -1: integers from 0"),
        (vec![png(2), png(2)], vec![0, 3], "sample 1: label 3 is out of range"),
        (vec![png(2), png(3)], vec![0, 1], "sample 1: 3 x 2 pixels where the first image has 2 x 2"),
        (vec![png(2), None], vec![0, 1], "sample 1: no image bytes"),
        (vec![Some(b"junk".to_vec())], vec![0], "sample 0: not an image"),
        (vec![], vec![], "no rows"),
    ] {
        parquet_file(&path, &images, &labels, true, false);
        let error = message(&path);
        assert!(error.contains("data.parquet") && error.contains(reason), "{error}");
    }
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(message(&path).contains("not a Parquet file that can be read"));
}

//! Torch files that methods do not write, and people do: pairs, and lists where tensors are expected.
#![allow(clippy::unwrap_used)]

use diver_loaders::source::{OpenOptions, Values, conformance, open};
use diver_loaders::{Label, Source as _, StoredPixels};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use zip::write::SimpleFileOptions;

// The parts of a pickle of protocol 2.

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integers(values: &[u8]) -> Vec<u8> {
    values.iter().flat_map(|value| [b'K', *value]).collect()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"](", &items.concat()[..], b"e"].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> =
        entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &entries[..], b"u"].concat()
}

/// Of the storage `key`, which has as many elements.
fn tensor(key: &str, kind: &str, shape: &[u8]) -> Vec<u8> {
    let stride = (1..=shape.len()).map(|from| shape[from..].iter().product()).collect::<Vec<u8>>();
    let numel = shape.iter().product();
    let class = format!("ctorch\n{kind}Storage\n").into_bytes();
    let location = [text(key), text("cpu"), integers(&[numel])].concat();
    let storage = [&b"("[..], &text("storage"), &class, &location, b"tQ"].concat();
    let sizes = [integers(&[0]), tuple(&[integers(shape)]), tuple(&[integers(&stride)])].concat();
    let hooks = b"\x89ccollections\nOrderedDict\n)RtR";
    [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, &sizes, hooks].concat()
}

/// A torch file that holds `root`, with the storages `0`, of floats, and `1`, of integers.
fn torch_file(path: &Path, root: &[u8], floats: &[f32], integers: &[i64]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [
        ("data.pkl", [b"\x80\x02", root, b"."].concat()),
        ("data/0", floats.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ("data/1", integers.iter().flat_map(|value| value.to_le_bytes()).collect()),
    ] {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn pairs_that_idc_did_not_write_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..24).map(|place| place as f32 / 24.0).collect();
    let pair = [tensor("0", "Float", &[2, 3, 2, 2]), tensor("1", "Long", &[2])];
    for (name, root, note) in [
        ("pair.pt", tuple(&pair), Some("IDC and NCFM")),
        ("data.pt", tuple(&pair), Some("IDC and NCFM")),
        ("pair.pt", list(&pair), Some("IDC and NCFM")),
        ("data_best.pt", list(&pair), None),
        ("data40.pt", list(&pair), None),
        ("data.pt", list(&pair), None),
        ("data_2000.pt", list(&pair), None),
        ("data_init.pt", list(&pair), None),
    ] {
        let path = folder.path().join(name);
        torch_file(&path, &root, &values, &[1, 0]);
        let opened = |options: OpenOptions| options.open(&path).unwrap();
        let source = opened(OpenOptions::new());
        conformance::check(&source);
        let (samples, format) = if note.is_some() { (2, "tensors") } else { (8, "idc") };
        assert_eq!((source.info().num_samples, source.info().format.as_str()), (samples, format), "{name}");
        if let Some(expected) = note {
            let notes = &source.info().notes;
            let has = notes.iter().any(|note| note.contains(expected) && note.contains("pass `factor` (2)"));
            assert!(has, "{name}: {notes:?}");
            assert_eq!(source.sample(1).unwrap().pixels, StoredPixels::F32(values[12..].to_vec()));
            assert_eq!(source.label(0).unwrap(), Label::Hard(1));
        }
        assert_eq!(opened(OpenOptions::new().factor(2)).info().num_samples, 8, "{name}");
        assert_eq!(opened(OpenOptions::new().factor(1)).info().num_samples, 2, "{name}");
    }
}

#[test]
fn what_is_far_from_pixels_is_not_cut_into_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.pt");
    let pair = [tensor("0", "Float", &[2, 3, 2, 2]), tensor("1", "Long", &[2])];
    let mut values = [0.5; 24];
    values[23] = -3.0;
    torch_file(&path, &list(&pair), &values, &[1, 0]);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("`[0]`: ") && error.contains("from -3 to 0.5"), "{error}");
    assert!(error.contains("`values` as `normalized`"), "{error}");
    assert!(OpenOptions::new().values(Values::Normalized).open(&path).is_ok());
}

#[test]
fn what_lies_beside_images_is_nobodys_business_and_what_is_needed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.pt");
    let own = |attributes: Vec<u8>| [&b"cutils\nImages\n)\x81"[..], &attributes, b"b"].concat();
    let images = || tensor("0", "Float", &[2, 3, 2, 2]);
    let labels = || tensor("1", "Long", &[2]);
    torch_file(
        &path,
        &dict(&[
            ("images", images()),
            ("labels", labels()),
            ("args", own(dict(&[("scale", integers(&[2]))]))),
        ]),
        &[0.25; 24],
        &[3, 0],
    );
    conformance::check(&open(&path).unwrap());

    for (root, field) in [
        (dict(&[("images", own(dict(&[]))), ("labels", labels())]), "`images`"),
        (dict(&[("images", images()), ("labels", own(dict(&[])))]), "`labels`"),
        (tuple(&[own(dict(&[])), list(&[integers(&[0, 1])])]), "`[0]`"),
        (dict(&[("data", list(&[list(&[own(dict(&[])), labels()])]))]), "`data[0][0]`"),
        (dict(&[("data", own(dict(&[])))]), "`data`"),
        (own(dict(&[])), ""),
    ] {
        torch_file(&path, &root, &[0.25; 24], &[3, 0]);
        let error = open(&path).unwrap_err().to_string();
        for part in ["set.pt", field, "utils.Images", "torch.save("] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn lists_in_torch_files_are_labels_or_say_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.pt");
    let images = || tensor("0", "Float", &[2, 3, 2, 2]);
    let write = |root: Vec<u8>| torch_file(&path, &root, &[0.25; 24], &[3, 0]);
    for root in [
        dict(&[("images", images()), ("labels", list(&[integers(&[3, 0])]))]),
        dict(&[("x", images()), ("y", tuple(&[integers(&[3, 0])]))]),
        // By a later name, but a tensor.
        dict(&[
            ("images", images()),
            ("labels", list(&[text("cat")])),
            ("targets", tensor("1", "Long", &[2])),
        ]),
        tuple(&[images(), list(&[integers(&[3, 0])])]),
    ] {
        write(root);
        let source = open(&path).unwrap();
        conformance::check(&source);
        assert_eq!((source.info().num_samples, source.info().num_classes), (2, 4));
        assert_eq!(source.label(0).unwrap(), Label::Hard(3));
    }
    let one = || tensor("0", "Float", &[3, 2, 4]);
    for (root, reason) in [
        (
            dict(&[("images", images()), ("labels", list(&[integers(&[1])]))]),
            "`labels`: 1 label for 2 images",
        ),
        (
            dict(&[("images", images()), ("labels", list(&[text("cat"), text("dog"), text("owl")]))]),
            "`labels`: expected a tensor or a list of labels",
        ),
        (
            dict(&[("images", images()), ("labels", dict(&[]))]),
            "`labels`: expected a tensor or a list of labels",
        ),
        (dict(&[("images", images())]), "there are no labels for `images`"),
        (
            dict(&[("images", list(&[one(), one()])), ("labels", tensor("1", "Long", &[2]))]),
            "`images`: expected a tensor [N, C, H, W], found a list of 2 tensors",
        ),
        (
            tuple(&[list(&[one(), one()]), list(&[integers(&[0, 1])])]),
            "`[0]`: expected a tensor [N, C, H, W]",
        ),
        (dict(&[("images", integers(&[1]))]), "`images`: expected a tensor [N, C, H, W]"),
    ] {
        write(root);
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

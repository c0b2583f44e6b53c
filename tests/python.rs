//! The same loader in Rust and in Python: batches byte for byte, states that cross, one cache. Needs `make setup`.
#![allow(clippy::unwrap_used)]

use diver::{Cache, DeviceChoice, Knobs, Loader, LoaderState, Mix, Refiner};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

const SET: &str = "examples/shapes/dm_ipc10";

/// What `tests/python/batches.py` streams: the bytes of its batches, and what it says in the end.
fn python(source: &str, options: &Value, state: Option<&LoaderState>, batches: usize) -> (Vec<u8>, Value) {
    let mut child = Command::new(".venv/bin/python")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("tests/python/batches.py")
        .env("PYTHONWARNINGS", "error")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`make setup` makes .venv");
    let request = json!({ "source": source, "options": options, "state": state, "batches": batches });
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    // What was assumed of the set is said before.
    let report = stderr.lines().last().unwrap();
    (output.stdout, serde_json::from_str(report).unwrap())
}

fn rust(loader: &mut Loader, batches: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for batch in loader.batches().take(batches) {
        let batch = batch.unwrap();
        let values = batch.images::<f32>().unwrap().iter().chain(batch.targets());
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

fn path(relative: &str) -> String {
    format!("{}/{relative}", env!("CARGO_MANIFEST_DIR"))
}

/// Shuffled, of one rank of two, resized, over the end of an epoch.
fn raw_loader() -> (Loader, Value) {
    let loader = Loader::builder(diver::open(path(SET)).unwrap())
        .batch_size(7)
        .shuffle(true)
        .seed(u64::MAX)
        .shard(1, 2)
        .image_size(24, 20)
        .build()
        .unwrap();
    let options = json!({
        "batch_size": 7, "shuffle": true, "seed": u64::MAX, "rank": 1, "world_size": 2, "image_size": [24, 20],
        "threads": 1, "prefetch": 2,
    });
    (loader, options)
}

#[test]
fn batches_are_equal_byte_for_byte() {
    let (mut loader, options) = raw_loader();
    let (bytes, report) = python(SET, &options, None, 19);
    assert!(bytes == rust(&mut loader, 19), "the bytes of 19 batches");
    assert_eq!(report["state"], serde_json::to_value(loader.state()).unwrap());
}

#[test]
fn a_state_crosses_from_rust_to_python_and_back() {
    let (mut reference, options) = raw_loader();
    rust(&mut reference, 3);
    let (bytes, report) = python(SET, &options, Some(&reference.state()), 8);
    assert!(bytes == rust(&mut reference, 8), "Python goes on where Rust stood");

    let (mut resumed, _) = raw_loader();
    resumed.load_state(&serde_json::from_value(report["state"].clone()).unwrap()).unwrap();
    assert!(rust(&mut resumed, 8) == rust(&mut reference, 8), "Rust goes on where Python stood");
}

#[test]
fn refined_images_are_equal_and_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let (set, backbone) = ("examples/digits/dm_ipc1", "examples/digits/backbone");
    let loader = |cache: &str| {
        let knobs = Knobs::builder().steps(4).build().unwrap();
        let refiner =
            Refiner::builder(path(backbone)).device(DeviceChoice::Cpu).knobs(knobs).build().unwrap();
        Loader::builder(diver::open(path(set)).unwrap())
            .refiner(refiner)
            .cache(Cache::open(folder.path().join(cache)).unwrap())
            .mix(Mix::linear(0.5, 1.0, 3).unwrap())
            .batch_size(10)
            .threads(1)
            .seed(3)
            .build()
            .unwrap()
    };
    let options = |cache: &str| {
        json!({
            "refiner": backbone, "cache": folder.path().join(cache), "mix": [0.5, 1.0, 3], "batch_size": 10,
            "threads": 1, "seed": 3,
        })
    };
    let expected = rust(&mut loader("rust"), 4);
    let (shared, report) = python(set, &options("rust"), None, 4);
    assert!(shared == expected, "images from Rust's cache");
    assert_eq!(report["stats"]["misses"], 0, "Python finds what Rust refined: {report}");

    let (own, report) = python(set, &options("python"), None, 4);
    assert_eq!(report["stats"]["misses"], 10);
    assert!(own == expected, "images refined from Python");
    let mut again = loader("python");
    assert!(rust(&mut again, 4) == expected, "images from Python's cache");
    assert_eq!(again.stats().misses, 0, "Rust finds what Python refined");
}

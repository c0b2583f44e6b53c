//! The `diver` command on the shipped digits, and on everything that can be wrong with its input.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SET: &str = "examples/digits/dm_ipc1";
const BACKBONE: &str = "examples/digits/backbone";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn diver(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_diver")).current_dir(root()).args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = diver(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must fail with code 1, and returns the one line that says why.
fn failure(args: &[&str]) -> String {
    let output = diver(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    // What was assumed of a set is said before.
    let (errors, notes): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| line.starts_with("error: "));
    assert!(errors.len() == 1 && notes.iter().all(|note| note.contains("WARN")), "{args:?}: {stderr}");
    errors[0].to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `diver refine` with few steps, to be quick.
fn refine<'a>(source: &'a str, backbone: &'a str, cache: &'a str) -> Vec<&'a str> {
    vec!["refine", source, "--backbone", backbone, "--cache", cache, "--device", "cpu", "--steps", "4"]
}

#[test]
fn inspect_describes_the_set() {
    let info = json(&["inspect", SET]);
    assert_eq!(info["format"], "mtt");
    assert_eq!(info["num_samples"], 10);
    assert_eq!(info["num_classes"], 10);
    assert_eq!(info["shape"], serde_json::json!([3, 32, 32]));
    assert_eq!(info["labels"], "hard");
    assert!(info["value_space"]["normalized"]["mean"].is_array());
    let dc = json(&["inspect", "examples/digits/dm_ipc1/res_DM_digits_ConvNet_1ipc.pt"]);
    assert_eq!((&dc["format"], &dc["num_samples"]), (&"dc".into(), &10.into()));
}

#[test]
fn refine_fills_a_cache_that_later_runs_use() {
    let folder = tempfile::tempdir().unwrap();
    let cache = text(folder.path());
    let cold = json(&refine(SET, BACKBONE, cache));
    assert_eq!((&cold["cached"], &cold["refined"]), (&0.into(), &10.into()));
    let warm = json(&refine(SET, BACKBONE, cache));
    assert_eq!((&warm["cached"], &warm["refined"]), (&10.into(), &0.into()));
    assert_eq!(cold["folder"], warm["folder"]);

    let dc = "examples/digits/dm_ipc1/res_DM_digits_ConvNet_1ipc.pt";
    assert_eq!(json(&refine(dc, BACKBONE, cache))["cached"], 10, "the same images in another format");
    let other = json(&[refine(SET, BACKBONE, cache), vec!["--gamma", "0.2"]].concat());
    assert_eq!(other["refined"], 10, "another setting makes other images");
    assert_ne!(other["folder"], cold["folder"]);
}

#[test]
fn label_fills_a_cache_with_logits() {
    let folder = tempfile::tempdir().unwrap();
    let (set, cache) = (folder.path().join("set"), folder.path().join("cache"));
    for class in 0..5_u8 {
        let class_folder = set.join(class.to_string());
        fs::create_dir_all(&class_folder).unwrap();
        let image = diver::RgbImage::new(32, 32, vec![40 * class; 32 * 32 * 3]).unwrap();
        fs::write(class_folder.join("image.png"), image.to_png().unwrap()).unwrap();
    }
    let teacher = root().join("tests/golden/teacher_tiny.pt");
    let label = |set: &Path| -> Vec<String> {
        [
            "label",
            text(set),
            "--raw",
            "--teacher",
            text(&teacher),
            "--teacher-device",
            "cpu",
            "--cache",
            text(&cache),
        ]
        .map(str::to_owned)
        .to_vec()
    };
    for (labelled, cached) in [(5, 0), (0, 5)] {
        let report = json(&label(&set).iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((&report["labelled"], &report["cached"]), (&labelled.into(), &cached.into()));
    }
    let other = failure(&label(Path::new(SET)).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(other.contains('5') && other.contains("10"), "{other}");
}

#[test]
fn an_interrupted_cache_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let cache = text(folder.path());
    let small = [refine(SET, BACKBONE, cache), vec!["--refine-batch", "2"]].concat();
    let partition = PathBuf::from(json(&small)["folder"].as_str().unwrap());
    let mut parts: Vec<_> = fs::read_dir(&partition)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect();
    parts.sort();
    assert_eq!(parts.len(), 5);
    fs::remove_file(&parts[4]).unwrap();
    // What a kill in the middle of a write leaves behind, and a part that rotted.
    fs::write(partition.join(".writing-abc"), b"half a part").unwrap();
    let rotten = fs::read(&parts[1]).unwrap();
    fs::write(&parts[1], &rotten[..rotten.len() / 2]).unwrap();
    let again = diver(&[small.as_slice(), &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&again.stderr);
    let summary: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&summary["cached"], &summary["refined"]), (&6.into(), &4.into()));
    assert!(stderr.contains("part-00000001.parquet: damaged part"), "{stderr}");
}

/// Two refiners on one device, as two GPUs would.
#[test]
fn several_devices_share_a_set() {
    let folder = tempfile::tempdir().unwrap();
    let exported = |device: &str| {
        let cache = folder.path().join(format!("{device}-cache"));
        let mut command = refine(SET, BACKBONE, text(&cache));
        command[7] = device;
        assert_eq!(json(&command)["refined"], 10, "{device}");
        command[7] = "cpu";
        assert_eq!(json(&command)["refined"], 0, "the same images are asked for");
        let output = folder.path().join(device);
        command[0] = "export";
        json(&[&command[..], &["--to", "safetensors", "--output", text(&output)]].concat());
        fs::read(output.join("data.safetensors")).unwrap()
    };
    let (one, two) = (exported("cpu"), exported("cpu,cpu"));
    assert_eq!(one.len(), two.len());
    // Batches of another size may move a byte by one grey level.
    assert!(one.iter().zip(&two).all(|(one, two)| one.abs_diff(*two) <= 1));
    let cache = folder.path().join("none");
    let error =
        failure(&["refine", SET, "--backbone", BACKBONE, "--cache", text(&cache), "--device", "cpu,gpu"]);
    assert!(error.contains("device: `gpu` is not one of auto, cpu, cuda, cuda:N"), "{error}");
}

/// A kill at any instant loses the micro-batch in flight and nothing else; Ctrl-C ends with code 130.
#[test]
#[cfg(unix)]
fn a_killed_refinement_keeps_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        refine("examples/shapes/dm_ipc10", "examples/shapes/backbone", text(folder.path())),
        vec!["--refine-batch", "1"],
    ]
    .concat();
    let parts = || {
        let generations = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = generations.flat_map(|partition| fs::read_dir(partition).unwrap());
        let is_part = |name: &str| name.starts_with("part-") && name.ends_with(".parquet");
        files.filter(|file| is_part(file.as_ref().unwrap().file_name().to_str().unwrap())).count()
    };
    for (signal, code) in [("-KILL", None), ("-INT", Some(130))] {
        let before = parts();
        let mut child = Command::new(env!("CARGO_BIN_EXE_diver"))
            .current_dir(root())
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while parts() < before + 3 {
            assert!(child.try_wait().unwrap().is_none(), "the command ended too early");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), code);
    }
    let done = parts();
    let rest = json(&args);
    assert_eq!((&rest["cached"], &rest["refined"]), (&done.into(), &(100 - done).into()));
    let set = diver::open(rest["folder"].as_str().unwrap()).unwrap();
    assert_eq!(set.info().num_samples, 100, "every image is there once");
}

#[test]
fn processes_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let args = [refine(SET, BACKBONE, text(folder.path())), vec!["--refine-batch", "1"]].concat();
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_diver"))
            .current_dir(root())
            .args(&args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let processes = [run(), run(), run()];
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let after = json(&args);
    assert_eq!((&after["cached"], &after["refined"]), (&10.into(), &0.into()));
}

#[test]
fn preview_writes_a_sheet() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, sheet) = (folder.path().join("cache"), folder.path().join("sheet.png"));
    let args = [
        "preview",
        SET,
        "--backbone",
        BACKBONE,
        "--cache",
        text(&cache),
        "--steps",
        "4",
        "--device",
        "cpu",
        "--scale",
        "2",
        "-o",
        text(&sheet),
    ];
    assert_eq!(json(&args)["images"], serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let image = diver::RgbImage::from_png(&fs::read(&sheet).unwrap()).unwrap();
    assert_eq!((image.width(), image.height()), (10 * 66 + 2, 2 * 66 + 2));
}

#[test]
fn usage_errors_end_with_code_2() {
    assert_eq!(diver(&["refine"]).status.code(), Some(2));
    assert_eq!(diver(&["no-such-command"]).status.code(), Some(2));
    for (option, value) in [
        ("--refine-batch", "many"),
        ("--window", "40"),
        ("--mode", "everything"),
        ("--sigma", "5"),
        ("--preset", "nobody"),
        ("--model", "gan"),
        ("--mean", "0.5,0.5"),
    ] {
        let refused = diver(&["refine", SET, "--backbone", BACKBONE, option, value]);
        assert_eq!(refused.status.code(), Some(2), "{option} {value}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(&format!("'{value}' for '{option}")));
    }
    assert_eq!(diver(&["--help"]).status.code(), Some(0));
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let base = ["refine", SET, "--backbone", BACKBONE, "--cache", text(folder.path())];
    for (option, value, name) in [
        ("--steps", "1", "steps"),
        ("--gamma", "-1", "gamma"),
        ("--window", "25,40", "window"),
        ("--refine-batch", "0", "batch_size"),
        ("--cfg-channels", "7", "cfg_channels"),
        ("--device", "tpu", "device"),
        ("--dtype", "int4", "dtype"),
        ("--classes", "0,1", "classes"),
        ("--classes", "0,1,2,3,4,5,6,7,8,10", "class 10"),
    ] {
        // The equals sign lets a value begin with a dash.
        let message = failure(&[&base[..], &[&format!("{option}={value}")]].concat());
        assert!(message.contains(name), "{option} {value}: {message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn bad_datasets_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let path = |name: &str| folder.path().join(name);
    let refused = |source: &Path, expected: &[&str]| {
        for command in ["inspect", "refine"] {
            let args = match command {
                "inspect" => vec!["inspect", text(source)],
                _ => refine(text(source), BACKBONE, text(&cache)),
            };
            let message = failure(&args);
            for part in expected {
                assert!(message.contains(part), "{command}: {message}");
            }
        }
    };
    refused(&path("nowhere.pt"), &["nowhere.pt", "cannot open"]);

    let sound = fs::read(root().join(SET).join("res_DM_digits_ConvNet_1ipc.pt")).unwrap();
    fs::write(path("truncated.pt"), &sound[..sound.len() / 2]).unwrap();
    refused(&path("truncated.pt"), &["truncated.pt"]);

    fs::write(path("text.pt"), "not a dataset").unwrap();
    refused(&path("text.pt"), &["text.pt", "not a known dataset"]);

    let images = path("mixed");
    for (class, side) in [("cat", 8_usize), ("dog", 9)] {
        fs::create_dir_all(images.join(class)).unwrap();
        let image = diver::RgbImage::new(side, side, vec![7; side * side * 3]).unwrap();
        fs::write(images.join(class).join("0.png"), image.to_png().unwrap()).unwrap();
    }
    refused(&images, &["0.png", "8", "9"]);
    assert!(!cache.exists(), "nothing was written");
}

#[test]
fn bad_samples_are_refused_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let cache = text(folder.path());
    let nan = "tests/fixtures/torch/hostile/nan_pixel.pt";
    let message = failure(&[refine(nan, BACKBONE, cache), vec!["--classes", "identity"]].concat());
    assert!(message.contains("nan_pixel.pt: sample 1: pixel value NaN"), "{message}");
    assert_no_parts(folder.path());
}

#[test]
fn a_pickle_that_calls_os_system_is_not_run() {
    let marker = root().join("os-system-ran");
    let message = failure(&["inspect", "tests/fixtures/torch/hostile/os_system.pt"]);
    assert!(message.contains("os_system.pt") && message.contains("system"), "{message}");
    assert!(!marker.exists());
}

#[test]
fn bad_backbones_are_refused_by_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let refused = |backbone: &Path, expected: &[&str]| {
        let message = failure(&refine(SET, text(backbone), text(&cache)));
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    };
    refused(&folder.path().join("nowhere"), &["nowhere"]);
    refused(folder.path(), &["transformer"]);

    let copy = folder.path().join("backbone");
    for part in ["transformer", "vae", "scheduler"] {
        fs::create_dir_all(copy.join(part)).unwrap();
        for entry in fs::read_dir(root().join(BACKBONE).join(part)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(part).join(entry.file_name())).unwrap();
        }
    }
    let weights = copy.join("vae/diffusion_pytorch_model.safetensors");
    let sound = fs::read(&weights).unwrap();
    fs::write(&weights, &sound[..sound.len() - 1000]).unwrap();
    refused(&copy, &["vae", "diffusion_pytorch_model.safetensors"]);

    let key = "decoder.conv_in.weight";
    let renamed = String::from_utf8_lossy(&sound[..20_000]).contains(key);
    assert!(renamed, "the test's key is in the file's header");
    fs::write(&weights, replace(&sound, key, "decoder.conv_im.weight")).unwrap();
    refused(&copy, &["vae", "diffusion_pytorch_model.safetensors", key]);

    fs::write(&weights, &sound).unwrap();
    let config = copy.join("vae/config.json");
    let narrower = fs::read_to_string(&config).unwrap().replacen("64", "48", 1);
    fs::write(&config, narrower).unwrap();
    refused(&copy, &["vae", "87 keys do not fit", "[64]", "[48]", "and 77 more"]);
    assert!(!cache.exists() || fs::read_dir(&cache).unwrap().count() == 0, "nothing was written");
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let message = failure(&refine(SET, BACKBONE, text(&file.join("cache"))));
    assert!(message.contains("cache") && message.contains("cannot make"), "{message}");
}

/// Replaces the first occurrence of `from` by `to`, which is as long.
fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut replaced = bytes.to_vec();
    replaced[at..at + to.len()].copy_from_slice(to.as_bytes());
    replaced
}

fn assert_no_parts(cache: &Path) {
    for partition in fs::read_dir(cache).unwrap() {
        for file in fs::read_dir(partition.unwrap().path()).unwrap() {
            assert_ne!(file.unwrap().path().extension(), Some("parquet".as_ref()));
        }
    }
}

#[test]
fn a_demo_of_nothing_known_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(folder.path());
    let unknown = failure(&["demo", "--set", "faces", "--output", out]);
    assert_eq!(unknown, "error: set: `faces` is not an example; there are digits, shapes");
    let elsewhere = failure(&["demo", "--examples", "no/such/folder", "--output", out]);
    assert!(elsewhere.starts_with("error: examples: no/such/folder is no folder; run in"), "{elsewhere}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let blocked = failure(&["demo", "--set", "digits", "--output", text(&file)]);
    assert!(blocked.contains("file: cannot make the folder"), "{blocked}");
}

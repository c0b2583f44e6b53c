//! `diver cache` on a cache that `diver refine` filled from the shipped digits.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SET: &str = "examples/digits/dm_ipc1";
const BACKBONE: &str = "examples/digits/backbone";

fn diver(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diver"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).arg("--cache").arg(cache).output().unwrap()
}

/// What a command prints for people.
fn text(cache: &Path, args: &[&str]) -> String {
    let output = diver(cache, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(cache: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&text(cache, &[args, &["--json"]].concat())).unwrap()
}

/// Refines the set with a gain, and returns the fingerprint's folder.
fn refine(cache: &Path, gamma: &str, more: &[&str]) -> PathBuf {
    let args = ["refine", SET, "--backbone", BACKBONE, "--device", "cpu", "--steps", "2", "--gamma", gamma];
    let done = json_of(cache, &[&args[..], more].concat());
    PathBuf::from(done["folder"].as_str().unwrap())
}

fn name(folder: &Path) -> &str {
    folder.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_cache_is_listed_and_its_misses_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    assert!(text(cache, &["cache", "ls"]).contains("the cache is empty"));
    refine(cache, "0.2", &[]);
    refine(cache, "0.3", &["--shard", "0/2"]);

    let listed = text(cache, &["cache", "ls", "--set", SET]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    assert!(lines[0].contains("2 fingerprints") && lines[1].contains("ROWS"), "{listed}");
    assert!(lines[2].contains("5 of 10") && lines[2].contains("knobs.gamma=0.3"), "{listed}");
    assert!(lines[3].contains("10 of 10") && lines[3].contains("knobs.gamma=0.2"), "{listed}");
    let column = |line: &str, cell: &str| line.find(cell).unwrap();
    assert_eq!(column(lines[1], "DIFFERS"), column(lines[3], "knobs.gamma"), "{listed}");
    let listed = json_of(cache, &["cache", "ls"]);
    let second = &listed["fingerprints"][1];
    assert_eq!(
        (&second["wanted"], &second["found"], &second["rows"]),
        (&Value::Null, &Value::Null, &json!(10))
    );
    let output = diver(&cache.join("nowhere"), &["cache", "ls"]);
    assert!(!output.status.success() && !cache.join("nowhere").exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"));
    let output = diver(cache, &["cache", "ls", "--experiment", "1"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--set"));

    let explain = |gamma: &'static str| {
        ["cache", "explain", SET, "--backbone", BACKBONE, "--device", "cpu", "--steps", "2", "--gamma", gamma]
    };
    let told = |gamma| {
        let told = json_of(cache, &explain(gamma));
        (told["verdict"].clone(), told["found"].clone(), told["wanted"].clone())
    };
    assert_eq!(told("0.2"), (json!("hit"), json!(10), json!(10)));
    assert_eq!(told("0.3"), (json!("partly"), json!(5), json!(10)));
    let miss = json_of(cache, &explain("0.4"));
    assert_eq!((&miss["verdict"], &miss["neighbours"][0]["found"]), (&json!("miss"), &json!(10)));
    let difference = json!([{ "field": "knobs.gamma", "wanted": 0.4, "theirs": 0.2 }]);
    assert_eq!(miss["neighbours"][0]["differences"], difference);
    let miss = text(cache, &explain("0.4"));
    assert!(miss.starts_with("miss: ") && miss.contains("  knobs.gamma  0.4     0.2"), "{miss}");
    assert_eq!(fs::read_dir(cache).unwrap().count(), 2, "an explanation writes nothing");
}

#[test]
fn a_cache_is_checked_merged_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let (two, three) = (refine(cache, "0.2", &["--refine-batch", "2"]), refine(cache, "0.3", &[]));
    assert_eq!(json_of(cache, &["cache", "verify"])["rows"], 20);
    let part = two.join("part-00000001.parquet");
    let mut bytes = fs::read(&part).unwrap();
    bytes[100] ^= 1;
    fs::write(&part, bytes).unwrap();
    let damaged = diver(cache, &["cache", "verify"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("part-00000001.parquet"));
    assert_eq!(diver(cache, &["cache", "verify"]).status.code(), Some(0), "it was set aside");

    let merged = json_of(cache, &["cache", "compact"]);
    assert_eq!((&merged["gathered"], &merged["into"], &merged["rows"]), (&json!(4), &json!(1), &json!(8)));
    assert!(text(cache, &["cache", "compact"]).contains("nothing to merge"));

    assert_eq!(diver(cache, &["cache", "gc"]).status.code(), Some(2), "a rule is required");
    assert_eq!(diver(cache, &["cache", "gc", "--keep", "much"]).status.code(), Some(2));
    assert!(text(cache, &["cache", "gc", "--older", "30d"]).contains("nothing to delete"));
    let dry = text(cache, &["cache", "gc", "--fingerprint", name(&two)]);
    assert!(dry.contains("would delete 1 fingerprint") && dry.contains("--apply"), "{dry}");
    assert!(two.exists());
    let gone = json_of(cache, &["cache", "gc", "--fingerprint", name(&two), "--apply"]);
    assert!(gone["freed_bytes"].as_u64().unwrap() > 1000 && gone["evicted"][0]["name"] == name(&two));
    assert!(!two.exists() && three.exists());

    let four = refine(cache, "0.4", &["--cache-limit", "1kB"]);
    assert!(four.exists() && !three.exists(), "the cache is kept within its limit");
    assert_eq!(json_of(cache, &["cache", "gc", "--keep", "0", "--apply"])["evicted"][0]["is_in_use"], false);
    assert!(text(cache, &["cache", "ls"]).contains("the cache is empty"));
}

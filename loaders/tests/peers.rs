//! What the cache writes, opened by the libraries that it is promised to: `make test-peers` runs this with a Python
//! that has them.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{ImageForm, ImageRow, LogitForm, LogitRow};
use diver_loaders::{Cache, Digest, Label, RgbImage};
use serde_json::{Value, json};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Rows of a partition, in parts of two.
const ROWS: usize = 5;
const CLASSES: usize = 10;

fn class_names() -> Vec<String> {
    (0..CLASSES).map(|class| format!("class {class}")).collect()
}

/// Logits of all signs and sizes, no two of a row equal.
fn logits(row: usize) -> Vec<f32> {
    (0..CLASSES).map(|class| ((row * 37 + class * 7) % 11) as f32 * 1.1 - 5.3 + row as f32 * 1e-3).collect()
}

/// Images, half of them with soft labels; what they should be found to be.
fn write_images(cache: &Cache) -> Value {
    let partition = cache.images(&json!({ "refiner": "peers" })).unwrap();
    let rows: Vec<ImageRow> = (0..ROWS)
        .map(|row| ImageRow {
            form: ImageForm::Png,
            key: LogitRow::key_of(Digest::of(b"image"), row as u64),
            image: Arc::new(
                RgbImage::new(4, 3, (0..36).map(|at| (at * 7 + row * 50) as u8).collect()).unwrap(),
            ),
            label: if row % 2 == 0 { Label::Hard(row) } else { Label::Logits(logits(row)) },
            index: row,
            variant: 0,
            seconds: 0.25,
        })
        .collect();
    for part in rows.chunks(2) {
        partition.commit(part, &class_names()).unwrap();
    }
    let told = rows.iter().map(|row| {
        json!({
            "key": row.key,
            "label": row.label.class(),
            "soft_label": row.label.scores(),
            "pixels": row.image.as_bytes(),
        })
    });
    json!({
        "folder": partition.path(),
        "size": [4, 3],
        "rows": told.collect::<Vec<_>>(),
    })
}

/// Logits in one form, and what they were before they were stored.
fn write_logits(cache: &Cache, half: bool, top_k: usize) -> Value {
    let partition = cache.logits(&json!({ "teacher": "peers", "half": half, "top_k": top_k })).unwrap();
    let form = LogitForm { half, top_k: NonZero::new(top_k) };
    let keys: Vec<_> = (0..ROWS).map(|row| LogitRow::key_of(Digest::of(b"image"), row as u64)).collect();
    let rows: Vec<LogitRow> =
        (0..ROWS).map(|row| LogitRow::new(keys[row], row, &logits(row), form).unwrap()).collect();
    for part in rows.chunks(2) {
        partition.commit(part, &class_names()).unwrap();
    }
    let told = (0..ROWS)
        .map(|row| json!({ "key": keys[row], "label": row, "logits": logits(row) }))
        .collect::<Vec<_>>();
    json!({ "folder": partition.path(), "half": half, "top_k": top_k, "rows": told })
}

#[test]
#[ignore = "needs a Python with datasets, DuckDB, Polars, pandas and pyarrow: `make test-peers`"]
fn parts_are_tables_to_others() {
    let python = std::env::var_os("DIVER_PEERS").expect("DIVER_PEERS is the Python to try it with");
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("cache")).unwrap();
    let forms = [(false, 0), (true, 0), (false, 3), (true, 3)];
    let told = json!({
        "class_names": class_names(),
        "images": write_images(&cache),
        "logits": forms.map(|(half, top_k)| write_logits(&cache, half, top_k)),
    });
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, told.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/open_parts.py");
    let ended = Command::new(python)
        .arg(script)
        .arg(&expected)
        // What `datasets` converts goes there, not into the home folder.
        .env("HF_HOME", folder.path().join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .status()
        .unwrap();
    assert!(ended.success());
}

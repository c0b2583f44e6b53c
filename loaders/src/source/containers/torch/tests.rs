//! Files that Python, numpy and torch wrote, against what these read from them.

use super::*;
use crate::source::containers::tensor::TensorFile;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch").join(name)
}

/// Where `found` is not what `expected` tells, and how.
fn compare(file: &TensorFile, found: Value<'_>, expected: &Json, at: &str, wrong: &mut Vec<String>) {
    let entry = |key: &str| expected.get(key);
    let list = |key: &str| entry(key).and_then(Json::as_array).map(Vec::as_slice);
    let mut is = |ok: bool| {
        if !ok {
            wrong.push(format!("{at}: {} for {:.100}", found.describe(), expected.to_string()));
        }
    };
    if let Some(dtype) = entry("dtype") {
        let Some(tensor) = found.as_tensor() else { return is(false) };
        let shape: Vec<u64> = list("shape").unwrap().iter().map(|size| size.as_u64().unwrap()).collect();
        is(tensor.dtype().name() == dtype
            && shape.iter().eq(tensor.shape().iter().map(|size| *size as u64).collect::<Vec<_>>().iter()));
        let values = list("values").unwrap();
        if tensor.dtype().is_float() {
            let read: Vec<f32> = file.read(tensor, at).unwrap();
            is(read.len() == values.len()
                && read.iter().zip(values).all(|(read, value)| *read == value.as_f64().unwrap() as f32));
        } else {
            let read: Vec<i64> = file.read(tensor, at).unwrap();
            let integer =
                |value: &Json| value.as_i64().unwrap_or_else(|| i64::from(value.as_bool().unwrap()));
            is(read == values.iter().map(integer).collect::<Vec<_>>());
        }
        return;
    }
    if entry("opaque").is_some() {
        return is(found.is_opaque() && found.advice().is_some() || matches!(found.kind(), "bytes"));
    }
    if entry("none").is_some() {
        is(found.is_none());
    }
    if let Some(value) = entry("bool") {
        is(found.as_bool() == value.as_bool());
    }
    if let Some(value) = entry("int") {
        is(found.as_int() == value.as_i64());
    }
    if let Some(value) = entry("float") {
        is(found.as_float() == value.as_f64());
    }
    if let Some(value) = entry("text") {
        is(found.as_str() == value.as_str());
    }
    if let Some(values) = list("bytes") {
        let values: Vec<u8> = values.iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
        is(found.as_bytes() == Some(&values));
    }
    if entry("storage").is_some() {
        is(found.kind() == "a storage");
    }
    for key in ["set", "range"] {
        if let Some(values) = list(key) {
            let mut integers = found.integers().unwrap_or_default();
            integers.sort_unstable();
            is(integers.iter().eq(values
                .iter()
                .map(|value| value.as_i64().unwrap())
                .collect::<Vec<_>>()
                .iter()));
        }
    }
    if let Some(class) = entry("class") {
        is(found.class() == class.as_str());
    }
    if let Some(name) = entry("name").and_then(Json::as_str) {
        is(found.class().is_some_and(|class| class.ends_with(&format!(".{name}"))) && found.is_opaque());
    }
    if let Some(items) = list("items") {
        let found: Vec<Value<'_>> = found.items().into_iter().flatten().collect();
        is(found.len() == items.len());
        for (index, (found, item)) in found.into_iter().zip(items).enumerate() {
            compare(file, found, item, &format!("{at}[{index}]"), wrong);
        }
        return;
    }
    if let Some(args) = list("args") {
        let found: Vec<Value<'_>> = found.args().into_iter().flatten().collect();
        is(found.len() == args.len());
        for (index, (found, item)) in found.into_iter().zip(args).enumerate() {
            compare(file, found, item, &format!("{at}({index})"), wrong);
        }
        return;
    }
    for kind in ["dict", "entries", "attributes"] {
        for (key, expected) in entry(kind).and_then(Json::as_object).into_iter().flatten() {
            let value = if kind == "attributes" { found.attribute(key) } else { found.get(key) };
            match value {
                Some(value) => compare(file, value, expected, &format!("{at}.{key}"), wrong),
                None => wrong.push(format!("{at}.{key} is missing")),
            }
        }
    }
}

#[test]
fn what_python_wrote_is_read_as_python_reads_it() {
    let expected = std::fs::read(fixture("values/expected.json")).unwrap();
    let expected: serde_json::Map<String, Json> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() > 10);
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let head = std::fs::read(fixture("values").join(name)).unwrap();
        assert_eq!(
            (is_torch(&head[..8]), is_pickle(&head[..8])),
            (!name.ends_with("pkl"), !name.starts_with("zip")),
            "{name}"
        );
        let (file, pickle) = open(&fixture("values").join(name)).unwrap();
        compare(&file, pickle.root(), expected, name, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

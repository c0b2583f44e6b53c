//! What a cache holds, a line for each fingerprint.

#[cfg(doc)]
use crate::cache::Cache;
use crate::cache::lease;
use crate::cache::partition::{FINGERPRINT, GATHERED, USED, number};
use crate::cache::store::PartStore;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// What the rows of a partition are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Holds {
    /// Refined images.
    Images,
    /// A teacher's logits.
    Logits,
}

impl Holds {
    /// The field of a fingerprint that says it; images have none.
    pub(in crate::cache) const FIELD: &'static str = "artifact";

    fn of(fingerprint: Option<&Value>) -> Self {
        match fingerprint.and_then(|fingerprint| fingerprint.get(Self::FIELD)?.as_str()) {
            Some("logits") => Self::Logits,
            _ => Self::Images,
        }
    }
}

/// What a cache holds under one fingerprint.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// The name of its folder.
    pub name: String,
    /// The folder, as users call it. As JSON, what is not text in its name is replaced.
    #[serde(serialize_with = "crate::paths::as_text")]
    pub path: PathBuf,
    /// What makes its rows; `None` if `fingerprint.json` is not there or is damaged.
    pub fingerprint: Option<Value>,
    /// What the rows are.
    pub holds: Holds,
    /// Rows, each key once.
    pub rows: usize,
    /// How many rows there are of the set that [`Cache::list_for`] was asked about.
    pub found: Option<usize>,
    /// How many rows that set needs: samples with equal content and class need one.
    pub wanted: Option<usize>,
    /// Parquet files.
    pub parts: usize,
    /// Damaged files that were set aside.
    pub damaged: usize,
    /// The size of all files, in bytes.
    pub bytes: u64,
    /// Seconds since the last part was written; 0 if there is none.
    pub age_seconds: f64,
    /// Seconds since it was last opened, or written; exact to some minutes.
    pub unused_seconds: f64,
    /// The fields of the fingerprint in which it differs from others of the cache, by their path.
    pub differs: BTreeMap<String, Value>,
}

/// What can be told of every partition from its files' names and sizes; rows are not counted.
pub(super) fn summaries(store: &dyn PartStore) -> Result<Vec<Listing>> {
    let mut folders = store.folders()?;
    folders.retain(|folder| folder.len() == 16 && folder.bytes().all(|b| b.is_ascii_hexdigit()));
    folders.sort_unstable();
    folders.iter().map(|folder| summary(store, folder)).collect()
}

/// Sorts partitions, the one that was used last first.
pub(super) fn sort_by_use(listed: &mut [Listing]) {
    listed.sort_by(|a, b| a.unused_seconds.total_cmp(&b.unused_seconds));
}

fn summary(store: &dyn PartStore, folder: &str) -> Result<Listing> {
    let name = format!("{folder}/{FINGERPRINT}");
    let fingerprint = match store.get(&name) {
        Ok(json) => serde_json::from_slice(&json).ok(),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (mut parts, mut damaged, mut bytes) = (0, 0, 0);
    let (mut written, mut used): (Option<Duration>, Option<Duration>) = (None, None);
    for (file, stat) in store.entries(folder)? {
        bytes += stat.size;
        match number(&file) {
            Some((_, true)) => {
                parts += 1;
                written = Some(written.map_or(stat.age, |age| age.min(stat.age)));
            }
            Some((_, false)) => damaged += 1,
            None => {}
        }
        if file == USED || file == FINGERPRINT {
            used = Some(used.map_or(stat.age, |age| age.min(stat.age)));
        }
    }
    let age = written.unwrap_or_default();
    let unused = [used, written].into_iter().flatten().min().unwrap_or_default();
    Ok(Listing {
        name: folder.to_owned(),
        path: store.place(folder),
        holds: Holds::of(fingerprint.as_ref()),
        fingerprint,
        rows: 0,
        found: None,
        wanted: None,
        parts,
        damaged,
        bytes,
        age_seconds: age.as_secs_f64(),
        unused_seconds: unused.as_secs_f64(),
        differs: BTreeMap::new(),
    })
}

/// The scalars of a JSON value by their path, as `knobs.steps`.
pub(super) fn flattened(value: Option<&Value>) -> BTreeMap<String, Value> {
    fn add(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    add(&path, value, found);
                }
            }
            other => drop(found.insert(path.to_owned(), other.clone())),
        }
    }
    let mut found = BTreeMap::new();
    if let Some(value) = value {
        add("", value, &mut found);
    }
    found
}

/// Whether a file has the name of one that this crate writes.
fn is_own(file: &str) -> bool {
    number(file).is_some()
        || [FINGERPRINT, USED, GATHERED].contains(&file)
        || file.starts_with("lease-")
        || file.starts_with("writing")
}

/// Deletes a partition, its fingerprint last, so that what is left of an interruption is still one.
pub(super) fn delete(store: &dyn PartStore, folder: &str) -> Result<()> {
    for folder in [lease::folder(folder), folder.to_owned()] {
        let mut files = store.list(&folder)?;
        // What others keep there is theirs, and with it the folder stays.
        files.retain(|file| is_own(file));
        files.sort_by_key(|file| file == FINGERPRINT);
        for file in files {
            store.delete(&format!("{folder}/{file}"))?;
        }
        store.delete_folder(&folder)?;
    }
    Ok(())
}

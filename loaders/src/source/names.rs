//! What the names of files and folders tell, without a look into them.

use super::roles::{Named, Role};
use crate::wording::counted;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

/// How many kinds of files a message lists.
const LISTED: usize = 4;

/// Files counted by their extension, in words; one of its kind goes by its name.
pub(super) fn by_extension<'a>(names: impl Iterator<Item = &'a OsStr>) -> Vec<String> {
    let mut kinds: BTreeMap<String, (usize, &OsStr)> = BTreeMap::new();
    for name in names {
        let extension = Path::new(name).extension().map(|extension| format!(".{}", extension.display()));
        let (count, _) = kinds.entry(extension.unwrap_or_default().to_lowercase()).or_insert((0, name));
        *count += 1;
    }
    let mut kinds: Vec<(String, (usize, &OsStr))> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let rest = kinds.split_off(kinds.len().min(LISTED));
    let words = kinds.into_iter().map(|(extension, (count, name))| match (count, extension.as_str()) {
        (1, _) => name.display().to_string(),
        (count, "") => format!("{} without an extension", counted(count, "file")),
        (count, extension) => counted(count, &format!("{extension} file")),
    });
    let mut words: Vec<String> = words.collect();
    let more: usize = rest.iter().map(|(_, (count, _))| count).sum();
    if more > 0 {
        words.push(counted(more, "other file"));
    }
    words
}

/// Whether a file is named as data of images or labels that a set could be made of.
pub(super) fn is_data(name: &OsStr) -> bool {
    const ENDINGS: [&str; 14] = [
        ".parquet",
        ".pq",
        ".arrow",
        ".feather",
        ".tar",
        ".tar.gz",
        ".tgz",
        ".zip",
        ".pt",
        ".pth",
        ".npy",
        ".npz",
        ".safetensors",
        ".pkl",
    ];
    // What `datasets` computes of a table.
    const CACHES: [&str; 2] = ["cache-", "tmp"];
    let name = name.to_string_lossy().to_ascii_lowercase();
    let is_cache = name.ends_with(".arrow") && CACHES.iter().any(|cache| name.starts_with(cache));
    let stem = name.split('.').next().unwrap_or_default();
    let tells_labels = matches!(stem, "metadata" | "annotations")
        || Named::parse(stem).is_some_and(|named| named.role == Role::Labels);
    !is_cache && (tells_labels || ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

/// What operating systems and tools leave in folders of data, and hidden files.
pub(super) fn is_leftover(name: &OsStr) -> bool {
    const LEFTOVERS: [&str; 12] = [
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__pycache__",
        "wandb",
        "lightning_logs",
    ];
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || LEFTOVERS.iter().any(|leftover| name.eq_ignore_ascii_case(leftover.as_bytes()))
}

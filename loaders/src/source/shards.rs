//! The files of one set that lie in a folder: `train-00000-of-00002.parquet`, `train-000001.tar` and their like.

use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files of a folder with this extension, in the order of their names.
///
/// # Errors
/// If they belong to several splits, which are sets apart.
pub(super) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut names = super::folder::names(folder)?;
    names.retain(|name| stem(name, extension).is_some());
    let splits: BTreeSet<&str> =
        names.iter().filter_map(|name| Some(split(stem(name, extension)?))).collect();
    if splits.len() > 1 {
        let splits: Vec<&str> = splits.into_iter().collect();
        let reason = format!("files *.{extension} of several splits ({}): open one file", splits.join(", "));
        return Err(Error::format(folder, reason));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn stem<'a>(name: &'a str, extension: &str) -> Option<&'a str> {
    name.strip_suffix(extension)?.strip_suffix('.')
}

/// `train`, of `train-00000-of-00002`, `train-00000` and `train`; nothing of `0000`. Older `push_to_hub` appends a
/// fingerprint of each file: `train-00000-of-00002-0a1b2c3d4e5f6071`.
fn split(stem: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_fingerprint = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_count = |text: &str| {
        let count =
            text.split_once('-').filter(|(_, rest)| is_fingerprint(rest)).map_or(text, |(count, _)| count);
        is_number(count)
    };
    let stem = stem.rsplit_once("-of-").filter(|(_, count)| is_count(count)).map_or(stem, |(rest, _)| rest);
    let split =
        stem.rsplit_once('-').filter(|(_, number)| is_number(number)).map_or(stem, |(split, _)| split);
    if is_number(split) { "" } else { split }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_found_in_names() {
        for name in [
            "train-00000-of-00002",
            "train-00001-of-00002-0a1b2c3d4e5f6071",
            "train-00001-of-00002-1234567890123456",
            "train-00001",
            "train",
        ] {
            assert_eq!(split(name), "train");
        }
        for name in ["train-00001-of-00002-0a1b2c3d4e5f607", "train-00001-of-00002-0a1b2c3d4e5f607g"] {
            assert_eq!(split(name), name);
        }
        assert_eq!((split("0000"), split("part-00000012")), ("", "part"));
        assert_eq!(split("out-of-memory"), "out-of-memory");
        assert_eq!(
            (stem("a.tar", "tar"), stem("a.tar.gz", "tar"), stem("tar", "tar")),
            (Some("a"), None, None)
        );
    }
}

//! Datasets in the folders of a folder that is none itself: what whoever opens it may have meant.

use super::open::SHARDED;
use super::{folder, idc, lone, mtt, shards};
use crate::{Error, Result};
use std::path::Path;

/// How many sets are named.
const NAMED: usize = 3;
/// How many folders of one are looked into, and how deep.
const LOOKED_INTO: usize = 32;
const DEPTH: usize = 2;

/// The error for a folder in which datasets lie, by what is cheaply seen of them; none if there are none.
pub(super) fn error(path: &Path) -> Option<Error> {
    let mut sets = Vec::new();
    // What cannot be listed has nothing to say.
    let _ = collect(path, "", DEPTH, &mut sets);
    // Of several splits, the one to train on.
    sets.sort_by_key(|name| name != "train");
    let (first, others) = sets.split_first()?;
    let open = format!("open {}", path.join(first).display());
    let reason = match others {
        [] => format!("not a known dataset, but one lies in it: {open}"),
        others => format!("not a known dataset, but several lie in it: {open}, or {}", others.join(", or ")),
    };
    Some(Error::format(path, reason))
}

/// Adds the sets in the folders of `path`, which is called `prefix` below the one that was opened.
fn collect(path: &Path, prefix: &str, depth: usize, sets: &mut Vec<String>) -> Result<()> {
    let folders = folder::names(path)?.into_iter().filter(|name| path.join(name).is_dir());
    for name in folders.take(LOOKED_INTO) {
        if sets.len() == NAMED {
            break;
        }
        let (inner, name) = (path.join(&name), format!("{prefix}{name}"));
        if is_set(&inner).unwrap_or(false) {
            sets.push(name);
        } else if depth > 1 {
            let _ = collect(&inner, &format!("{name}/"), depth - 1, sets);
        }
    }
    Ok(())
}

/// Whether a folder would be taken for a dataset.
fn is_set(path: &Path) -> Result<bool> {
    // FKD's files are called .tar, and are none.
    if folder::names(path)?.iter().any(|name| name.starts_with("batch_") && name.ends_with(".tar")) {
        return Ok(false);
    }
    let mut is_sharded = SHARDED.iter().map(|(extension, _)| shards::files(path, extension));
    Ok(mtt::find(path)?.is_some()
        || !mtt::parts(path)?.is_empty()
        || idc::find(path)?.is_some()
        || !idc::phases(path)?.is_empty()
        || is_sharded.any(|files| files.is_ok_and(|files| !files.is_empty()))
        || has_classes(path)?
        || lone::find(path)?.is_some())
}

/// Whether its folders hold images, all that are looked into, and there are several.
fn has_classes(path: &Path) -> Result<bool> {
    let folders = folder::names(path)?.into_iter().map(|name| path.join(name)).filter(|inner| inner.is_dir());
    let folders: Vec<_> = folders.take(LOOKED_INTO).collect();
    let holds_images = |inner: &_| folder::images(inner).is_ok_and(|images| !images.is_empty());
    Ok(folders.len() > 1 && folders.iter().all(|inner| holds_images(inner)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn sets_in_a_folder_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = || error(folder.path()).map(|error| error.to_string());
        let make = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        make("README.md");
        make("epoch_0/batch_0.tar");
        make("pictures/all/a.png");
        make("weights/vae/model.safetensors");
        assert_eq!(message(), None);
        make("runs/dm/res_DM_CIFAR10.pt");
        let text = message().unwrap();
        assert!(text.contains("not a known dataset, but one lies in it: open "), "{text}");
        assert!(text.ends_with("/runs/dm"), "{text}");
        for (at, class) in ["test/cat", "test/dog", "train/cat", "train/dog"].into_iter().enumerate() {
            make(&format!("{class}/{at}.png"));
        }
        let text = message().unwrap();
        assert!(
            text.contains("several lie in it: open ") && text.ends_with("/train, or runs/dm, or test"),
            "{text}"
        );
        for name in ["a/images_best.pt", "b/data.pt", "c/x.parquet", "d/x.tar"] {
            make(name);
        }
        assert!(message().unwrap().ends_with("/a, or b, or c"), "{:?}", message());
    }
}

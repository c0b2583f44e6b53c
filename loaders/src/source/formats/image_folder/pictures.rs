//! Where the pictures of a folder lie, by the names of its files, and by what is in those that names do not tell.

use crate::Result;
use crate::source::containers::picture::Kind;
use crate::source::place::Folder;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How deep below a folder images are looked for that have no place in a set.
const DEPTH: usize = 3;
/// How many files that are not named as pictures are looked into to tell whether a folder has any.
const LOOKED_INTO: usize = 4;
/// Extensions of files that are certainly no pictures, so that they need not be looked into.
const OTHERS: [&str; 26] = [
    "arrow",
    "bin",
    "cfg",
    "csv",
    "db",
    "gz",
    "html",
    "ini",
    "json",
    "lock",
    "log",
    "md",
    "npy",
    "npz",
    "parquet",
    "pkl",
    "pt",
    "pth",
    "py",
    "safetensors",
    "sh",
    "tar",
    "tsv",
    "txt",
    "xml",
    "yaml",
];

/// Where pictures lie in one folder.
pub(super) enum Inner<'a> {
    Direct,
    /// In its one folder that has any.
    Nested(&'a Folder),
    /// In several of its folders, or further down.
    Deep,
    Nowhere,
}

impl<'a> Inner<'a> {
    pub(super) fn of(folder: &'a Folder, head: Head<'_>) -> Result<Self> {
        if has_pictures(folder, head)? {
            return Ok(Self::Direct);
        }
        let mut nested = None;
        for name in folder.folders() {
            let Some(inner) = folder.folder(name)? else { continue };
            if has_pictures(inner, head)? {
                if nested.replace(inner).is_some() {
                    return Ok(Self::Deep);
                }
            } else if is_deep(inner, DEPTH, head)? {
                return Ok(Self::Deep);
            }
        }
        Ok(nested.map_or(Self::Nowhere, Self::Nested))
    }
}

/// Reads the first bytes of a file.
pub(in crate::source::formats) type Head<'a> = &'a dyn Fn(&Path) -> Result<Vec<u8>>;

/// Whether a file is named as a picture.
pub(super) fn is_named_as_picture(name: &OsStr) -> bool {
    // `Path::extension` takes a path apart, which shows where folders have many files.
    let mut parts = name.as_encoded_bytes().rsplitn(2, |byte| *byte == b'.');
    let extension = parts.next().and_then(|extension| std::str::from_utf8(extension).ok());
    let has_stem = parts.next().is_some_and(|stem| !stem.is_empty());
    has_stem && extension.is_some_and(|extension| Kind::of_extension(extension).is_some())
}

/// Whether a file that is not named as a picture is one by its content.
pub(super) fn is_picture_in_disguise(path: &Path, head: Head<'_>) -> Result<bool> {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    let is_other = extension.is_some_and(|extension| OTHERS.iter().any(|other| extension == *other));
    Ok(!is_other && Kind::of(&head(path)?).is_some())
}

fn has_pictures(folder: &Folder, head: Head<'_>) -> Result<bool> {
    if folder.files().iter().any(|name| is_named_as_picture(name)) {
        return Ok(true);
    }
    for name in folder.files().iter().take(LOOKED_INTO) {
        if is_picture_in_disguise(&folder.path().join(name), head)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds the folders below a folder that have pictures by their names.
pub(super) fn below(folder: &Folder, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut level: Vec<&Folder> = vec![folder];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in level {
            for name in folder.folders() {
                next.extend(folder.folder(name)?);
            }
        }
        let has_pictures = |folder: &&&Folder| folder.files().iter().any(|name| is_named_as_picture(name));
        found.extend(next.iter().filter(has_pictures).map(|folder| folder.path().to_owned()));
        level = next;
    }
    Ok(())
}

/// Whether there are pictures somewhere below a folder.
fn is_deep(folder: &Folder, depth: usize, head: Head<'_>) -> Result<bool> {
    for name in folder.folders() {
        let Some(inner) = folder.folder(name)? else { continue };
        if has_pictures(inner, head)? || (depth > 1 && is_deep(inner, depth - 1, head)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

//! Class folders in a zip or tar file, as SRe2L's images are published.

use super::image_folder::{Answer, Classes, is_split};
use crate::source::Source;
use crate::source::adapters::Encoded;
use crate::source::containers::archive::Archive;
use crate::source::containers::picture::HEAD;
use crate::source::facts::Facts;
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::options::OpenOptions;
use crate::source::place::{Folder, Place};
use crate::{Error, Result};
use std::ffi::OsString;
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep folders that have nothing but one folder are looked through.
const DEEPEST: usize = 8;

/// An archive of class folders.
pub(crate) struct Archives;

impl Format for Archives {
    fn name(&self) -> &'static str {
        "class folders in a zip or tar file"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["image_size", "fit", "split"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        let archive = match place {
            Place::File(file) => file.archive()?.cloned(),
            Place::Folder(_) => None,
        };
        let Some(archive) = archive else {
            return Ok(Probe::miss("it would be a zip or tar file with a folder for each class"));
        };
        let tree = Folder::of_archive(&archive);
        let (_, answer) = Tree { archive: &archive, tree: &tree }.classes(options)?;
        if tree.is_empty() {
            return Err(Error::format(archive.path(), "the archive is empty"));
        }
        if let Answer::No(likeness, reason) = answer {
            return Ok(Probe::near(
                likeness.max(1),
                format!("the archive has {}: {reason}", tree.describe()),
            ));
        }
        Ok(Probe::matched(move || open(&archive, &tree, options)))
    }
}

fn open(archive: &Arc<Archive>, tree: &Folder, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let tree = Tree { archive, tree };
    let (folder, answer) = tree.classes(options)?;
    let Answer::Classes(classes) = answer else {
        return Err(Error::format(archive.path(), "the class folders cannot be found again"));
    };
    let mut facts = Facts::new(info::Format::ImageFolder, archive.path(), options)?;
    let inside = tree.within(folder.path());
    if !inside.as_os_str().is_empty() {
        facts.state("folder in the archive", inside.display().to_string(), Right::Embedded);
    }
    // As of an exported folder that was packed.
    facts.sidecar_within(archive, inside)?;
    facts.sidecar_within(archive, Path::new(""))?;
    facts.notes(archive.notes().iter().cloned());
    classes.open(folder, facts, &|path| tree.head(path), |images| Packed::new(archive, images))
}

/// The folders of an archive.
#[derive(Clone, Copy)]
struct Tree<'a> {
    archive: &'a Archive,
    tree: &'a Folder,
}

impl<'a> Tree<'a> {
    /// A path of the tree, as the archive has it.
    fn within(self, path: &Path) -> &Path {
        path.strip_prefix(self.tree.path()).unwrap_or(path)
    }

    fn head(self, path: &Path) -> Result<Vec<u8>> {
        let within = self.within(path);
        let file = self.archive.find(within).ok_or_else(|| {
            Error::field(self.archive.path(), within.display().to_string(), "it cannot be found again")
        })?;
        self.archive.head(file, HEAD as u64)
    }

    /// The folder that has class folders: the archive itself, or one that everything in it lies in, or that of the split
    /// that the options name.
    fn classes(self, options: &OpenOptions) -> Result<(&'a Folder, Answer<'a>)> {
        let mut split = options.split.as_deref();
        let mut folder = self.tree;
        for _ in 0..DEEPEST {
            let mut names = Vec::new();
            for name in folder.folders().filter_map(|name| name.to_str()) {
                if folder.folder(name)?.is_some_and(|inner| !inner.is_empty()) {
                    names.push(name);
                }
            }
            let splits: Vec<&str> = names.iter().copied().filter(|name| is_split(name)).collect();
            let chosen = split.and_then(|split| names.iter().find(|name| name.eq_ignore_ascii_case(split)));
            let next = if let Some(chosen) = chosen {
                split = None;
                Some(*chosen)
            } else if split.is_none() && splits.len() > 1 && splits.len() == names.len() {
                let reason = format!(
                    "the archive has several splits ({}): say which to open, as in split=\"{}\"",
                    splits.join(", "),
                    splits.iter().find(|name| name.starts_with("train")).unwrap_or(&splits[0])
                );
                return Err(Error::format(self.archive.path(), reason));
            } else {
                let answer = Classes::of(folder, &|path| self.head(path))?;
                match (&answer, &names[..]) {
                    (Answer::No(..), [only]) => Some(*only),
                    (_, [only]) if is_split(only) => Some(*only),
                    _ => {
                        return match split {
                            Some(split) => Err(self.no_split(split, folder)),
                            None => Ok((folder, answer)),
                        };
                    }
                }
            };
            match next.map(|next| folder.folder(next)).transpose()?.flatten() {
                Some(inner) => folder = inner,
                None => break,
            }
        }
        Ok((folder, Answer::No(1, "its folders lie too deep".to_owned())))
    }

    fn no_split(self, split: &str, folder: &Folder) -> Error {
        let reason = format!(
            "there is no split `{split}` in {}, which has {}",
            self.archive.path().display(),
            folder.describe()
        );
        Error::config("split", reason)
    }
}

/// Pictures in an archive.
#[derive(Debug)]
struct Packed {
    archive: Arc<Archive>,
    files: Vec<Option<usize>>,
}

impl Packed {
    fn new(archive: &Arc<Archive>, images: Vec<(PathBuf, Vec<OsString>)>) -> Self {
        let mut files = Vec::new();
        for (folder, names) in images {
            let within = folder.strip_prefix(archive.path()).unwrap_or(&folder);
            files.extend(names.iter().map(|name| archive.find(&within.join(name))));
        }
        Self { archive: Arc::clone(archive), files }
    }
}

impl Encoded for Packed {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let file =
            self.files[index].ok_or_else(|| self.refused(index, "it cannot be found again".to_owned()))?;
        self.archive.read(file).map(Cursor::new)
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        let path = self.files[index].map(|file| self.archive.path().join(&self.archive.paths()[file]));
        Error::sample(path.as_deref().unwrap_or(self.archive.path()), index, reason)
    }
}

//! The samples of archives: the files in each of which share a key.

use crate::source::SIDECAR;
use crate::source::containers::archive::Archive;
use crate::source::names::is_leftover;
use crate::wording::counted;
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

/// How many kinds of files, or names, a message lists.
const LISTED: usize = 8;

/// Where a file's name is cut into key and suffix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cut {
    /// At its first dot, as WebDataset does.
    First,
    /// At its last dot.
    Last,
}

/// The samples of one or more archives, in order of their first files.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) archives: Vec<Arc<Archive>>,
    /// Every suffix that there is, in lower case; [`File::suffix`] is a place in it.
    pub(super) suffixes: Vec<String>,
    pub(super) samples: Vec<Sample>,
    /// Names of files without a key.
    others: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub(super) archive: usize,
    /// The length of the key, in the path of the first file.
    key: usize,
    pub(super) files: Vec<File>,
}

/// A file of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) suffix: usize,
    /// Its place in the archive.
    pub(super) file: usize,
}

impl Sample {
    /// The file with this suffix.
    pub(super) fn file(&self, suffix: usize) -> Option<usize> {
        self.files.iter().find(|file| file.suffix == suffix).map(|file| file.file)
    }
}

impl Samples {
    /// # Errors
    /// If a sample has two files of one suffix.
    pub(super) fn of(archives: &[Arc<Archive>], cut: Cut) -> Result<Self> {
        let mut found = Self {
            archives: archives.to_vec(),
            suffixes: Vec::new(),
            samples: Vec::new(),
            others: Vec::new(),
        };
        let mut suffixes: HashMap<String, usize> = HashMap::new();
        let mut seen: HashSet<(usize, usize)> = HashSet::new();
        for (at, archive) in archives.iter().enumerate() {
            let mut keys: HashMap<&[u8], usize> = HashMap::new();
            for (file, path) in archive.paths().iter().enumerate() {
                if path.iter().any(is_leftover) || path.as_os_str() == SIDECAR {
                    continue;
                }
                let bytes = path.as_os_str().as_encoded_bytes();
                let Some(key) = key(path, cut) else {
                    found.others.push(path.display().to_string());
                    continue;
                };
                let suffix = String::from_utf8_lossy(&bytes[key + 1..]).to_lowercase();
                let suffix = *suffixes.entry(suffix).or_insert_with_key(|suffix| {
                    found.suffixes.push(suffix.clone());
                    found.suffixes.len() - 1
                });
                let sample = *keys.entry(&bytes[..key]).or_insert_with(|| {
                    found.samples.push(Sample { archive: at, key, files: Vec::new() });
                    found.samples.len() - 1
                });
                if !seen.insert((sample, suffix)) {
                    let reason =
                        "its sample has a file of this suffix already, in other letters: remove one of them";
                    return Err(archive.refused(file, reason));
                }
                found.samples[sample].files.push(File { suffix, file });
            }
        }
        Ok(found)
    }

    pub(super) fn archive(&self, sample: &Sample) -> &Archive {
        &self.archives[sample.archive]
    }

    /// What samples are called.
    pub(super) fn key(&self, sample: &Sample) -> String {
        let path = &self.archive(sample).paths()[sample.files[0].file];
        String::from_utf8_lossy(&path.as_os_str().as_encoded_bytes()[..sample.key]).into_owned()
    }

    /// The error for a sample.
    pub(super) fn refused(&self, sample: &Sample, reason: impl Into<String>) -> Error {
        Error::field(self.archive(sample).path(), self.key(sample), reason)
    }

    /// The error for an entry that `columns` names.
    pub(super) fn no_such(&self, path: &Path, name: &str) -> Error {
        let there = listed(self.suffixes.iter().map(|suffix| format!(".{suffix}")));
        Error::config(
            "columns",
            format!("no entry of {} is called `.{name}`; there are {there}", path.display()),
        )
    }

    /// The files of a sample, by their suffixes, in words.
    pub(super) fn files_of(&self, sample: &Sample) -> String {
        listed(sample.files.iter().map(|file| format!(".{}", self.suffixes[file.suffix])))
    }

    /// How many samples have a file of each suffix.
    pub(super) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.suffixes.len()];
        self.samples.iter().flat_map(|sample| &sample.files).for_each(|file| counts[file.suffix] += 1);
        counts
    }

    /// The first file of each suffix in the samples that `are` of interest, with its sample.
    pub(super) fn firsts(&self, are: impl Fn(&Sample) -> bool) -> Vec<Option<(&Sample, usize)>> {
        let mut firsts = vec![None; self.suffixes.len()];
        for sample in self.samples.iter().filter(|sample| are(sample)) {
            for file in &sample.files {
                firsts[file.suffix].get_or_insert((sample, file.file));
            }
        }
        firsts
    }

    /// The suffixes of samples' files, without those that are used, and the files of no sample, in words.
    pub(super) fn unused(&self, is_used: impl Fn(usize) -> bool) -> Option<String> {
        let counts = self.counts();
        let mut unused: Vec<usize> = (0..counts.len()).filter(|suffix| !is_used(*suffix)).collect();
        unused.sort_by_key(|suffix| std::cmp::Reverse(counts[*suffix]));
        let unused =
            unused.into_iter().map(|suffix| format!("{} .{}", counts[suffix], self.suffixes[suffix]));
        let mut parts: Vec<String> = unused.take(LISTED + 1).collect();
        if parts.len() > LISTED {
            parts.truncate(LISTED);
            parts.push("others".to_owned());
        }
        match &self.others[..] {
            [] => {}
            few if few.len() <= LISTED => parts.extend(few.iter().cloned()),
            many => parts.push(format!("{} whose names have no dot", counted(many.len(), "file"))),
        }
        (!parts.is_empty()).then(|| format!("entries that are not used: {}", parts.join(", ")))
    }
}

/// Some names, and whether there are more.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(LISTED + 1).collect();
    if names.len() > LISTED {
        names[LISTED] = "...".to_owned();
    }
    names.join(", ")
}

/// Where the key of a file ends in its path. WebDataset skips names that are wrapped in double underscores.
fn key(path: &Path, cut: Cut) -> Option<usize> {
    let is_meta = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.len() > 4 && name.starts_with(b"__") && name.ends_with(b"__")
    };
    let name = path.file_name()?.as_encoded_bytes();
    let start = path.as_os_str().len() - name.len();
    let dot = match cut {
        Cut::First => name.iter().position(|byte| *byte == b'.'),
        Cut::Last => name.iter().rposition(|byte| *byte == b'.'),
    };
    dot.filter(|dot| *dot > 0 && !path.iter().next().is_some_and(is_meta)).map(|dot| start + dot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_a_dot_of_the_name() {
        for (path, first, last) in [
            ("a/0.png", Some("a/0"), Some("a/0")),
            ("v1.0/0.seg.png", Some("v1.0/0"), Some("v1.0/0.seg")),
            ("v1.0/readme", None, None),
            (".png", None, None),
            ("__meta__/0.json", None, None),
            ("0.", Some("0"), Some("0")),
        ] {
            for (cut, expected) in [(Cut::First, first), (Cut::Last, last)] {
                assert_eq!(key(Path::new(path), cut).map(|end| &path[..end]), expected, "{path} {cut:?}");
            }
        }
    }
}

//! What an archive lists: files, links to them, and the rest.

use crate::wording::counted;
use crate::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// The most entries that are listed: ImageNet has 1.3 million images.
pub(super) const MOST_ENTRIES: usize = 1 << 22;
/// How many links in a row are followed.
const LONGEST_CHAIN: usize = 8;
/// How many names a note lists.
const NOTED: usize = 4;

/// The entries of an archive as they are met; `P` is where a file's bytes lie.
#[derive(Debug)]
pub(super) struct Listing<P> {
    archive: PathBuf,
    entries: Vec<(PathBuf, Entry<P>)>,
    folders: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

#[derive(Debug)]
enum Entry<P> {
    File(P),
    /// To the file of this path, if it lies in the archive.
    Link(Option<PathBuf>),
}

/// The files of an archive, in its order.
#[derive(Debug)]
pub(super) struct Files<P> {
    pub(super) paths: Vec<PathBuf>,
    pub(super) places: Vec<P>,
    /// The files in the order of their paths.
    pub(super) sorted: Vec<u32>,
    /// The folders that have an entry of their own: it is all that tells of an empty one.
    pub(super) folders: Vec<PathBuf>,
    /// What is not read.
    pub(super) notes: Vec<String>,
}

impl<P: Copy> Listing<P> {
    pub(super) fn new(archive: &Path) -> Self {
        Self { archive: archive.to_owned(), entries: Vec::new(), folders: Vec::new(), others: Vec::new() }
    }

    /// # Errors
    /// If the name is empty, or there are too many entries.
    pub(super) fn file(&mut self, name: &[u8], place: P) -> Result<()> {
        self.push(name, Entry::File(place))
    }

    /// A symbolic link, whose target is seen from its folder, or a hard one, whose target is the name of an entry.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub(super) fn link(&mut self, name: &[u8], target: &[u8], is_symbolic: bool) -> Result<()> {
        let target = path_of(target);
        let target = if is_symbolic {
            let folder = normal(&path_of(name)).unwrap_or_default().parent().map(Path::to_owned);
            folder.and_then(|folder| resolved(folder.join(target)))
        } else {
            normal(&target)
        };
        self.push(name, Entry::Link(target))
    }

    /// A folder. One without a name is the archive itself.
    pub(super) fn folder(&mut self, name: &[u8]) {
        if self.folders.len() < MOST_ENTRIES {
            self.folders.extend(normal(&path_of(name)));
        }
    }

    /// An entry that is neither a file nor a folder.
    pub(super) fn other(&mut self, name: &[u8]) {
        self.others.push(path_of(name));
    }

    fn push(&mut self, name: &[u8], entry: Entry<P>) -> Result<()> {
        let given = path_of(name);
        let path = normal(&given).ok_or_else(|| {
            Error::format(&self.archive, format!("damaged archive: an entry is called `{}`", given.display()))
        })?;
        if self.entries.len() >= MOST_ENTRIES {
            let reason =
                format!("the archive has more than {MOST_ENTRIES} entries, which is the most that are read");
            return Err(Error::format(&self.archive, reason));
        }
        self.entries.push((path, entry));
        Ok(())
    }

    /// Follows the links.
    ///
    /// # Errors
    /// If two entries have one path.
    pub(super) fn finish(self) -> Result<Files<P>> {
        let Self { archive, entries, folders, others } = self;
        // There are fewer than `MOST_ENTRIES`.
        let mut sorted: Vec<u32> = (0..entries.len() as u32).collect();
        let path = |at: &u32| entries[*at as usize].0.as_os_str();
        sorted.sort_unstable_by(|a, b| path(a).cmp(path(b)));
        if let Some(pair) = sorted.windows(2).find(|pair| path(&pair[0]) == path(&pair[1])) {
            return Err(twice(&archive, Path::new(path(&pair[0]))));
        }
        let places: Vec<Option<P>> =
            entries.iter().map(|(_, entry)| follow(&entries, &sorted, entry)).collect();
        let mut notes = Vec::new();
        let lost = entries.iter().zip(&places).filter(|(_, place)| place.is_none());
        let lost: Vec<&PathBuf> = lost.map(|((path, _), _)| path).collect();
        if !lost.is_empty() {
            let do_not = if lost.len() == 1 {
                "does not lead to a file in it, and is"
            } else {
                "do not lead to a file in it, and are"
            };
            notes.push(format!(
                "{} of the archive {do_not} not read: {}",
                counted(lost.len(), "link"),
                named(lost)
            ));
        }
        if !others.is_empty() {
            let are = match others.len() {
                1 => "1 entry of the archive is neither a file nor a folder, and is".to_owned(),
                count => format!("{count} entries of the archive are neither files nor folders, and are"),
            };
            notes.push(format!("{are} not read: {}", named(others.iter().collect())));
        }
        // The places of those that are left, without links that lead nowhere.
        let left = (0_u32..).zip(places.iter().enumerate().filter(|(_, place)| place.is_some()));
        let mut new = vec![None; places.len()];
        left.for_each(|(left, (at, _))| new[at] = Some(left));
        let sorted = sorted.into_iter().filter_map(|at| new[at as usize]).collect();
        let (paths, places) =
            entries.into_iter().zip(places).filter_map(|((path, _), place)| Some((path, place?))).unzip();
        Ok(Files { paths, places, sorted, folders, notes })
    }
}

/// Where the bytes of an entry lie, links followed.
fn follow<'a, P: Copy>(
    entries: &'a [(PathBuf, Entry<P>)],
    sorted: &[u32],
    mut entry: &'a Entry<P>,
) -> Option<P> {
    for _ in 0..LONGEST_CHAIN {
        match entry {
            Entry::File(place) => return Some(*place),
            Entry::Link(target) => {
                let target = target.as_ref()?.as_os_str();
                let path = |at: &u32| entries[*at as usize].0.as_os_str();
                let at = sorted.binary_search_by(|at| path(at).cmp(target)).ok()?;
                entry = &entries[sorted[at] as usize].1;
            }
        }
    }
    None
}

/// The error for two entries of one name.
pub(super) fn twice(archive: &Path, name: &Path) -> Error {
    let reason = "two entries of the archive have this name: remove one of them";
    Error::field(archive, name.display().to_string(), reason)
}

fn named(paths: Vec<&PathBuf>) -> String {
    let shown: Vec<String> = paths.iter().take(NOTED).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > NOTED { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A name in an archive, as a path. It may be of any bytes, as on most systems names of files may.
fn path_of(name: &[u8]) -> PathBuf {
    #[cfg(unix)]
    let name: OsString = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name).to_owned();
    #[cfg(not(unix))]
    let name: OsString = OsStr::new(&*String::from_utf8_lossy(name)).to_owned();
    name.into()
}

/// The path below the folder that the archive stands for, as programs extract it: without a root, and without leading
/// `..`. None for no name.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    (!normal.as_os_str().is_empty()).then_some(normal)
}

/// Where a link leads in the archive, if not out of it.
fn resolved(path: PathBuf) -> Option<PathBuf> {
    let mut depth = 0_usize;
    for component in path.components() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::ParentDir => depth.checked_sub(1)?,
            Component::CurDir => depth,
            Component::RootDir | Component::Prefix(_) => return None,
        };
    }
    normal(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_archive() {
        for (name, expected) in [
            ("a/b.png", Some("a/b.png")),
            ("./a//b.png", Some("a/b.png")),
            ("/etc/passwd", Some("etc/passwd")),
            ("../../a", Some("a")),
            ("a/../../b", Some("b")),
            ("a/./b/", Some("a/b")),
            ("..", None),
            ("./", None),
            ("", None),
        ] {
            assert_eq!(normal(Path::new(name)).as_deref(), expected.map(Path::new), "{name}");
        }
    }

    #[test]
    fn links_are_followed_and_lost_ones_are_noted() {
        let mut listing = Listing::new(Path::new("x.tar"));
        listing.link(b"first/hard", b"./a/0.png", false).unwrap();
        listing.file(b"a/0.png", 7).unwrap();
        listing.link(b"b/soft", b"../a/0.png", true).unwrap();
        listing.link(b"b/chain", b"soft", true).unwrap();
        listing.link(b"b/out", b"../../a/0.png", true).unwrap();
        listing.link(b"b/absolute", b"/a/0.png", true).unwrap();
        listing.link(b"b/folder", b"../a", true).unwrap();
        listing.link(b"b/round", b"round", true).unwrap();
        listing.other(b"fifo");
        let files = listing.finish().unwrap();
        let paths: Vec<&str> = files.paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["first/hard", "a/0.png", "b/soft", "b/chain"]);
        assert_eq!((files.places, files.sorted), (vec![7; 4], vec![1, 3, 2, 0]));
        assert!(
            files.notes[0].starts_with("4 links") && files.notes[0].contains("b/out"),
            "{:?}",
            files.notes
        );
        assert!(
            files.notes[1].starts_with("1 entry") && files.notes[1].contains("fifo"),
            "{:?}",
            files.notes
        );
    }

    #[test]
    fn one_name_twice_is_refused() {
        let mut listing = Listing::new(Path::new("x.tar"));
        listing.file(b"a/0.png", 1).unwrap();
        listing.file(b"./a/0.png", 2).unwrap();
        let error = listing.finish().unwrap_err();
        assert!(matches!(&error, Error::Field { field, .. } if field == "a/0.png"), "{error}");
    }
}

//! Class folders: a folder for each class, a picture for each sample; on disk, or in an archive.

use crate::imagenet;
use crate::labels::{Labels, MAX_CLASSES, Named};
use crate::source::adapters::{Encoded, EncodedSet, Resize};
use crate::source::containers::picture::HEAD;
use crate::source::facts::{Facts, Found};
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::names;
use crate::source::options::OpenOptions;
use crate::source::place::{Folder, Place};
use crate::source::{Label, LabelKind, Source};
use crate::wording::counted;
use crate::{Error, Result};
pub(super) use pictures::Head;
use pictures::{Inner, is_named_as_picture, is_picture_in_disguise};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

mod pictures;

/// Names of folders that are parts of a dataset, not classes.
const SPLITS: [&str; 8] = ["train", "training", "val", "valid", "validation", "test", "testing", "dev"];
/// How many names a message lists.
const LISTED: usize = 4;

/// A folder of class folders.
pub(crate) struct ImageFolder;

impl Format for ImageFolder {
    fn name(&self) -> &'static str {
        "class folders with images"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["image_size", "fit"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        let Place::Folder(folder) = place else {
            return Ok(Probe::miss("it would be a folder with a folder for each class"));
        };
        let open = |images: Vec<(PathBuf, Vec<OsString>)>| OnDisk::new(images);
        Ok(match Classes::of(folder, &head)? {
            Answer::Classes(classes) => {
                let has_empty = !classes.empty.is_empty();
                let open = move || {
                    let facts = Facts::new(info::Format::ImageFolder, folder.path(), options)?;
                    classes.open(folder, facts, &head, open)
                };
                // A picture may also lie in one of several folders with datasets.
                if has_empty { Probe::Doubtful(Box::new(open)) } else { Probe::matched(open) }
            }
            Answer::No(likeness, reason) => Probe::near(likeness, reason),
        })
    }
}

/// Whether a folder is named as a part of a dataset.
pub(super) fn is_split(name: &str) -> bool {
    SPLITS.iter().any(|split| name.eq_ignore_ascii_case(split))
}

/// The first bytes of a file on disk.
fn head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    file.take(HEAD as u64).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
    Ok(head)
}

/// What the folders of a folder hold.
pub(super) struct Classes<'a> {
    /// By the name of its folder, where the pictures of each class lie.
    folders: Vec<(&'a OsStr, &'a Folder)>,
    /// Folders without pictures.
    empty: Vec<&'a OsStr>,
    /// Whether pictures lie one level further down.
    are_nested: bool,
}

/// Whether a folder is one of class folders.
pub(super) enum Answer<'a> {
    Classes(Classes<'a>),
    /// How much speaks for it, and why it is not.
    No(u8, String),
}

fn listed(names: &[&OsStr]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|name| name.display().to_string()).collect();
    let more = if names.len() > LISTED { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl<'a> Classes<'a> {
    /// # Errors
    /// If a folder cannot be listed; if pictures beside those of classes would be lost.
    pub(super) fn of(folder: &'a Folder, head: Head<'_>) -> Result<Answer<'a>> {
        let (mut direct, mut nested, mut deep, mut empty) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for name in folder.folders() {
            let Some(inner) = folder.folder(name)? else { continue };
            match Inner::of(inner, head)? {
                Inner::Direct => direct.push((name, inner)),
                Inner::Nested(inner) => nested.push((name, inner)),
                Inner::Deep => deep.push(name),
                Inner::Nowhere => empty.push(name),
            }
        }
        if direct.is_empty() && (nested.is_empty() || !deep.is_empty()) {
            let loose = folder.files().iter().filter(|name| is_named_as_picture(name)).count();
            return Ok(match (loose, folder.folders().len()) {
                (0, 0) => Answer::No(0, "there are no folders, one for each class".to_owned()),
                (0, _) => {
                    let names: Vec<&OsStr> = folder.folders().collect();
                    Answer::No(1, format!("there are no images in {}", listed(&names)))
                }
                (loose, _) => Answer::No(
                    2,
                    format!("{} in the folder itself; each class needs a folder of its own", lie(loose)),
                ),
            });
        }
        if let Some(name) = deep.first() {
            let reason = format!(
                "the folder has images only in its subfolders, while others beside it ({}) have them directly: move it \
                 elsewhere, or its images up",
                listed(&direct.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            );
            return Err(Error::format(&folder.path().join(name), reason));
        }
        let are_nested = direct.is_empty();
        let mut folders = direct;
        folders.extend(nested);
        folders.sort_unstable_by_key(|(name, _)| *name);
        if !are_nested && folders.iter().all(|(name, _)| name.to_str().is_some_and(is_split)) {
            let names: Vec<&OsStr> = folders.iter().map(|(name, _)| *name).collect();
            let reason = format!("{} are named as splits, and have no class folders", listed(&names));
            return Ok(Answer::No(4, reason));
        }
        Ok(Answer::Classes(Self { folders, empty, are_nested }))
    }

    /// Opens them; `head` reads the first bytes of a file, and `images` makes the reader of those in each folder.
    pub(super) fn open<E: Encoded + 'static>(
        self,
        whole: &Folder,
        mut facts: Facts<'_>,
        head: Head<'_>,
        images: impl FnOnce(Vec<(PathBuf, Vec<OsString>)>) -> E,
    ) -> Result<Box<dyn Source>> {
        let (path, options) = (whole.path(), facts.options());
        let (mut pictures, mut others) = (Vec::new(), Vec::new());
        let mut lying = 0;
        for (_, folder) in &self.folders {
            let mut files = Vec::with_capacity(folder.files().len());
            for name in folder.files() {
                if is_named_as_picture(name) {
                    files.push(name.clone());
                } else if is_picture_in_disguise(&folder.path().join(name), head)? {
                    lying += 1;
                    files.push(name.clone());
                } else {
                    others.push(name.as_os_str());
                }
            }
            pictures.push((folder.path().to_owned(), files));
        }
        if lying > 0 {
            facts.note(format!(
                "{} without an image's extension {} read as images, because of their content",
                counted(lying, "file"),
                if lying == 1 { "is" } else { "are" }
            ));
        }
        if !others.is_empty() {
            let are = if others.len() == 1 { "is not an image, and is" } else { "are not images, and are" };
            facts.note(format!("{} {are} not read", names::by_extension(others.into_iter()).join(", ")));
        }
        let special = || self.folders.iter().flat_map(|(_, folder)| folder.others());
        if let Some(first) = special().next() {
            facts.note(format!(
                "pipes, sockets and devices are not read: there are {} of them in the class folders, such as {}",
                special().count(),
                first.display()
            ));
        }
        let mut deeper = Vec::new();
        for (_, folder) in &self.folders {
            pictures::below(folder, &mut deeper)?;
        }
        if let Some(first) = deeper.first() {
            facts.note(format!(
                "images in subfolders of class folders are not read ({}, such as {})",
                counted(deeper.len(), "subfolder"),
                first.display()
            ));
        }
        let data: Vec<&OsStr> =
            whole.files().iter().map(OsString::as_os_str).filter(|name| names::is_data(name)).collect();
        if !data.is_empty() {
            facts.note(format!(
                "{} beside the class folders {} not read: each image has the label of its folder",
                listed(&data),
                if data.len() == 1 { "is" } else { "are" }
            ));
        }
        let loose = whole.files().iter().filter(|name| is_named_as_picture(name)).count();
        if loose > 0 {
            let are = if loose == 1 { "is" } else { "are" };
            facts.note(format!("{} beside the class folders, and {are} not read", lie(loose)));
        }
        if !self.empty.is_empty() {
            let (folders, have) = if self.empty.len() == 1 { ("folder", "has") } else { ("folders", "have") };
            facts.note(format!("the {folders} {} {have} no images", listed(&self.empty)));
        }
        if self.are_nested {
            facts.state("layout", "<class>/<folder>/<image>", Right::Embedded);
        }
        let (order, labels) = self.labels(path, &mut facts, &pictures)?;
        let mut by_class: Vec<Option<(PathBuf, Vec<OsString>)>> = pictures.into_iter().map(Some).collect();
        let pictures: Vec<_> = order.into_iter().filter_map(|at| by_class[at].take()).collect();
        let are_of_imagenet =
            self.folders.iter().all(|(name, _)| name.to_str().is_some_and(imagenet::is_wnid));
        let space = facts.pictures(are_of_imagenet)?;
        let classes = facts.classes(labels.classes, LabelKind::Hard, labels.names, labels.class_map)?;
        facts.notes(labels.notes);
        facts.note_odd_classes(labels.labels.iter().map(Label::class), classes.count);
        let names: Vec<&str> = self.folders.iter().filter_map(|(name, _)| name.to_str()).collect();
        let info = facts.info(Found {
            method: method(&names).map(str::to_owned),
            samples: labels.labels.len(),
            shape: [3, 0, 0],
            labels: LabelKind::Hard,
            learning_rate: None,
            space,
            classes,
        });
        Ok(Box::new(EncodedSet::new(info, labels.labels, images(pictures), Resize::of(options))?))
    }

    /// The order of the folders by their class, and the label of each picture in this order.
    fn labels(
        &self,
        path: &Path,
        facts: &mut Facts<'_>,
        pictures: &[(PathBuf, Vec<OsString>)],
    ) -> Result<(Vec<usize>, Labels)> {
        let names: Vec<String> =
            self.folders.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let has_wnids = names.iter().all(|name| imagenet::is_wnid(name));
        let mut options = facts.options().clone();
        let list = facts.class_list().map(|(file, list, _)| (file.to_owned(), list.clone()));
        if let Some((file, list)) = &list {
            // A list that is given labels folders by their ids anew, but none by their numbers.
            if options.class_indices().is_some() && has_wnids {
                facts.set_class_list_aside();
            } else {
                list.check_given(file, &options)?;
            }
            options = list.fill(&options);
        } else if options.class_indices().is_none()
            && let Some(implied) = facts.implied_classes(names.len())
        {
            options = options.with_listed(implied.1);
        }
        let told_by_file = |e: Error| match &list {
            Some((file, _)) if facts.options().class_count().is_none() => {
                Error::field(file, "classes", e.to_string())
            }
            _ => e,
        };
        let named = Named::new(path, &names, &options).map_err(told_by_file)?;
        let first = if named.are_numbers { options.first_label.unwrap_or(0) } else { 0 };
        let mut classes: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, class) in named.labels.iter().enumerate() {
            let refused = |reason: String| Err(Error::format(&path.join(names[at]), reason));
            let Some(class) = class.checked_sub(first) else {
                return refused(format!("its name is class {class}, below `first_label` ({first})"));
            };
            if class >= MAX_CLASSES {
                return refused(format!(
                    "its name is class {class}; class numbers must be below {MAX_CLASSES}"
                ));
            }
            if let Some(other) = classes.insert(class, at) {
                return refused(format!("its name is class {class}, like that of `{}`", names[other]));
            }
        }
        let found = classes.last_key_value().map_or(0, |(last, _)| last + 1);
        let count = options.class_count().unwrap_or(found);
        if count < found {
            let reason = format!(
                "it says {count}, but {} has class folders up to class {}",
                path.display(),
                found - 1
            );
            return Err(told_by_file(Error::config(options.class_count_option(), reason)));
        }
        // Classes without a folder are called by their number.
        let class_names =
            (0..count).map(|i| classes.get(&i).map_or(i.to_string(), |at| names[*at].to_owned()));
        let labels =
            classes.iter().flat_map(|(class, at)| vec![Label::Hard(*class); pictures[*at].1.len()]).collect();
        let labels = Labels {
            labels,
            classes: count,
            kind: LabelKind::Hard,
            names: Some(class_names.collect()),
            class_map: named.class_map.as_indices().map(|_| named.class_map.clone()),
            notes: named.notes,
        };
        Ok((classes.into_values().collect(), labels))
    }
}

/// `2 images lie`
fn lie(images: usize) -> String {
    format!("{} {}", counted(images, "image"), if images == 1 { "lies" } else { "lie" })
}

/// Pictures on disk.
#[derive(Debug)]
struct OnDisk {
    folders: Vec<PathBuf>,
    /// The folder of each file.
    files: Vec<(u32, OsString)>,
}

impl OnDisk {
    fn new(images: Vec<(PathBuf, Vec<OsString>)>) -> Self {
        let (mut folders, mut files) = (Vec::with_capacity(images.len()), Vec::new());
        for (at, (folder, names)) in images.into_iter().enumerate() {
            folders.push(folder);
            // No file system lists more folders in one.
            files.extend(names.into_iter().map(|name| (at as u32, name)));
        }
        Self { folders, files }
    }

    fn path(&self, index: usize) -> PathBuf {
        let (folder, name) = &self.files[index];
        self.folders[*folder as usize].join(name)
    }
}

impl Encoded for OnDisk {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let file = self.path(index);
        File::open(&file).map(BufReader::new).map_err(Error::io(&file, "cannot open"))
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        Error::sample(&self.path(index), index, reason)
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        Some(self.files.get(index)?.1.to_string_lossy())
    }
}

/// What names its folders like this.
fn method(names: &[&str]) -> Option<&'static str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let all = |is: &dyn Fn(&str) -> bool| names.iter().all(|name| is(name));
    if all(&|name| name.strip_prefix("new").is_some_and(is_number)) {
        Some("SRe2L, CDA or G_VBSM, by the names of the folders, new<class>")
    } else if all(&|name| is_number(name) && name.len() == 5) {
        Some("RDED, by the names of the folders, of five digits")
    } else if all(&|name| is_number(name) && (name.len() == 1 || !name.starts_with('0'))) {
        Some("D4M, by the names of the folders, numbers")
    } else if all(&imagenet::is_wnid) {
        Some("Minimax, MGD3 or IGD, by the names of the folders, WordNet ids")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::method;

    #[test]
    fn methods_are_known_by_their_names() {
        for (names, expected) in [
            (&["new000", "new012"][..], "SRe2L"),
            (&["new00000", "new10449"], "SRe2L"),
            (&["00000", "00009"], "RDED"),
            (&["0", "1", "10", "999"], "D4M"),
            (&["n01440764", "n99999999"], "Minimax"),
        ] {
            assert!(method(names).unwrap().starts_with(expected), "{names:?}");
        }
        for names in [&["cat", "dog"][..], &["new000", "0"], &["01", "2"], &["n01440764", "cat"]] {
            assert_eq!(method(names), None, "{names:?}");
        }
    }
}

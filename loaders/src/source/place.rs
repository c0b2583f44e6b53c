//! What lies at a path: a folder, whose inner folders are listed when they are looked into, or a file with its first bytes.

use super::containers::archive::Archive;
use super::containers::tensor::TensorFile;
use super::containers::torch::{self, Pickle};
use super::containers::{arrow, npy, picture, safetensors, tar, zip};
use super::names::{by_extension, is_leftover};
use crate::{Error, Result};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many names a message lists.
const LISTED: usize = 4;
/// How many of a file's first bytes tell its format: a tar file's mark is the last of them.
const HEAD: usize = 512;

/// What was opened, or is looked into.
#[derive(Debug)]
pub(super) enum Place {
    Folder(Folder),
    File(File),
}

impl Place {
    /// Looks at `path`, links followed.
    ///
    /// # Errors
    /// If there is nothing, or it cannot be read.
    pub(super) fn look(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        Ok(if kind.is_dir() { Self::Folder(Folder::list(path)?) } else { Self::File(File::open(path)?) })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => &folder.path,
            Self::File(file) => &file.path,
        }
    }
}

/// A folder on disk, or one in an archive.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    files: Vec<OsString>,
    folders: Vec<(OsString, OnceCell<Folder>)>,
    /// Pipes, sockets and devices: whoever opens one may wait forever.
    others: Vec<OsString>,
}

impl Folder {
    /// Lists a folder on disk, without what systems and tools leave behind.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) fn list(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, "cannot list")(e);
        let (mut files, mut folders, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for entry in std::fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            if is_leftover(&name) {
                continue;
            }
            let mut kind = entry.file_type().map_err(io)?;
            // A link that leads nowhere is a file that cannot be opened.
            if kind.is_symlink()
                && let Ok(target) = std::fs::metadata(entry.path())
            {
                kind = target.file_type();
            }
            let list = match () {
                () if kind.is_dir() => &mut folders,
                () if kind.is_file() || kind.is_symlink() => &mut files,
                () => &mut others,
            };
            list.push(name);
        }
        let folders = folders.into_iter().map(|name| (name, OnceCell::new()));
        Ok(Self { others, ..Self::new(path.to_owned(), files, folders) })
    }

    /// The tree of an archive.
    pub(super) fn of_archive(archive: &Archive) -> Self {
        let files = archive.paths().iter().map(|path| (path.as_path(), true));
        let folders = archive.folders().iter().map(|path| (path.as_path(), false));
        Self::of_paths(archive.path(), files.chain(folders))
    }

    /// The tree of paths, each of which is that of a file or of a folder.
    fn of_paths<'a>(path: &Path, paths: impl IntoIterator<Item = (&'a Path, bool)>) -> Self {
        let mut files = Vec::new();
        let mut inner: BTreeMap<OsString, Vec<(&Path, bool)>> = BTreeMap::new();
        for (path, is_file) in paths {
            let mut parts = path.components();
            let Some(first) = parts.next() else { continue };
            let name = first.as_os_str().to_owned();
            if is_leftover(&name) {
                continue;
            }
            let rest = parts.as_path();
            if is_file && rest.as_os_str().is_empty() {
                files.push(name);
            } else {
                inner.entry(name).or_default().push((rest, is_file));
            }
        }
        let folders = inner.into_iter().map(|(name, paths)| {
            let folder = Self::of_paths(&path.join(&name), paths);
            (name, OnceCell::from(folder))
        });
        Self::new(path.to_owned(), files, folders)
    }

    fn new(
        path: PathBuf,
        mut files: Vec<OsString>,
        folders: impl Iterator<Item = (OsString, OnceCell<Self>)>,
    ) -> Self {
        files.sort_unstable();
        let mut folders: Vec<_> = folders.collect();
        folders.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Self { path, files, folders, others: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its files, sorted.
    pub(super) fn files(&self) -> &[OsString] {
        &self.files
    }

    /// The names of what is neither a file nor a folder.
    pub(super) fn others(&self) -> &[OsString] {
        &self.others
    }

    /// The names of its files that are text.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|name| name.to_str())
    }

    /// The names of its files that are text and have this extension.
    pub(super) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &str> {
        // Most files of large folders are others: the end is looked at before the whole.
        let is_it = move |name: &&OsString| {
            name.as_encoded_bytes()
                .strip_suffix(extension.as_bytes())
                .is_some_and(|stem| stem.ends_with(b"."))
        };
        self.files.iter().filter(is_it).filter_map(|name| name.to_str())
    }

    pub(super) fn has_file(&self, name: &str) -> bool {
        self.files.binary_search_by(|file| file.as_os_str().cmp(OsStr::new(name))).is_ok()
    }

    /// The names of its folders, sorted.
    pub(super) fn folders(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.folders.iter().map(|(name, _)| name.as_os_str())
    }

    /// The folder of that name in it, listed.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) fn folder(&self, name: impl AsRef<OsStr>) -> Result<Option<&Self>> {
        let name = name.as_ref();
        let Ok(at) = self.folders.binary_search_by(|(folder, _)| folder.as_os_str().cmp(name)) else {
            return Ok(None);
        };
        let cell = &self.folders[at].1;
        if let Some(listed) = cell.get() {
            return Ok(Some(listed));
        }
        let listed = Self::list(&self.path.join(name))?;
        Ok(Some(cell.get_or_init(|| listed)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folders.is_empty() && self.others.is_empty()
    }

    /// What lies in it, in words: `3 .webp files, the folder images`.
    pub(super) fn describe(&self) -> String {
        let mut parts = by_extension(self.files.iter().map(OsString::as_os_str));
        match self.folders.len() {
            0 => {}
            1 => parts.push(format!("the folder {}", self.folders[0].0.display())),
            count => {
                let names: Vec<String> =
                    self.folders().take(LISTED).map(|name| name.display().to_string()).collect();
                let more = if count > LISTED { ", ..." } else { "" };
                parts.push(format!("{count} folders ({}{more})", names.join(", ")));
            }
        }
        if let Some(first) = self.others.first() {
            parts.push(format!("{} (a pipe, a socket or a device)", first.display()));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// The kind of container that a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `torch.save`'s zip or legacy container.
    Torch,
    /// A plain pickle.
    Pickle,
    /// numpy's npz.
    Npz,
    /// A zip of other files.
    Zip,
    Npy,
    Safetensors,
    Parquet,
    Arrow,
    Tar,
    Gzip,
    Picture,
    Unknown,
}

/// A file, read no further than is asked for.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    head: Vec<u8>,
    kind: Kind,
    pickled: OnceCell<Pickled>,
    archive: OnceCell<Option<Arc<Archive>>>,
}

/// What `torch.save` or `pickle` wrote.
#[derive(Debug)]
pub(super) struct Pickled {
    pub(super) file: Arc<TensorFile>,
    pub(super) pickle: Pickle,
}

impl File {
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        if !metadata.is_file() {
            return Err(Error::format(path, "this is a pipe, a socket or a device: expected a regular file"));
        }
        let mut head = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::io(path, "cannot open"))?;
        file.take(HEAD as u64).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
        let kind = kind(path, &head)?;
        Ok(Self { path: path.to_owned(), head, kind, pickled: OnceCell::new(), archive: OnceCell::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name, where that is text.
    pub(super) fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The object in a file of [`Kind::Torch`] or [`Kind::Pickle`], read once; none in others.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn pickled(&self) -> Result<Option<&Pickled>> {
        if !matches!(self.kind, Kind::Torch | Kind::Pickle) {
            return Ok(None);
        }
        if let Some(pickled) = self.pickled.get() {
            return Ok(Some(pickled));
        }
        let (file, pickle) = torch::open(&self.path)?;
        Ok(Some(self.pickled.get_or_init(|| Pickled { file: Arc::new(file), pickle })))
    }

    /// What is in a file of [`Kind::Tar`] or [`Kind::Zip`], or in a tar of [`Kind::Gzip`], listed once; none in others.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn archive(&self) -> Result<Option<&Arc<Archive>>> {
        if !matches!(self.kind, Kind::Tar | Kind::Zip | Kind::Gzip) {
            return Ok(None);
        }
        if let Some(archive) = self.archive.get() {
            return Ok(archive.as_ref());
        }
        let archive = Archive::open(&self.path)?.map(Arc::new);
        Ok(self.archive.get_or_init(|| archive).as_ref())
    }

    /// What it is, in words, as far as that helps.
    pub(super) fn describe(&self) -> String {
        describe(self.kind, &self.head)
    }
}

fn is_image(name: impl AsRef<Path>) -> bool {
    name.as_ref().extension().and_then(OsStr::to_str).and_then(picture::Kind::of_extension).is_some()
}

fn kind(path: &Path, head: &[u8]) -> Result<Kind> {
    Ok(if zip::is_zip(head) {
        // torch's, numpy's and everybody's archives begin alike.
        match zip::names(path)? {
            names if names.iter().any(|name| name.ends_with("/data.pkl") || name == "data.pkl") => {
                Kind::Torch
            }
            // Images with a `labels.npy` beside them are a folder in an archive.
            names if names.iter().any(|name| name.ends_with(".npy")) && !names.iter().any(is_image) => {
                Kind::Npz
            }
            _ => Kind::Zip,
        }
    } else if torch::is_torch(head) {
        Kind::Torch
    } else if head.starts_with(b"PAR1") {
        Kind::Parquet
    } else if arrow::is_arrow(head) {
        Kind::Arrow
    } else if npy::is_npy(head) {
        Kind::Npy
    } else if tar::is_tar(head) {
        Kind::Tar
    } else if picture::Kind::of(head).is_some() {
        Kind::Picture
    } else if head.starts_with(b"\x1f\x8b") {
        Kind::Gzip
    } else if safetensors::is_safetensors(head) {
        Kind::Safetensors
    } else if torch::is_pickle(head) {
        Kind::Pickle
    } else {
        Kind::Unknown
    })
}

/// How much of an unknown file's beginning is shown, in bytes.
const SHOWN: usize = 8;

fn describe(kind: Kind, head: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 7] = [
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: decompress it first"),
        (b"\xfd7zXZ", "it is compressed with xz: decompress it first"),
        (b"BZh", "it is compressed with bzip2: decompress it first"),
        (b"7z\xbc\xaf", "it is a 7-Zip archive: extract it first"),
        (b"version https://git-lfs", "it is a Git LFS pointer: run `git lfs pull` to fetch the real file"),
        (b"<!", "it is a web page, probably from a failed download"),
        (b"<html", "it is a web page, probably from a failed download"),
    ];
    if head.is_empty() {
        return "the file is empty".to_owned();
    }
    if head.iter().all(|byte| *byte == 0) {
        return "it begins with zeros, as an empty tar archive or an interrupted download does".to_owned();
    }
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).to_owned();
    }
    match kind {
        Kind::Torch => "it is a torch file".to_owned(),
        Kind::Pickle => "it is a pickle".to_owned(),
        Kind::Npz => "it is an npz file".to_owned(),
        Kind::Zip => "it is a zip archive".to_owned(),
        Kind::Npy => "it is a single numpy array".to_owned(),
        Kind::Safetensors => "it is a safetensors file".to_owned(),
        Kind::Parquet => "it is a Parquet file".to_owned(),
        Kind::Arrow => "it is an Arrow file".to_owned(),
        Kind::Tar => "it is a tar archive".to_owned(),
        Kind::Gzip => "it is compressed with gzip: decompress it first".to_owned(),
        Kind::Picture => "it is a single image: open the folder that contains the class folders".to_owned(),
        Kind::Unknown => {
            let shown = &head[..head.len().min(SHOWN)];
            match std::str::from_utf8(shown) {
                Ok(text) if !text.chars().any(char::is_control) => format!("it begins with `{text}`"),
                _ => {
                    let bytes: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("it begins with the bytes {}", bytes.join(" "))
                }
            }
        }
    }
}

//! The files in a zip or tar file, by their paths in it. They are never written to disk, so a name cannot do harm.

use super::bytes::Bytes;
use super::listing::Files;
use super::{tar, zip};
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// The largest compressed tar, once it is unpacked in memory.
const LARGEST_UNPACKED: u64 = 1 << 30;
/// The largest file that is read as a whole.
const LARGEST_FILE: u64 = 1 << 30;
/// What a file compressed by gzip begins with.
const GZIP: &[u8] = b"\x1f\x8b";
/// How many of a file's first bytes tell an archive.
const HEAD: u64 = 512;

/// A zip file or a tar file, the latter maybe compressed by gzip, whose files are read by several threads at once.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    content: Content,
    paths: Vec<PathBuf>,
    /// The files in the order of their paths.
    sorted: Vec<u32>,
    folders: Vec<PathBuf>,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Content {
    Tar { bytes: Bytes, places: Vec<tar::Place> },
    Zip { zip: zip::Zip, places: Vec<usize> },
}

impl Archive {
    /// Opens the file at `path` if it is an archive. Of a tar headers alone are read, unless it is compressed.
    ///
    /// # Errors
    /// If it is damaged, if two entries have one name, or if it is too large to be unpacked.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let (head, _) = begin(path)?;
        if !zip::is_zip(&head) {
            return Self::open_tar(path);
        }
        let (zip, files) = zip::Zip::list(path)?;
        Ok(Some(Self::new(path, files, |places| Content::Zip { zip, places })))
    }

    /// Opens the file at `path` if it is a tar.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_tar(path: &Path) -> Result<Option<Self>> {
        let (head, file) = begin(path)?;
        let bytes = if tar::is_tar(&head) {
            Bytes::file(file).map_err(Error::io(path, "cannot read"))?
        } else if head.starts_with(GZIP) {
            let Some(bytes) = unpacked(path, file)? else { return Ok(None) };
            Bytes::Memory(bytes)
        } else {
            return Ok(None);
        };
        let files = tar::list(path, &bytes)?;
        Ok(Some(Self::new(path, files, |places| Content::Tar { bytes, places })))
    }

    /// Whether the file at `path` is a tar, as far as its first bytes tell.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn is_tar(path: &Path) -> Result<bool> {
        let (head, _) = begin(path)?;
        Ok(tar::is_tar(&head) || head.starts_with(GZIP))
    }

    fn new<P>(path: &Path, files: Files<P>, content: impl FnOnce(Vec<P>) -> Content) -> Self {
        let Files { paths, places, sorted, folders, notes } = files;
        Self { path: path.to_owned(), content: content(places), paths, sorted, folders, notes }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The paths of the files, in the archive's order. They go down from the archive: none has a root or `..`.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The folders that have an entry of their own, by their paths.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// What the archive has that is not read.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Which file has this path.
    pub(crate) fn find(&self, path: &Path) -> Option<usize> {
        let of = |at: &u32| self.paths[*at as usize].as_os_str();
        let at = self.sorted.binary_search_by(|at| of(at).cmp(path.as_os_str())).ok()?;
        Some(self.sorted[at] as usize)
    }

    /// The bytes of a file, of which there may be at most `most`.
    ///
    /// # Errors
    /// If it is damaged, too large, or of a kind that is not read; the error names it.
    pub(crate) fn read_up_to(&self, file: usize, most: u64) -> Result<Vec<u8>> {
        let content = match &self.content {
            Content::Zip { zip, places } => zip.read(places[file], most),
            Content::Tar { places, .. } if places[file].1 > most => {
                Err(format!("it is of {} bytes; at most {most} are read", places[file].1))
            }
            Content::Tar { .. } => return self.head(file, most),
        };
        content.map_err(|reason| self.refused(file, reason))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// As [`read_up_to`](Self::read_up_to).
    pub(crate) fn read(&self, file: usize) -> Result<Vec<u8>> {
        self.read_up_to(file, LARGEST_FILE)
    }

    /// The first bytes of a file, at most as many as these.
    ///
    /// # Errors
    /// As [`read_up_to`](Self::read_up_to).
    pub(crate) fn head(&self, file: usize, most: u64) -> Result<Vec<u8>> {
        match &self.content {
            Content::Zip { zip, places } => {
                zip.head(places[file], most).map_err(|reason| self.refused(file, reason))
            }
            Content::Tar { bytes, places } => {
                let (start, length) = places[file];
                let mut content = vec![0; length.min(most) as usize];
                bytes.read_at(&mut content, start).map_err(Error::io(&self.path, "cannot read"))?;
                Ok(content)
            }
        }
    }

    /// The error for a file in the archive.
    pub(crate) fn refused(&self, file: usize, reason: impl Into<String>) -> Error {
        Error::field(&self.path, self.paths[file].display().to_string(), reason)
    }
}

/// The first bytes of a file, which is at its beginning again.
fn begin(path: &Path) -> Result<(Vec<u8>, File)> {
    let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let mut head = Vec::new();
    let read = file.by_ref().take(HEAD).read_to_end(&mut head);
    read.and_then(|_| file.rewind()).map_err(Error::io(path, "cannot read"))?;
    Ok((head, file))
}

/// What a file compressed by gzip holds, if that is a tar.
fn unpacked(path: &Path, file: File) -> Result<Option<Vec<u8>>> {
    let damaged = |e: std::io::Error| Error::format(path, format!("damaged gzip file: {e}"));
    let mut unpacked = MultiGzDecoder::new(BufReader::new(file)).take(LARGEST_UNPACKED + 1);
    let mut bytes = Vec::new();
    unpacked.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(damaged)?;
    if !tar::is_tar(&bytes) {
        return Ok(None);
    }
    unpacked.read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > LARGEST_UNPACKED {
        let reason = format!(
            "it is compressed by gzip, and is unpacked in memory, but only up to {LARGEST_UNPACKED} bytes: decompress it \
             with `gunzip` first"
        );
        return Err(Error::format(path, reason));
    }
    Ok(Some(bytes))
}

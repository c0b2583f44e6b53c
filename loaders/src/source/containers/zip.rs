//! Zip archives, in which torch and numpy lay tensors and people lay folders of images.

use super::bytes::Bytes;
use super::listing::{self, Files, Listing, MOST_ENTRIES};
use crate::{Error, Result};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use zip::read::ZipArchiveMetadata;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive, ZipReadOptions};

/// The largest file that is unpacked, in bytes.
const LARGEST: u64 = 1 << 30;
/// Deflate makes of a byte at most this many.
const MOST_UNPACKED: u64 = 1032;
/// The longest target of a link.
const LONGEST_TARGET: u64 = 1 << 12;

/// Whether a file that begins with `head` may be a zip archive; one without entries begins with its end.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// Opens an archive.
///
/// # Errors
/// If it is damaged.
pub(crate) fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(path, &e))?;
    if archive.len() > MOST_ENTRIES {
        let reason = format!("the archive has {} entries; at most {MOST_ENTRIES} are read", archive.len());
        return Err(Error::format(path, reason));
    }
    Ok(archive)
}

/// The error for an archive that cannot be read.
pub(crate) fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    // The crate's word for a file without the directory at its end.
    let reason = reason.to_string();
    let is_cut = reason.contains("EOCD") || reason.contains("end of central directory");
    let reason = if is_cut { "its end is missing, so download or save it again".to_owned() } else { reason };
    Error::format(path, format!("damaged zip file: {reason}"))
}

/// The names of an archive's entries, as far as they are text.
///
/// # Errors
/// As [`open`].
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let archive = open(path)?;
    Ok(archive.file_names_raw().filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
}

/// The entries of a zip file, to be read by several threads at once.
#[derive(Debug)]
pub(super) struct Zip {
    bytes: Bytes,
    entries: Arc<ZipArchiveMetadata>,
}

impl Zip {
    /// Lists the files of an archive, by the places of their entries.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn list(path: &Path) -> Result<(Self, Files<usize>)> {
        let archive = open(path)?;
        let (entries, start) = (archive.metadata(), archive.central_directory_start());
        let file = archive.into_inner().into_inner();
        let bytes = Bytes::file(file).map_err(Error::io(path, "cannot read"))?;
        if entries.has_duplicate_names() {
            let name = twice(&bytes, start).unwrap_or_default();
            return Err(listing::twice(path, Path::new(&*String::from_utf8_lossy(&name))));
        }
        let zip = Self { bytes, entries };
        let mut listing = Listing::new(path);
        let mut spans = Vec::with_capacity(zip.entries.len());
        for index in 0..zip.entries.len() {
            let entry = zip.entries.entry(index).map_err(|e| damaged(path, &e))?;
            let name = slashed(entry.name_raw());
            spans.push((entry.header_start(), entry.compressed_size(), index));
            if entry.is_dir() || name.ends_with(b"/") {
                listing.folder(&name);
                continue;
            }
            if entry.is_symlink() {
                let target = zip.read(index, LONGEST_TARGET);
                let target =
                    target.map_err(|reason| Error::field(path, String::from_utf8_lossy(&name), reason))?;
                listing.link(&name, &target, true)?;
            } else {
                listing.file(&name, index)?;
            }
        }
        // As a bomb that unpacks one entry's bytes as those of many does, which Python refuses, too.
        spans.sort_unstable();
        for pair in spans.windows(2) {
            if pair[0].0.checked_add(pair[0].1).is_none_or(|end| end > pair[1].0) {
                let name = zip
                    .entries
                    .entry(pair[1].2)
                    .map_or_else(|_| Vec::new(), |entry| entry.name_raw().to_vec());
                let reason = "its bytes are those of another entry, too: the archive is damaged";
                return Err(Error::field(path, String::from_utf8_lossy(&name), reason));
            }
        }
        let files = listing.finish()?;
        Ok((zip, files))
    }

    /// The bytes of a file, of which there may be at most `most`.
    ///
    /// # Errors
    /// If it is damaged, or cannot be unpacked.
    pub(super) fn read(&self, index: usize, most: u64) -> Result<Vec<u8>, String> {
        self.unpack(index, |size, entry| {
            let most = most.min(LARGEST);
            if size > most {
                return Err(format!("it is of {size} bytes; at most {most} are read"));
            }
            let mut content = Vec::with_capacity(size as usize);
            // To the end, where the checksum is compared.
            entry.read_to_end(&mut content).map_err(|e| format!("it cannot be unpacked: {e}"))?;
            if content.len() as u64 != size {
                return Err(format!("{} bytes instead of {size}: the archive is damaged", content.len()));
            }
            Ok(content)
        })
    }

    /// The first bytes of a file, at most as many as these.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn head(&self, index: usize, most: u64) -> Result<Vec<u8>, String> {
        self.unpack(index, |_, entry| {
            let mut head = Vec::new();
            entry.take(most).read_to_end(&mut head).map_err(|e| format!("it cannot be unpacked: {e}"))?;
            Ok(head)
        })
    }

    /// Gives `take` the size of an entry, and what it unpacks to.
    fn unpack<T>(
        &self,
        index: usize,
        take: impl FnOnce(u64, &mut dyn Read) -> Result<T, String>,
    ) -> Result<T, String> {
        let unreadable = |e: ZipError| format!("it cannot be read: {e}");
        let entry = self.entries.entry(index).map_err(unreadable)?;
        if entry.encrypted() {
            return Err("it is encrypted: extract the archive with its password, and open the folder".into());
        }
        let (size, packed) = (entry.size(), entry.compressed_size());
        let is_possible = match entry.compression() {
            CompressionMethod::Stored => size == packed,
            CompressionMethod::Deflated => size <= packed.saturating_mul(MOST_UNPACKED),
            method => {
                let reason = "which is not read: extract the archive, and open the folder";
                return Err(format!("it is compressed by {method}, {reason}"));
            }
        };
        if !is_possible || packed > self.bytes.len() {
            return Err(format!("{size} bytes in {packed}: the archive is damaged"));
        }
        let mut reader = BufReader::new(self.bytes.reader());
        let mut entry = entry.with_reader(&mut reader, ZipReadOptions::new()).map_err(unreadable)?;
        take(size, &mut entry)
    }
}

/// A name with slashes between folders, which some programs on Windows write as backslashes.
fn slashed(name: &[u8]) -> Vec<u8> {
    let are_backslashes = !name.contains(&b'/') && std::str::from_utf8(name).is_ok();
    name.iter().map(|byte| if are_backslashes && *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// The name that two entries have: the crate's list of entries has the last of them. `at` is where the list lies.
fn twice(bytes: &Bytes, mut at: u64) -> Option<Vec<u8>> {
    let mut seen = HashSet::new();
    loop {
        let mut header = [0; 46];
        bytes.read_at(&mut header, at).ok()?;
        let [name, extra, comment] = [28, 30, 32].map(|at| u16::from_le_bytes([header[at], header[at + 1]]));
        let mut text = vec![0; usize::from(name)];
        bytes.read_at(&mut text, at + 46).ok()?;
        if header[..4] != *b"PK\x01\x02" {
            return None;
        }
        if !seen.insert(text.clone()) {
            return Some(text);
        }
        at += 46 + u64::from(name) + u64::from(extra) + u64::from(comment);
    }
}

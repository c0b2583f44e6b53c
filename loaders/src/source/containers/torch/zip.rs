//! The zip container of `torch.save` (torch 1.6 and later).

use super::super::tensor::Place;
use super::object::{Pickle, Stored};
use super::pickle::{self, Span};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive, ZipReadOptions, read::ZipFile};

/// torch.serialization.set_crc32_options(False) writes this for every checksum.
const UNKNOWN: u32 = 0;

/// Where each storage lies, and the object.
pub(super) fn open(path: &Path, file: BufReader<File>) -> Result<(HashMap<String, Place>, Pickle)> {
    let (mut zip, pickle) = Zip::open(path, file)?;
    let place = |storage: &Stored| (storage.key.clone(), zip.place(path, storage));
    let places = pickle.storages().map(place).collect();
    Ok((places, pickle))
}

/// The folder in the archive that has `data.pkl`; of the archive's own folders, not of others inside.
fn root(archive: &ZipArchive<BufReader<File>>) -> Option<String> {
    let of = |name: &[u8]| std::str::from_utf8(name).ok()?.strip_suffix("/data.pkl").map(str::to_owned);
    archive.file_names_raw().filter_map(of).find(|root| !root.contains('/'))
}

/// The entries of a torch file; unknown ones are ignored.
struct Zip {
    archive: ZipArchive<BufReader<File>>,
    /// Of the file, in bytes.
    length: u64,
    /// The folder that every entry lies in: `archive`, or the stem of the name under which torch saved.
    root: String,
}

impl Zip {
    fn open(path: &Path, file: BufReader<File>) -> Result<(Self, Pickle)> {
        let length = file.get_ref().metadata().map_err(Error::io(path, "cannot read"))?.len();
        let archive = ZipArchive::new(file).map_err(|e| super::super::zip::damaged(path, &e))?;
        let Some(root) = root(&archive) else {
            return Err(Error::format(path, "a zip file without `data.pkl`: not written by torch.save"));
        };
        let mut zip = Self { archive, length, root };
        let mut order = Vec::new();
        if let Some(entry) = zip.entry(path, "byteorder")? {
            // Any other content than `big` is the default, `little`.
            entry
                .take(4)
                .read_to_end(&mut order)
                .map_err(|e| Error::field(path, "byteorder", e.to_string()))?;
        }
        let Some(mut entry) = zip.entry(path, "data.pkl")? else {
            return Err(Error::format(path, "`data.pkl` cannot be found again"));
        };
        let start =
            entry.data_start().ok_or_else(|| Error::format(path, "`data.pkl` cannot be found again"))?;
        let mut span = Span { start, left: entry.size() };
        let pickle = pickle::read(BufReader::new(&mut entry), &mut span, order == b"big")
            .map_err(|reason| Error::field(path, "data.pkl", reason))?;
        // To the end, where the checksum is compared.
        std::io::copy(&mut entry, &mut std::io::sink())
            .map_err(|e| Error::field(path, "data.pkl", format!("damaged: {e}")))?;
        drop(entry);
        Ok((zip, pickle))
    }

    /// Where a storage lies. Damage matters to whoever reads that storage.
    fn place(&mut self, path: &Path, storage: &Stored) -> Place {
        let name = format!("data/{}", storage.key);
        match self.entry(path, &name) {
            Ok(Some(entry)) => match entry.data_start() {
                Some(start) => Place::InFile {
                    start,
                    bytes: entry.size(),
                    crc32: Some(entry.crc32()).filter(|sum| *sum != UNKNOWN),
                },
                None => Place::Missing(format!("`{name}` cannot be found: the file is damaged")),
            },
            Ok(None) => Place::Missing(format!("`{name}` is missing: the file is damaged")),
            Err(error) => Place::Missing(error.to_string()),
        }
    }

    /// An entry, checked to be stored uncompressed within the file.
    fn entry(&mut self, path: &Path, name: &str) -> Result<Option<ZipFile<'_, BufReader<File>>>> {
        let Some(index) = self.archive.index_for_name(&format!("{}/{name}", self.root)) else {
            return Ok(None);
        };
        let damaged = |e| Error::field(path, name, format!("damaged zip entry: {e}"));
        let data = self.archive.by_index_data(index).map_err(damaged)?;
        if data.compression() != CompressionMethod::Stored || data.encrypted() {
            let reason = "a compressed entry, which torch.save never writes: unpack and save the file again";
            return Err(Error::field(path, name, reason));
        }
        if data.size() != data.compressed_size() || data.size() > self.length {
            let reason = format!("{} bytes in a file of {}: the file is damaged", data.size(), self.length);
            return Err(Error::field(path, name, reason));
        }
        let options = ZipReadOptions::new().ignore_crc32(data.crc32() == UNKNOWN);
        self.archive.by_index_with_options(index, options).map(Some).map_err(damaged)
    }
}

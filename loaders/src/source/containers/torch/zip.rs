//! The zip container of `torch.save` (torch 1.6 and later).

use super::super::tensor::{Place, StorageRef};
use super::object::Pickle;
use super::pickle;
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
    let place = |storage: &StorageRef| (storage.key.clone(), zip.place(path, storage));
    let places = pickle.storages().map(place).collect();
    Ok((places, pickle))
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
        let archive =
            ZipArchive::new(file).map_err(|e| Error::format(path, format!("damaged zip file: {e}")))?;
        let root = archive
            .file_names_raw()
            .find_map(|name| std::str::from_utf8(name).ok()?.strip_suffix("/data.pkl").map(str::to_owned));
        let Some(root) = root else {
            return Err(Error::format(path, "a zip file without `data.pkl`: not written by torch.save"));
        };
        let mut zip = Self { archive, length, root };
        if let Some(mut entry) = zip.entry(path, "byteorder")? {
            let mut order = [0; 3];
            // Any other content (`little`, or nothing) is the default.
            let length = entry.read(&mut order).unwrap_or(0);
            if order[..length] == *b"big" {
                return Err(Error::format(
                    path,
                    "big-endian tensors: save the file again on a little-endian machine",
                ));
            }
        }
        let Some(mut entry) = zip.entry(path, "data.pkl")? else {
            return Err(Error::format(path, "`data.pkl` cannot be found again"));
        };
        let mut left = entry.size();
        let pickle =
            pickle::read(&mut entry, &mut left).map_err(|reason| Error::field(path, "data.pkl", reason))?;
        // To the end, where the checksum is compared.
        std::io::copy(&mut entry, &mut std::io::sink())
            .map_err(|e| Error::field(path, "data.pkl", format!("damaged: {e}")))?;
        drop(entry);
        Ok((zip, pickle))
    }

    /// Where a storage lies. Damage matters to whoever reads that storage.
    fn place(&mut self, path: &Path, storage: &StorageRef) -> Place {
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

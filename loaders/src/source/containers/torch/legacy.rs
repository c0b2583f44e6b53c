//! The container of `torch.save` before torch 1.6: five pickles, then the storages.

use super::super::tensor::{Place, StorageRef};
use super::object::Pickle;
use super::pickle;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The first pickle, protocol 2, whole: the number 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Where each storage lies, and the object.
pub(super) fn open(path: &Path, mut file: BufReader<File>) -> Result<(HashMap<String, Place>, Pickle)> {
    let io = |e| Error::io(path, "cannot read")(e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.rewind().map_err(io)?;
    let mut left = length;
    let mut magic = [0; MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || magic != MAGIC {
        return Err(Error::format(path, "damaged: the first pickle is not torch's magic number"));
    }
    left -= MAGIC.len() as u64;

    let mut next =
        |field: &str| pickle::read(&mut file, &mut left).map_err(|reason| Error::field(path, field, reason));
    next("protocol version")?;
    let system = next("system information")?;
    if system.root().get("little_endian").and_then(|v| v.as_bool()) == Some(false) {
        return Err(Error::format(
            path,
            "big-endian tensors: save the file again on a little-endian machine",
        ));
    }
    let object = next("object")?;
    let keys = next("storage keys")?;
    let Some(keys) = keys.root().items() else {
        return Err(Error::field(path, "storage keys", "a list is expected"));
    };

    let referred: HashMap<&str, &StorageRef> = object.storages().map(|s| (s.key.as_str(), s)).collect();
    let mut storages = HashMap::new();
    let mut at = length - left;
    for key in keys {
        let Some((key, storage)) = key.as_str().and_then(|key| Some((key, *referred.get(key)?))) else {
            return Err(Error::field(path, "storage keys", "a key that no tensor refers to"));
        };
        let mut numel = [0; 8];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut numel)).map_err(|e| {
            Error::field(path, format!("storage {key}"), format!("cannot read its size: {e}"))
        })?;
        let end = storage.bytes().and_then(|bytes| bytes.checked_add(at)?.checked_add(8));
        match end {
            Some(end) if end <= length && u64::from_le_bytes(numel) == storage.numel => {
                let place = Place::InFile { start: at + 8, bytes: end - at - 8, crc32: None };
                storages.insert(key.to_owned(), place);
                at = end;
            }
            _ => {
                let reason = format!(
                    "{} {:?} elements, {} by their count, at byte {at} of {length}: the file is damaged",
                    storage.numel,
                    storage.dtype,
                    u64::from_le_bytes(numel)
                );
                return Err(Error::field(path, format!("storage {key}"), reason));
            }
        }
    }
    Ok((storages, object))
}

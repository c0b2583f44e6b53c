//! The container of `torch.save` before torch 1.6: five pickles, then the storages.

use super::super::tensor::Place;
use super::object::{Pickle, Stored};
use super::pickle::{self, Span};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The number 0x1950a86a20f9469cfc6c, which is pickled first, as LONG1, and the end of its pickle.
const MAGIC: [u8; 13] = *b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The same of protocols 0 and 1.
const MAGIC_TEXT: [u8; 26] = *b"L119547037146038801333356L";
/// Bytes of `MAGIC` that tell.
const ENOUGH: usize = 6;

/// Whether a file that begins with `head` is one, as far as can be seen.
pub(super) fn begins(head: &[u8]) -> bool {
    let magic = number(head);
    let begins = |whole: &[u8]| {
        let seen = magic.len().min(whole.len());
        seen >= ENOUGH && magic[..seen] == whole[..seen]
    };
    begins(&MAGIC) || begins(&MAGIC_TEXT)
}

/// The first pickle of a file, without what announces it.
fn number(head: &[u8]) -> &[u8] {
    match head {
        // In a frame, with its length, since protocol 4.
        [0x80, _, 0x95, rest @ ..] => rest.get(8..).unwrap_or_default(),
        [0x80, _, rest @ ..] => rest,
        _ => head,
    }
}

/// Where each storage lies, and the object.
pub(super) fn open(path: &Path, mut file: BufReader<File>) -> Result<(HashMap<String, Place>, Pickle)> {
    let io = |e| Error::io(path, "cannot read")(e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.rewind().map_err(io)?;
    let mut span = Span { start: 0, left: length };
    // Storages are little-endian, whatever the machine.
    let mut next = |field: &str| {
        pickle::read(&mut file, &mut span, false).map_err(|reason| Error::field(path, field, reason))
    };
    for field in ["magic number", "protocol version", "system information"] {
        next(field)?;
    }
    let object = next("object")?;
    let keys = next("storage keys")?;
    let Some(keys) = keys.root().items() else {
        return Err(Error::field(path, "storage keys", "a list is expected"));
    };

    let referred: HashMap<&str, &Stored> = object.storages().map(|s| (s.key.as_str(), s)).collect();
    let mut storages = HashMap::new();
    let mut at = span.start;
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
                    "{} elements ({:?}), {} by their count, at byte {at} of {length}: the file is damaged",
                    storage.numel,
                    storage.elements,
                    u64::from_le_bytes(numel)
                );
                return Err(Error::field(path, format!("storage {key}"), reason));
            }
        }
    }
    Ok((storages, object))
}

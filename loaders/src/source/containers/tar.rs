//! Tar files: where the bytes of their files lie.
//!
//! The crate tar reads the fields of headers. It is not asked for the entries: it splits the extended headers of PAX at
//! line ends, which names and attributes may contain, and then takes a name that was cut.

use super::bytes::Bytes;
use super::listing::{Files, Listing};
use crate::{Error, Result};
use std::path::Path;
use tar::{EntryType, Header};

/// Headers and data of a tar file fill whole blocks of this many bytes; an empty one ends it.
const BLOCK: usize = 512;
/// The longest extended header, in bytes.
const LONGEST_HEADER: u64 = 1 << 20;
/// How far behind the end mark another archive is looked for: writers fill the last record with zeros.
const LONGEST_FILLING: u64 = 1 << 20;

/// Where the bytes of a file lie.
pub(super) type Place = (u64, u64);

/// Whether a file that begins with `head`, of 512 bytes, may be a tar file.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    // Old ones have no mark, but a checksum that hardly anything else has.
    head.get(257..262).is_some_and(|magic| magic == b"ustar") || head.get(..BLOCK).is_some_and(is_sound)
}

/// Whether the checksum of a header's block is right.
fn is_sound(block: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let byte = |(at, byte): (usize, &u8)| if SUM.contains(&at) { u32::from(b' ') } else { u32::from(*byte) };
    let sum: u32 = block.iter().enumerate().map(byte).sum();
    block[0] != 0 && Header::from_byte_slice(block).cksum().is_ok_and(|told| told == sum)
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Lists the files of a tar.
///
/// # Errors
/// If it is damaged or cut off, or an entry cannot be read.
pub(super) fn list(archive: &Path, bytes: &Bytes) -> Result<Files<Place>> {
    let damaged =
        |at: u64, reason: &str| Error::format(archive, format!("damaged tar file: {reason} at byte {at}"));
    let cut = || Error::format(archive, "the file ends without tar's end mark: it is cut off");
    let length = bytes.len();
    let mut listing = Listing::new(archive);
    let mut extended = Extended::default();
    let (mut at, mut block) = (0_u64, [0; BLOCK]);
    loop {
        if length - at < BLOCK as u64 {
            return Err(cut());
        }
        bytes.read_at(&mut block, at).map_err(Error::io(archive, "cannot read"))?;
        let start = at + BLOCK as u64;
        if block == [0; BLOCK] {
            refuse_another(archive, bytes, start)?;
            return listing.finish();
        }
        if !is_sound(&block) {
            return Err(damaged(at, "the checksum of a header is wrong"));
        }
        let header = Header::from_byte_slice(&block);
        let kind = header.entry_type();
        let is_extension = matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );
        let name = extended.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |reason: &str| Error::field(archive, String::from_utf8_lossy(&name), reason);
        let size = match extended.size {
            Some(size) if !is_extension => size,
            _ => header.entry_size().map_err(|e| damaged(at, &e.to_string()))?,
        };
        let next = start.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK as u64));
        let Some(next) = next.filter(|next| *next <= length) else {
            return Err(refused("the entry is cut off: the file is damaged"));
        };
        if is_extension {
            if size > LONGEST_HEADER {
                return Err(damaged(at, "an extended header is too long"));
            }
            let mut content = vec![0; size as usize];
            bytes.read_at(&mut content, start).map_err(Error::io(archive, "cannot read"))?;
            match kind {
                EntryType::GNULongName => extended.path = Some(until_zero(content)),
                EntryType::GNULongLink => extended.target = Some(until_zero(content)),
                _ => {
                    let records =
                        records(&content).ok_or_else(|| damaged(at, "an extended header is wrong"))?;
                    if kind == EntryType::XHeader {
                        extended.read(&records).map_err(refused)?;
                    } else if records.iter().any(|(key, _)| matches!(*key, b"path" | b"linkpath" | b"size")) {
                        return Err(damaged(at, "a header gives all entries one name"));
                    }
                }
            }
        } else {
            match kind {
                // An old way to say folder.
                EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => listing.folder(&name),
                EntryType::Regular | EntryType::Continuous => listing.file(&name, (start, size))?,
                EntryType::Directory => listing.folder(&name),
                EntryType::Link | EntryType::Symlink => {
                    let target = extended.target.take().or_else(|| header.link_name_bytes().map(Into::into));
                    listing.link(&name, &target.unwrap_or_default(), kind == EntryType::Symlink)?;
                }
                EntryType::GNUSparse => return Err(refused(SPARSE)),
                _ => listing.other(&name),
            }
            extended = Extended::default();
        }
        at = next;
    }
}

const SPARSE: &str = "it is stored as a sparse file, which is not read: write the archive without `--sparse`";

impl Extended {
    fn read(&mut self, records: &[(&[u8], &[u8])]) -> Result<(), &'static str> {
        for (key, value) in records {
            match *key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    self.size = Some(size.ok_or("its size is not a number: the file is damaged")?);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(SPARSE),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The records `<length> <key>=<value>\n` of an extended header of PAX; the length is of the whole record.
fn records(mut content: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !content.is_empty() && content[0] != 0 {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
        let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        content = &content[length..];
    }
    Some(records)
}

fn until_zero(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    name
}

/// Archives that were joined by `cat` are read by most programs as far as the first one's end mark.
fn refuse_another(archive: &Path, bytes: &Bytes, after: u64) -> Result<()> {
    let mut block = [0; BLOCK];
    let mut at = after;
    while at + BLOCK as u64 <= bytes.len().min(after + LONGEST_FILLING) {
        bytes.read_at(&mut block, at).map_err(Error::io(archive, "cannot read"))?;
        if is_sound(&block) {
            let reason = format!(
                "another tar file follows behind the end mark, at byte {at}: extract both with `tar --ignore-zeros`, and \
                 write one archive"
            );
            return Err(Error::format(archive, reason));
        }
        if block != [0; BLOCK] {
            break;
        }
        at += BLOCK as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_bytes_are_read() {
        let content = b"18 path=a\n\nb\xff c=d\n13 size=1234\n\0\0";
        let expected: [(&[u8], &[u8]); 2] = [(b"path", b"a\n\nb\xff c=d"), (b"size", b"1234")];
        assert_eq!(records(content).unwrap(), expected);
        for wrong in [&b"8 path=a\n"[..], b"x path=a\n", b"99 path=a\n", b"9 path:a\n", b"1 path=a\n", b"0 "]
        {
            assert_eq!(records(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn old_archives_are_known_by_their_checksum() {
        let mut header = Header::new_old();
        header.set_path("0.png").unwrap();
        header.set_size(3);
        header.set_cksum();
        assert!(is_tar(header.as_bytes()));
        header.as_mut_bytes()[0] = b'1';
        assert!(!is_tar(header.as_bytes()));
        assert!(!is_tar(&[0; BLOCK]) && !is_tar(b"") && is_tar(Header::new_ustar().as_bytes()));
    }
}

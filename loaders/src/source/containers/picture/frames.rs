//! Whether an image has more frames or pages than the first, which is the one that is decoded.

use super::Kind;
use std::io::{BufRead, Read, Seek, SeekFrom};

/// How many of a GIF's first bytes are looked at: its palette lies before what tells of an animation.
const GIF_HEADER: u64 = 1 << 10;

/// Whether the header of an image tells of further frames or pages. What cannot be read tells of none.
pub(super) fn has_more(kind: Kind, head: &[u8], mut encoded: impl BufRead + Seek) -> bool {
    let has = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    match kind {
        Kind::Png => has(head, b"acTL"),
        Kind::WebP => head.get(12..16) == Some(b"VP8X") && head.get(20).is_some_and(|flags| flags & 2 != 0),
        Kind::Gif => {
            let mut bytes = Vec::new();
            let read = encoded.rewind().and_then(|()| encoded.take(GIF_HEADER).read_to_end(&mut bytes));
            // Every program that writes animations says how often they repeat, and says it first.
            read.is_ok() && has(&bytes, b"NETSCAPE2.0")
        }
        Kind::Tiff => pages_follow(head, encoded).unwrap_or(false),
        _ => false,
    }
}

/// Whether the first directory of a TIFF file names another one.
fn pages_follow(head: &[u8], mut encoded: impl BufRead + Seek) -> Option<bool> {
    const ENTRY: i64 = 12;
    let is_little = head.starts_with(b"II*");
    let number =
        |bytes: [u8; 4]| if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    encoded.seek(SeekFrom::Start(number(head.get(4..8)?.try_into().ok()?).into())).ok()?;
    let mut count = [0; 2];
    encoded.read_exact(&mut count).ok()?;
    let count = if is_little { u16::from_le_bytes(count) } else { u16::from_be_bytes(count) };
    encoded.seek_relative(ENTRY * i64::from(count)).ok()?;
    let mut next = [0; 4];
    encoded.read_exact(&mut next).ok()?;
    // Of the format's other version, for files beyond 4 GB, the sizes are others.
    Some((is_little || head.starts_with(b"MM\0*")) && next != [0; 4])
}

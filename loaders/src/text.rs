//! Text files that people write, in the encodings that their editors choose.

use crate::{Error, Result};
use std::path::Path;

/// The text of `bytes`, which lie in the file at `path`: UTF-8, or UTF-16 behind its byte order mark, which is what
/// editors and shells on Windows write. The mark itself is no part of the text.
///
/// # Errors
/// If it is in another encoding.
pub(crate) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let units = |unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes[2..].as_chunks();
        let units: Vec<u16> = pairs.iter().copied().map(unit).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    let text = match bytes {
        _ if bytes.starts_with(&[0xff, 0xfe]) => units(u16::from_le_bytes),
        _ if bytes.starts_with(&[0xfe, 0xff]) => units(u16::from_be_bytes),
        _ => String::from_utf8(bytes).ok().map(|text| match text.strip_prefix('\u{feff}') {
            Some(text) => text.to_owned(),
            None => text,
        }),
    };
    text.ok_or_else(|| Error::format(path, "the text is not UTF-8. Save the file in that encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_with_its_mark_is_the_same_text() {
        let text = "n01440764\r\nBrüssel 🦀\n";
        let utf16 =
            |unit: fn(u16) -> [u8; 2]| std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit);
        for bytes in [
            text.as_bytes().to_vec(),
            format!("\u{feff}{text}").into_bytes(),
            utf16(u16::to_le_bytes).collect(),
            utf16(u16::to_be_bytes).collect(),
        ] {
            assert_eq!(decode(Path::new("classes.txt"), bytes).unwrap(), text);
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        for bytes in [&b"Br\xfcssel"[..], b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\xfe\xff\xdc\x00"] {
            let error = decode(Path::new("classes.txt"), bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains("classes.txt") && error.contains("UTF-8"), "{error}");
        }
    }
}

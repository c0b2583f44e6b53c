//! Files of `pickle.dump`.

use super::object::Pickle;
use super::pickle::{self, Span};
use crate::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// What the first pickles of protocols 0 and 1 begin with that hold data: functions of these modules, or containers.
const TEXT: [&[u8]; 13] = [
    b"ccopy_reg\n",
    b"ccopyreg\n",
    b"c__builtin__\n",
    b"cbuiltins\n",
    b"ccollections\n",
    b"cnumpy.",
    b"cnumpy\n",
    b"ctorch.",
    b"ctorch\n",
    b"(dp",
    b"(lp",
    b"}q\0",
    b"]q\0",
];
/// What may follow the version in protocols 2 to 5: a frame, a container, a function, text, bytes, a number.
const FIRST: &[u8] = b"\x95}](c)XBCUTKJMGN\x8a\x8b\x88\x89\x8c\x8d\x8e\x8f\x96";

/// Whether a file that begins with `head` is one, as far as can be seen.
pub(super) fn begins(head: &[u8]) -> bool {
    match head {
        [0x80, 2..=5, first, ..] => FIRST.contains(first),
        _ => {
            // A tuple begins with a mark.
            let inner = head.strip_prefix(b"(").unwrap_or(head);
            let begins = |head: &[u8]| {
                TEXT.iter().any(|text| {
                    let seen = head.len().min(text.len());
                    seen >= 3 && head[..seen] == text[..seen]
                })
            };
            begins(head) || begins(inner)
        }
    }
}

/// The object of a file.
pub(super) fn open(path: &Path, file: BufReader<File>) -> Result<Pickle> {
    let left = file.get_ref().metadata().map_err(Error::io(path, "cannot read"))?.len();
    let mut span = Span { start: 0, left };
    let pickle = pickle::read(file, &mut span, false).map_err(|reason| Error::format(path, reason))?;
    if span.left > 0 {
        let reason = format!(
            "{} bytes follow the first pickled object, as where several objects are dumped into one file: pickle one \
             dict, as in pickle.dump({{\"images\": images, \"labels\": labels}}, file)",
            span.left
        );
        return Err(Error::format(path, reason));
    }
    Ok(pickle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickles_are_told_from_other_files() {
        for head in [
            &b"\x80\x04\x95\x10\0\0\0"[..],
            b"\x80\x02}q\0",
            b"(dp0\nS'd",
            b"(lp1\n",
            b"((dp0\n",
            b"ccopy_re",
        ] {
            assert!(begins(head), "{head:?}");
        }
        // Of text, of safetensors with a header of 640 bytes, of images.
        for head in [
            &b"(dear reader)"[..],
            b"category\n1\n",
            b"collect",
            b"\x80\x02\0\0\0\0\0\0{",
            b"\xff\xd8\xff\xe0",
            b"c",
            b"(",
            b"",
        ] {
            assert!(!begins(head), "{head:?}");
        }
    }
}

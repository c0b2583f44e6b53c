//! Formats of images, told by a file's first bytes.

/// How many bytes of a file [`Kind::of`] looks at.
pub(crate) const HEAD: usize = 256;

/// The format of an encoded image. Not all that are known can be read: see [`Kind::is_readable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Png,
    Jpeg,
    WebP,
    Bmp,
    Gif,
    Tiff,
    /// PBM, PGM and PPM, as text or binary.
    Pnm,
    Avif,
    Heic,
    JpegXl,
    Jpeg2000,
    Svg,
    Psd,
    Ico,
    /// Known by its extension alone.
    Tga,
    Pcx,
}

/// The usual extensions of each format, in lower case.
const EXTENSIONS: [(Kind, &[&str]); 16] = [
    (Kind::Png, &["png"]),
    (Kind::Jpeg, &["jpg", "jpeg", "jpe", "jfif"]),
    (Kind::WebP, &["webp"]),
    (Kind::Bmp, &["bmp", "dib"]),
    (Kind::Gif, &["gif"]),
    (Kind::Tiff, &["tif", "tiff"]),
    (Kind::Pnm, &["ppm", "pgm", "pbm", "pnm"]),
    (Kind::Avif, &["avif"]),
    (Kind::Heic, &["heic", "heif"]),
    (Kind::JpegXl, &["jxl"]),
    (Kind::Jpeg2000, &["jp2", "j2k", "jpf", "jpx"]),
    (Kind::Svg, &["svg"]),
    (Kind::Psd, &["psd"]),
    (Kind::Ico, &["ico"]),
    (Kind::Tga, &["tga"]),
    (Kind::Pcx, &["pcx"]),
];

impl Kind {
    /// The format of a file that begins with `head`, its first [`HEAD`] bytes or all of a shorter file.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        let at = |offset: usize, length: usize| head.get(offset..offset + length).unwrap_or_default();
        if starts(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if starts(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if starts(b"RIFF") && at(8, 4) == b"WEBP" {
            Some(Self::WebP)
        } else if starts(b"BM") && is_bitmap_header(at(14, 4)) {
            Some(Self::Bmp)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Some(Self::Gif)
        } else if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].into_iter().any(|magic| starts(magic)) {
            Some(Self::Tiff)
        } else if let [b'P', b'1'..=b'6', b' ' | b'\t'..=b'\r' | b'#', ..] = head {
            Some(Self::Pnm)
        } else if at(4, 4) == b"ftyp" {
            match at(8, 4) {
                b"avif" | b"avis" => Some(Self::Avif),
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                    Some(Self::Heic)
                }
                _ => None,
            }
        } else if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL \r\n\x87\n") {
            Some(Self::JpegXl)
        } else if starts(b"\xff\x4f\xff\x51") || starts(b"\0\0\0\x0cjP  \r\n\x87\n") {
            Some(Self::Jpeg2000)
        } else if starts(b"8BPS") {
            Some(Self::Psd)
        } else if starts(b"<svg") || starts(b"<?xml") && head.windows(4).any(|tag| tag == b"<svg") {
            Some(Self::Svg)
        } else if starts(b"\0\0\x01\0") && at(5, 1) == b"\0" && at(9, 1) == b"\0" {
            Some(Self::Ico)
        } else if let [0x0a, 0 | 2..=5, 1, 1 | 2 | 4 | 8, ..] = head {
            Some(Self::Pcx)
        } else {
            None
        }
    }

    /// The format that files with this extension usually have; its case does not matter.
    pub(crate) fn of_extension(extension: &str) -> Option<Self> {
        let usual = |known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(extension));
        EXTENSIONS.iter().find(|(_, known)| usual(known)).map(|(kind, _)| *kind)
    }

    /// The format's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Pnm => "PPM",
            Self::Avif => "AVIF",
            Self::Heic => "HEIC",
            Self::JpegXl => "JPEG XL",
            Self::Jpeg2000 => "JPEG 2000",
            Self::Svg => "SVG",
            Self::Psd => "Photoshop (PSD)",
            Self::Ico => "ICO",
            Self::Tga => "TGA",
            Self::Pcx => "PCX",
        }
    }

    /// Whether images of this format can be read.
    pub(crate) fn is_readable(self) -> bool {
        match self {
            Self::Png | Self::Jpeg | Self::WebP | Self::Bmp | Self::Gif | Self::Tiff | Self::Pnm => true,
            Self::Avif
            | Self::Heic
            | Self::JpegXl
            | Self::Jpeg2000
            | Self::Svg
            | Self::Psd
            | Self::Ico
            | Self::Tga
            | Self::Pcx => false,
        }
    }
}

/// Whether these four bytes are the size of one of the known bitmap headers: `BM` alone begins many a text.
fn is_bitmap_header(size: &[u8]) -> bool {
    size.try_into()
        .is_ok_and(|size| matches!(u32::from_le_bytes(size), 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// What a file that begins with `head` is, if it is no image of a known format.
pub(super) fn not_an_image(head: &[u8]) -> String {
    let text = head.trim_ascii_start();
    let starts =
        |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    let found = if head.is_empty() {
        "the file is empty"
    } else if head.iter().all(|byte| *byte == 0) {
        "the file begins with zeros, as after an interrupted download"
    } else if starts("version https://git-lfs") {
        "the file is a Git LFS pointer; run `git lfs pull` to get the image"
    } else if starts("<!doctype html") || starts("<html") {
        "the file is an HTML page, perhaps a download that failed"
    } else {
        "expected PNG, JPEG, WebP, BMP, GIF, TIFF or PPM; convert an image of another format to PNG"
    };
    format!("not an image: {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content() {
        for (head, kind) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], Some(Kind::Png)),
            (b"\xff\xd8\xff\xe0", Some(Kind::Jpeg)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some(Kind::WebP)),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", Some(Kind::Bmp)),
            (b"BMW is a maker of cars", None),
            (b"GIF89a", Some(Kind::Gif)),
            (b"II*\0", Some(Kind::Tiff)),
            (b"MM\0+", Some(Kind::Tiff)),
            (b"P6\n2 2\n255\n", Some(Kind::Pnm)),
            (b"P2#", Some(Kind::Pnm)),
            (b"P6", None),
            (b"P64", None),
            (b"\0\0\0\x20ftypavif", Some(Kind::Avif)),
            (b"\0\0\0\x20ftypheic", Some(Kind::Heic)),
            (b"\0\0\0\x20ftypmp42", None),
            (b"\xff\x0a\0", Some(Kind::JpegXl)),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Some(Kind::Jpeg2000)),
            (b"<?xml version=\"1.0\"?>\n<svg xmlns", Some(Kind::Svg)),
            (b"<?xml version=\"1.0\"?>\n<note>", None),
            (b"8BPS\0\x01", Some(Kind::Psd)),
            (b"\0\0\x01\0\x01\0\x10\x10\0\0", Some(Kind::Ico)),
            (b"\x0a\x05\x01\x08", Some(Kind::Pcx)),
            (b"", None),
        ] {
            assert_eq!(Kind::of(head), kind, "{head:?}");
            // A head of any length is looked at without a panic.
            for length in 0..head.len() {
                let _ = Kind::of(&head[..length]);
            }
        }
    }

    #[test]
    fn extensions_name_the_usual_format() {
        assert_eq!(Kind::of_extension("JPEG"), Some(Kind::Jpeg));
        assert_eq!(Kind::of_extension("tif"), Some(Kind::Tiff));
        assert_eq!(Kind::of_extension("txt"), None);
        assert!(Kind::of_extension("webp").is_some_and(Kind::is_readable));
        assert!(!Kind::of_extension("svg").is_some_and(Kind::is_readable));
    }

    #[test]
    fn what_is_no_image_is_named() {
        for (head, word) in [
            (&b""[..], "empty"),
            (&[0; 40], "zeros"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"\n<!DOCTYPE HTML>", "HTML"),
            (b"text", "expected PNG"),
        ] {
            let said = not_an_image(head);
            assert!(said.contains(word), "{said}");
        }
    }
}

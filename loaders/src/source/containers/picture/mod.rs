//! Encoded images: their format by content, their size from the header, and their pixels as RGB.
//!
//! Pixels are those of Pillow's `Image.open(file).convert("RGB")`: grey is repeated, alpha is dropped, and EXIF's
//! orientation is not applied except to TIFF. Files that are cut off or damaged are errors.

mod frames;
mod gif;
mod jpeg;
mod kind;
#[cfg(test)]
mod tests;

use crate::RgbImage;
pub(crate) use crate::pixels::MOST_PIXELS;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use jpeg::Jpeg;
pub(crate) use kind::{HEAD, Kind};
use std::fmt::Display;
use std::io::{BufRead, Cursor, ErrorKind, Read, Seek};
use tiff::tags::Tag;

/// The longest file that is read, and the most memory that a decoder may take, in bytes: far more than an image of the
/// largest size needs.
const MOST_BYTES: u64 = 1 << 28;

/// How much of a JPEG file is read first for its size. The size mostly comes early, but after any amount of metadata.
const JPEG_HEADER: u64 = 1 << 16;

/// Height and width, and whether further frames or pages follow the one that is decoded, from the header alone.
///
/// # Errors
/// If it is not an image that can be read, or too large.
pub(crate) fn look(mut encoded: impl BufRead + Seek) -> Result<([usize; 2], bool), String> {
    let head = read(&mut encoded, HEAD as u64)?;
    encoded.rewind().map_err(cannot_read)?;
    let size = match readable(&head)? {
        kind @ Kind::Jpeg => {
            let mut bytes = read(&mut encoded, JPEG_HEADER)?;
            let known = Jpeg::of_header(&bytes).ok().map(|jpeg| jpeg.size());
            match known {
                Some(size) => size,
                None => {
                    bytes.extend(read_all(&mut encoded)?);
                    Jpeg::of_header(&bytes).map_err(|e| damaged(kind, e))?.size()
                }
            }
        }
        Kind::Gif => gif::size(&head),
        kind => Decoder::new(&mut encoded, kind)?.size(),
    };
    Ok((check(size)?, frames::has_more(readable(&head)?, &head, encoded)))
}

/// Decodes an image, once `accept` has accepted its height and width.
///
/// # Errors
/// If it is not an image that can be read, cut off, damaged or too large, or of a kind whose pixels would come out
/// wrong.
pub(crate) fn decode(
    mut encoded: impl BufRead + Seek,
    accept: impl FnOnce([usize; 2]) -> Result<(), String>,
) -> Result<RgbImage, String> {
    let head = read(&mut encoded, HEAD as u64)?;
    encoded.rewind().map_err(cannot_read)?;
    let kind = readable(&head)?;
    let accepted = |size| check(size).and_then(|size| accept(size).map(|()| size));
    let ([height, width], rgb) = match kind {
        Kind::Jpeg => {
            let mut bytes = read_all(&mut encoded)?;
            let jpeg = Jpeg::new(&mut bytes).map_err(|e| damaged(kind, e))?;
            let size = accepted(jpeg.size())?;
            (size, jpeg.decode().map_err(|e| damaged(kind, e))?)
        }
        Kind::Gif => {
            let bytes = read_all(&mut encoded)?;
            let size = accepted(gif::size(&bytes))?;
            (size, gif::decode(&bytes, size).map_err(|e| damaged(kind, e))?)
        }
        Kind::Png | Kind::Pnm => Decoder::new(&mut encoded, kind)?.decode(accepted)?,
        _ => {
            let bytes = read_all(&mut encoded)?;
            if kind == Kind::WebP && is_cut_webp(&bytes) {
                return Err(damaged(kind, "it is shorter than its header says"));
            }
            Decoder::new(Cursor::new(&bytes), kind)?.decode(accepted)?
        }
    };
    RgbImage::new(width, height, rgb).map_err(|e| damaged(kind, e))
}

/// A decoder of the crate `image`, which has read the header.
struct Decoder<D> {
    kind: Kind,
    inner: D,
    orientation: Orientation,
}

impl Decoder<()> {
    fn new<'a>(
        mut encoded: impl BufRead + Seek + 'a,
        kind: Kind,
    ) -> Result<Decoder<impl ImageDecoder + 'a>, String> {
        let format = match kind {
            Kind::Png => ImageFormat::Png,
            Kind::WebP => ImageFormat::WebP,
            Kind::Bmp => ImageFormat::Bmp,
            Kind::Tiff => ImageFormat::Tiff,
            Kind::Pnm => ImageFormat::Pnm,
            _ => return Err(unsupported(kind, "")),
        };
        if matches!(kind, Kind::Bmp | Kind::Tiff) {
            if let Some(what) = misread(kind, &mut encoded) {
                return Err(unsupported(kind, what));
            }
            encoded.rewind().map_err(cannot_read)?;
        }
        let mut reader = ImageReader::with_format(encoded, format);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MOST_BYTES);
        reader.limits(limits);
        let mut inner = reader.into_decoder().map_err(|e| unreadable(kind, &e))?;
        let mut orientation = Orientation::NoTransforms;
        if kind == Kind::Tiff {
            // Values of more than 8 bits have no range that one could rely on, unlike those of PNG.
            use ExtendedColorType::{Cmyk8, L1, L8, La8, Rgb8, Rgba8};
            if !matches!(inner.original_color_type(), L1 | L8 | La8 | Rgb8 | Rgba8 | Cmyk8) {
                return Err(unsupported(kind, " with more than 8 bits a channel"));
            }
            orientation = inner.orientation().map_err(|e| unreadable(kind, &e))?;
        }
        Ok(Decoder { kind, inner, orientation })
    }
}

impl<D: ImageDecoder> Decoder<D> {
    /// Height and width of what is decoded.
    fn size(&self) -> [usize; 2] {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let (width, height) = self.inner.dimensions();
        let [height, width] = [height as usize, width as usize];
        match self.orientation {
            Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => [width, height],
            _ => [height, width],
        }
    }

    /// The size, once it is accepted, and the pixels.
    fn decode(
        self,
        accepted: impl FnOnce([usize; 2]) -> Result<[usize; 2], String>,
    ) -> Result<([usize; 2], Vec<u8>), String> {
        let size = accepted(self.size())?;
        let mut image = DynamicImage::from_decoder(self.inner).map_err(|e| unreadable(self.kind, &e))?;
        image.apply_orientation(self.orientation);
        Ok((size, image.into_rgb8().into_raw()))
    }
}

/// The format of a file that begins with `head`, if it can be read.
fn readable(head: &[u8]) -> Result<Kind, String> {
    match Kind::of(head) {
        Some(kind) if kind.is_readable() => Ok(kind),
        Some(kind) => Err(unsupported(kind, "")),
        None => Err(kind::not_an_image(head)),
    }
}

fn check([height, width]: [usize; 2]) -> Result<[usize; 2], String> {
    if height.saturating_mul(width) as u64 > MOST_PIXELS {
        return Err(format!("{width} x {height} pixels, where at most {MOST_PIXELS} in all are read"));
    }
    Ok([height, width])
}

/// Whether a WebP file ends before the length in its header: decoders miss that where the rest is not needed.
fn is_cut_webp(bytes: &[u8]) -> bool {
    let length = bytes.get(4..8).and_then(|length| length.try_into().ok()).map_or(0, u32::from_le_bytes);
    (bytes.len() as u64) < 8 + u64::from(length)
}

/// What an image has that its decoder would take for something else without a word.
fn misread(kind: Kind, mut encoded: impl BufRead + Seek) -> Option<&'static str> {
    match kind {
        Kind::Bmp => {
            let head = read(&mut encoded, 34).ok()?;
            // Rows may end early, and what color the rest has is for the reader to say.
            let (header, compression) = (head.get(14..18)?, head.get(30..34)?);
            let is_packed = header != [12, 0, 0, 0] && matches!(compression, [1 | 2, 0, 0, 0]);
            is_packed.then_some(" with run-length encoding")
        }
        Kind::Tiff => {
            let mut tiff = tiff::decoder::Decoder::new(encoded).ok()?;
            let mut has = |tag, value: u16| {
                let values = tiff.find_tag_unsigned_vec::<u16>(tag).ok().flatten();
                values.is_some_and(|values| values.contains(&value))
            };
            if has(Tag::Compression, 6) || has(Tag::Compression, 7) {
                // The decoder checks neither the size nor the end of such data.
                Some(" with JPEG compression")
            } else if has(Tag::FillOrder, 2) {
                Some(" with reversed bits")
            } else {
                has(Tag::ExtraSamples, 1).then_some(" with premultiplied alpha")
            }
        }
        _ => None,
    }
}

fn read(encoded: &mut impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    encoded.take(most).read_to_end(&mut bytes).map_err(cannot_read)?;
    Ok(bytes)
}

fn read_all(encoded: &mut impl Read) -> Result<Vec<u8>, String> {
    let bytes = read(encoded, MOST_BYTES + 1)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("the file is longer than {MOST_BYTES} bytes, the most that is read of an image"));
    }
    Ok(bytes)
}

fn cannot_read(error: std::io::Error) -> String {
    format!("cannot read: {error}")
}

fn damaged(kind: Kind, reason: impl Display) -> String {
    format!("the {} image is cut off or damaged: {reason}", kind.name())
}

fn unsupported(kind: Kind, what: &str) -> String {
    format!("{} images{what} cannot be read: convert the file to PNG with 8 bits a channel", kind.name())
}

fn unreadable(kind: Kind, error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => format!("{} ({error})", unsupported(kind, " of this kind")),
        ImageError::Limits(_) => {
            format!("the {} image needs more than {MOST_BYTES} bytes of memory", kind.name())
        }
        ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => damaged(kind, "it ends too early"),
        _ => damaged(kind, error),
    }
}

//! JPEG images, whole ones only.
//!
//! Decoders of JPEG fill what is missing with grey and say nothing, so a file is checked here: its end mark must be
//! there, as Pillow demands in effect, and the image data must reach to the last row.

use memchr::memchr;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

/// What comes after 0xff in the markers that matter here.
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;
const PROGRESSIVE: u8 = 0xc2;

/// How far the decoder reads ahead of the bits that it decodes, in bytes: it holds 64 bits.
const READ_AHEAD: usize = 8;

/// A whole file, whose header has been read.
pub(super) struct Jpeg<'a>(JpegDecoder<ZCursor<&'a [u8]>>);

impl<'a> Jpeg<'a> {
    /// Reads a file whose end mark is there. The bytes are changed.
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Result<Self, String> {
        let layout = Layout::of(bytes)?;
        if layout.is_one_scan {
            // At an end mark the decoder goes on with zeros, but the end of the bytes is an error in strict mode.
            bytes.truncate(layout.end);
            bytes.resize(layout.end + READ_AHEAD, 0);
        }
        Self::of_header(bytes)
    }

    /// Reads a header; what follows it may be missing, and must not be decoded. Harmless oddities are let pass.
    pub(super) fn of_header(bytes: &'a [u8]) -> Result<Self, String> {
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::from(u16::MAX))
            .set_max_height(usize::from(u16::MAX));
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(said)?;
        Ok(Self(decoder))
    }

    /// Height and width.
    pub(super) fn size(&self) -> [usize; 2] {
        self.0.dimensions().map_or([0, 0], |(width, height)| [height, width])
    }

    /// The pixels, `[height, width, 3]`.
    pub(super) fn decode(self) -> Result<Vec<u8>, String> {
        let Self(mut decoder) = self;
        let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
        let space = if is_grey { ColorSpace::Luma } else { ColorSpace::RGB };
        decoder.set_options(decoder.options().jpeg_set_out_colorspace(space).set_strict_mode(true));
        let pixels = decoder.decode().map_err(said)?;
        Ok(if is_grey { pixels.into_iter().flat_map(|grey| [grey; 3]).collect() } else { pixels })
    }
}

/// Where the parts of a file lie.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Offset of the end mark.
    end: usize,
    /// Whether all image data is one sequential scan that goes to the end mark.
    is_one_scan: bool,
}

impl Layout {
    /// Goes from marker to marker up to the end mark; what follows that does not matter.
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let (mut scans, mut is_progressive, mut after_scan) = (0, false, false);
        let mut at = 2;
        loop {
            let marker = next_marker(bytes, at)?;
            match bytes[marker] {
                END => {
                    let is_one_scan = scans == 1 && after_scan && !is_progressive;
                    return Ok(Self { end: marker - 1, is_one_scan });
                }
                // Restarts within image data, and what has no content.
                0x01 | 0xd0..=0xd8 => at = marker + 1,
                0x02..=0xbf | 0xf0..=0xfd => {
                    return Err(format!("it has an unknown marker 0xff{:02x}", bytes[marker]));
                }
                kind => {
                    is_progressive |= kind == PROGRESSIVE;
                    after_scan = kind == SCAN;
                    scans += usize::from(after_scan);
                    let length = bytes.get(marker + 1..marker + 3).ok_or_else(cut)?;
                    at = marker + 1 + usize::from(length[0]) * 256 + usize::from(length[1]);
                }
            }
        }
    }
}

/// Offset of the first byte after 0xff that makes a marker: not 0, which stands for 0xff in image data.
fn next_marker(bytes: &[u8], from: usize) -> Result<usize, String> {
    let mut at = from;
    loop {
        at += memchr(0xff, bytes.get(at..).ok_or_else(cut)?).ok_or_else(cut)?;
        // Any number of 0xff may come before a marker.
        at += bytes[at..].iter().position(|byte| *byte != 0xff).ok_or_else(cut)?;
        if bytes[at] != 0 {
            return Ok(at);
        }
    }
}

fn cut() -> String {
    "its end mark is missing".to_owned()
}

/// The crate's error without the quotes that it puts around some.
fn said(error: DecodeErrors) -> String {
    match error {
        DecodeErrors::Format(reason) => reason,
        DecodeErrors::FormatStatic(reason) => reason.to_owned(),
        DecodeErrors::ExhaustedData => "its image data ends too early".to_owned(),
        other => other.to_string(),
    }
}

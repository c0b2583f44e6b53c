//! PNG and JPEG images of one size, decoded on demand.

use crate::pixels;
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::io::{BufRead, Seek};

/// Sets of at most this many images have all headers read when they are opened, so that a wrong one is found
/// before training begins; larger ones have each image checked as it is read.
pub(super) const CHECKED_AT_OPEN: usize = 1000;

/// Height and width, from the header alone.
pub(super) fn size(encoded: impl BufRead + Seek) -> Result<[usize; 2], String> {
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|e| format!("cannot read: {e}"))?;
    let (width, height) = reader.into_dimensions().map_err(unreadable)?;
    Ok([height as usize, width as usize])
}

/// Decodes an image of the set's size to planar RGB, `[3, H, W]`. Grey is repeated, alpha dropped.
pub(super) fn planar(encoded: impl BufRead + Seek, expected: [usize; 2]) -> Result<Vec<u8>, String> {
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|e| format!("cannot read: {e}"))?;
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    check([height as usize, width as usize], expected)?;
    let rgb = DynamicImage::from_decoder(decoder).map_err(unreadable)?.into_rgb8().into_raw();
    Ok(pixels::planar(&rgb))
}

/// Compares an image's size with the set's.
pub(super) fn check(size: [usize; 2], expected: [usize; 2]) -> Result<(), String> {
    if size == expected {
        return Ok(());
    }
    let ([height, width], [expected_height, expected_width]) = (size, expected);
    Err(format!(
        "{width} x {height} pixels where the first image has {expected_width} x {expected_height}: \
         all images of a set must have one size"
    ))
}

fn unreadable(error: image::ImageError) -> String {
    format!("not a PNG or JPEG image that can be read: {error}")
}

//! PNG and JPEG images of one size, decoded on demand.

use super::super::{Label, Sample, Source, SourceInfo, StoredPixels};
use crate::{Error, Result, pixels};
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::fmt::Debug;
use std::io::{BufRead, Seek};

/// Sets of at most this many images have all headers read when they are opened, so that a wrong one is found
/// before training begins; larger ones have each image checked as it is read.
const CHECKED_AT_OPEN: usize = 1000;

/// The most pixels of an image, 4096 x 4096: a few bytes can claim to be an image of any size, and memory is taken for
/// that before the rest is looked at.
const MOST_PIXELS: u64 = 1 << 24;

/// Where the encoded images of a set are.
pub(crate) trait Encoded: Debug + Send + Sync {
    /// The bytes of image `index`, which exists.
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek>;

    /// The error for image `index`.
    fn refused(&self, index: usize, reason: String) -> Error;
}

/// Encoded images with their labels, decoded when they are read.
#[derive(Debug)]
pub(crate) struct EncodedSet<E> {
    info: SourceInfo,
    labels: Vec<Label>,
    images: E,
}

impl<E: Encoded> EncodedSet<E> {
    /// Takes the size of the first image for `info`; there is at least one.
    ///
    /// # Errors
    /// If an image that is looked at cannot be read, or has another size.
    pub(crate) fn new(info: SourceInfo, labels: Vec<Label>, images: E) -> Result<Self> {
        let size = |index| size(images.reader(index)?).map_err(|reason| images.refused(index, reason));
        let [height, width] = size(0)?;
        if labels.len() <= CHECKED_AT_OPEN {
            for index in 1..labels.len() {
                check(size(index)?, [height, width]).map_err(|reason| images.refused(index, reason))?;
            }
        }
        Ok(Self { info: SourceInfo { shape: [3, height, width], ..info }, labels, images })
    }
}

impl<E: Encoded> Source for EncodedSet<E> {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.labels.get(index).cloned().ok_or_else(|| self.info.no_sample(index))
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let label = self.label(index)?;
        let [_, height, width] = self.info.shape;
        let pixels = planar(self.images.reader(index)?, [height, width])
            .map_err(|reason| self.images.refused(index, reason))?;
        Ok(Sample { pixels: StoredPixels::U8(pixels), shape: self.info.shape, label })
    }
}

/// Height and width, from the header alone.
fn size(encoded: impl BufRead + Seek) -> Result<[usize; 2], String> {
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|e| format!("cannot read: {e}"))?;
    let (width, height) = reader.into_dimensions().map_err(unreadable)?;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("{width} x {height} pixels, where at most {MOST_PIXELS} in all are read"));
    }
    Ok([height as usize, width as usize])
}

/// Decodes an image of the set's size to planar RGB, `[3, H, W]`. Grey is repeated, alpha dropped.
fn planar(encoded: impl BufRead + Seek, expected: [usize; 2]) -> Result<Vec<u8>, String> {
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|e| format!("cannot read: {e}"))?;
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    check([height as usize, width as usize], expected)?;
    let rgb = DynamicImage::from_decoder(decoder).map_err(unreadable)?.into_rgb8().into_raw();
    Ok(pixels::planar(&rgb))
}

/// Compares an image's size with the set's.
fn check(size: [usize; 2], expected: [usize; 2]) -> Result<(), String> {
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

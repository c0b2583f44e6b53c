//! Images and the normalisation of their values.

use crate::{Error, Result};
use fast_image_resize as fir;
use image::codecs::png::PngDecoder;
use image::{ImageDecoder, ImageEncoder as _, ImageError, ImageResult};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// The most pixels of an image, 4096 x 4096: a few bytes can claim to be an image of any size, and memory is taken for
/// that before the rest is looked at.
pub(crate) const MOST_PIXELS: u64 = 1 << 24;

/// Per-channel `(x - mean) / std`, from pixels in [0, 1] to the space that a network is trained in.
///
/// ```
/// use diver_loaders::Normalize;
///
/// let cifar10 = Normalize::new([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])?;
/// assert_eq!(cifar10.apply(0, 0.4914), 0.0);
/// assert!(Normalize::new([0.5; 3], [0.0; 3]).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// Mean of each channel, in [0, 1] pixel units.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, above 0, in [0, 1] pixel units.
    pub std: [f32; 3],
}

impl Normalize {
    /// ImageNet's constants, as torchvision gives them.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// What constants of pixels in [0, 1] stay below by far.
    const LARGEST: f32 = 2.0;

    /// Constants of three channels (R, G, B).
    ///
    /// # Errors
    /// If a mean is not finite, or a standard deviation not finite and above 0; if they are those of pixels from 0 to
    /// 255.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Result<Self> {
        if mean.iter().any(|m| !m.is_finite()) || std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::config(
                "normalization",
                format!("mean {mean:?} must be finite and std {std:?} finite and above 0"),
            ));
        }
        // Of values in [0, 1], neither can be above 1; of bytes, hardly any is below 10.
        if mean.iter().chain(&std).any(|constant| constant.abs() > Self::LARGEST) {
            let reason = format!(
                "mean {mean:?} and std {std:?} are not in units of pixels in [0, 1]: divide both by 255 if they are those \
                 of pixels from 0 to 255"
            );
            return Err(Error::config("normalization", reason));
        }
        Ok(Self { mean, std })
    }

    /// A pixel value in [0, 1] of channel `channel` (0, 1 or 2) to its normalised value.
    pub fn apply(&self, channel: usize, pixel: f32) -> f32 {
        (pixel - self.mean[channel]) / self.std[channel]
    }

    /// A normalised value of channel `channel` (0, 1 or 2) to its pixel value; not clamped.
    pub fn invert(&self, channel: usize, value: f32) -> f32 {
        value * self.std[channel] + self.mean[channel]
    }
}

/// Interleaved RGB bytes, `[H, W, 3]`, as planes, `[3, H, W]`.
pub(crate) fn planar(interleaved: &[u8]) -> Vec<u8> {
    let (pixels, _) = interleaved.as_chunks::<3>();
    let mut planes = Vec::with_capacity(interleaved.len());
    for channel in 0..3 {
        planes.extend(pixels.iter().map(|pixel| pixel[channel]));
    }
    planes
}

/// An RGB image of 8 bits a channel, rows of interleaved pixels: `[height, width, 3]`.
///
/// ```
/// use diver_loaders::RgbImage;
///
/// let image = RgbImage::new(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// assert_eq!(RgbImage::from_png(&image.to_png()?)?, image);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl RgbImage {
    /// An image from its `height * width * 3` bytes.
    ///
    /// # Errors
    /// If a side is 0 or the number of bytes does not fit.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if width == 0 || height == 0 || expected != Some(data.len()) {
            return Err(Error::config(
                "image",
                format!("{} bytes do not make an RGB image of {width} x {height}", data.len()),
            ));
        }
        Ok(Self { width, height, data })
    }

    /// Rounds planar values (`[3, height, width]`, in [0, 1], clamped) to 8 bits.
    ///
    /// # Errors
    /// If a side is 0 or the number of values does not fit.
    pub fn from_planar(width: usize, height: usize, planar: &[f32]) -> Result<Self> {
        let area = width * height;
        let mut data = vec![0; planar.len()];
        if planar.len() == 3 * area {
            for (pixel, out) in data.chunks_exact_mut(3).enumerate() {
                for (channel, byte) in out.iter_mut().enumerate() {
                    *byte = (planar[channel * area + pixel].clamp(0.0, 1.0) * 255.0).round() as u8;
                }
            }
        }
        Self::new(width, height, data)
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// The value of one channel of one pixel in [0, 1].
    pub fn unit(&self, channel: usize, row: usize, column: usize) -> f32 {
        f32::from(self.data[(row * self.width + column) * 3 + channel]) / 255.0
    }

    /// The same picture at another size: antialiased triangle filter, as PIL's and torchvision's default.
    ///
    /// # Errors
    /// If a side is 0.
    pub fn resized(&self, width: usize, height: usize) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let sides = [self.width, self.height, width, height].map(u32::try_from);
        let [Ok(from_w), Ok(from_h), Ok(to_w), Ok(to_h)] = sides else {
            return Err(Error::config("image", format!("cannot resize to {width} x {height}")));
        };
        let resize = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let from = fir::images::ImageRef::new(from_w, from_h, &self.data, fir::PixelType::U8x3)?;
            let mut to = fir::images::Image::new(to_w, to_h, fir::PixelType::U8x3);
            let filter = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
            let options = fir::ResizeOptions::new().resize_alg(filter);
            fir::Resizer::new().resize(&from, &mut to, &options)?;
            Ok(to.into_vec())
        };
        let data = resize().map_err(|e| Error::config("image", format!("cannot resize: {e}")))?;
        Self::new(width, height, data)
    }

    /// The image as a PNG file (lossless).
    ///
    /// # Errors
    /// If the encoder fails, which memory alone can cause.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(
                &self.data,
                u32::try_from(self.width).unwrap_or(u32::MAX),
                u32::try_from(self.height).unwrap_or(u32::MAX),
                image::ExtendedColorType::Rgb8,
            )
            .map_err(|e| Error::config("image", format!("cannot encode as PNG: {e}")))?;
        Ok(png)
    }

    /// Decodes a PNG file. Grey, alpha and 16-bit images are converted to 8-bit RGB.
    ///
    /// # Errors
    /// If the bytes are no PNG file, or one of more than 4096 x 4096 pixels.
    pub fn from_png(png: &[u8]) -> Result<Self> {
        let decoder = PngDecoder::new(Cursor::new(png));
        decoder
            .and_then(Self::from_decoder)
            .map_err(|e| Error::config("image", format!("not a PNG image: {e}")))
    }

    /// What a decoder holds, unless it claims to be larger than an image is.
    pub(crate) fn from_decoder(decoder: impl ImageDecoder) -> ImageResult<Self> {
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            let reason = format!("{width} x {height} pixels, where at most {MOST_PIXELS} in all are read");
            return Err(ImageError::IoError(std::io::Error::other(reason)));
        }
        let decoded = image::DynamicImage::from_decoder(decoder)?.into_rgb8();
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let made = Self::new(width, height, decoded.into_raw());
        made.map_err(|error| ImageError::IoError(std::io::Error::other(error.to_string())))
    }
}

/// Resizes planar floats `[channels, from.0, from.1]` to `[channels, to.0, to.1]` with an antialiased triangle
/// filter; values keep their range.
pub(crate) fn resize_planar(
    values: &[f32],
    channels: usize,
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Vec<f32>> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::config(
            "image_size",
            format!("cannot resize {} x {} to {} x {}: {e}", from.0, from.1, to.0, to.1),
        )
    };
    let side = |n: usize| u32::try_from(n).map_err(|e| failed(&e));
    let (from_h, from_w, to_h, to_w) = (side(from.0)?, side(from.1)?, side(to.0)?, side(to.1)?);
    let options =
        fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    let mut resizer = fir::Resizer::new();
    let mut resized = Vec::with_capacity(channels * to.0 * to.1);
    for plane in values.chunks_exact(from.0 * from.1) {
        let bytes: Vec<u8> = plane.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let image = fir::images::Image::from_vec_u8(from_w, from_h, bytes, fir::PixelType::F32)
            .map_err(|e| failed(&e))?;
        let mut out = fir::images::Image::new(to_w, to_h, fir::PixelType::F32);
        resizer.resize(&image, &mut out, &options).map_err(|e| failed(&e))?;
        resized.extend(out.buffer().chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
    }
    Ok(resized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_that_claims_to_be_large_is_refused_before_it_is_decoded() {
        let mut png = RgbImage::new(1, 1, vec![0; 3]).unwrap().to_png().unwrap();
        let side = 13_000_u32.to_be_bytes();
        // In the first chunk, after its length and type; its checksum follows 5 bytes more.
        png[16..24].copy_from_slice(&[side, side].concat());
        let checksum = crc32fast::hash(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = RgbImage::from_png(&png).unwrap_err().to_string();
        assert!(error.contains("13000 x 13000 pixels"), "{error}");
    }
}

//! Decoded images as batches take them.

use crate::kernels::scale_bytes;
use crate::pixels::planar;
use crate::{Normalize, Result, RgbImage};

/// An image of bytes with its channels one after the other, `[3, height, width]`: so a batch is filled in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

impl From<&RgbImage> for Planes {
    fn from(image: &RgbImage) -> Self {
        Self { height: image.height(), width: image.width(), bytes: planar(image.as_bytes()) }
    }
}

impl Planes {
    /// An image as planes of this height and width, resized if it has others.
    ///
    /// # Errors
    /// If a side is 0.
    pub(crate) fn of(image: &RgbImage, (height, width): (usize, usize)) -> Result<Self> {
        if (image.height(), image.width()) == (height, width) {
            return Ok(image.into());
        }
        Ok((&image.resized(width, height)?).into())
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The image with its channels interleaved.
    pub(crate) fn to_rgb(&self) -> Result<RgbImage> {
        let area = self.height * self.width;
        let interleaved = (0..area).flat_map(|at| [0, area, 2 * area].map(|plane| self.bytes[plane + at]));
        RgbImage::new(self.width, self.height, interleaved.collect())
    }

    /// Writes the normalised values, `[3, height, width]`; into `[1, height, width]` the mean of the three channels.
    pub(crate) fn write(&self, out: &mut [f32], scale: &Scale) {
        let area = self.height * self.width;
        let channel = |channel: usize| (&self.bytes[channel * area..(channel + 1) * area], scale.0[channel]);
        if out.len() == area {
            let (red, [zero, scale]) = channel(0);
            let ((green, _), (blue, _)) = (channel(1), channel(2));
            for (value, ((r, g), b)) in out.iter_mut().zip(red.iter().zip(green).zip(blue)) {
                let sum = u16::from(*r) + u16::from(*g) + u16::from(*b);
                *value = (f32::from(sum) / 3.0 - zero) * scale;
            }
            return;
        }
        for (number, out) in out.chunks_exact_mut(area).enumerate() {
            let (bytes, [zero, scale]) = channel(number);
            scale_bytes(bytes, zero, scale, out);
        }
    }
}

/// From bytes to normalised values: for each channel `[255 mean, 1 / (255 std)]`, which is taken from a byte and which the
/// rest is multiplied by. Within the last digit of what [`Normalize::apply`] gives, and three times as fast.
#[derive(Debug)]
pub(crate) struct Scale([[f32; 2]; 3]);

impl Scale {
    pub(crate) fn new(normalize: &Normalize) -> Self {
        Self(std::array::from_fn(|channel| {
            let (mean, std) = (f64::from(normalize.mean[channel]), f64::from(normalize.std[channel]));
            [(255.0 * mean) as f32, (1.0 / (255.0 * std)) as f32]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_planes_of_values() {
        let image = RgbImage::new(2, 1, vec![0, 1, 2, 255, 254, 253]).unwrap();
        let planes = Planes::from(&image);
        let scale = Scale([[0.0, 1.0], [-1000.0, 1.0], [-2000.0, 1.0]]);
        let mut out = [0.0; 6];
        planes.write(&mut out, &scale);
        assert_eq!(out, [0.0, 255.0, 1001.0, 1254.0, 2002.0, 2253.0]);
        let mut grey = [0.0; 2];
        planes.write(&mut grey, &scale);
        assert_eq!(grey, [1.0, 254.0]);
        assert_eq!(planes.to_rgb().unwrap(), image);
    }

    #[test]
    fn values_are_normalised() {
        let normalize = Normalize::IMAGENET;
        let bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte; 3]).collect();
        let mut out = vec![0.0; 3 * 256];
        Planes::from(&RgbImage::new(256, 1, bytes).unwrap()).write(&mut out, &Scale::new(&normalize));
        for (at, value) in out.iter().enumerate() {
            let exact = normalize.apply(at / 256, (at % 256) as f32 / 255.0);
            assert!((value - exact).abs() <= 5e-7, "{value} for {exact}");
        }
    }
}

//! Decoded images as batches take them.

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

    /// Writes the values of `table` for each byte, `[3, height, width]`; into `[1, height, width]` the mean of the three
    /// channels.
    pub(crate) fn write(&self, out: &mut [f32], table: &Table) {
        let area = self.height * self.width;
        if out.len() == area {
            let (red, rest) = self.bytes.split_at(area);
            let (green, blue) = rest.split_at(area);
            let Table([table, ..]) = table;
            for (value, ((r, g), b)) in out.iter_mut().zip(red.iter().zip(green).zip(blue)) {
                *value = (table[usize::from(*r)] + table[usize::from(*g)] + table[usize::from(*b)]) / 3.0;
            }
            return;
        }
        let planes = out.chunks_exact_mut(area).zip(self.bytes.chunks_exact(area));
        for ((out, bytes), table) in planes.zip(&table.0) {
            for (value, byte) in out.iter_mut().zip(bytes) {
                *value = table[usize::from(*byte)];
            }
        }
    }
}

/// The normalised value of each byte, for each channel.
#[derive(Debug)]
pub(crate) struct Table([[f32; 256]; 3]);

impl Table {
    pub(crate) fn new(normalize: &Normalize) -> Self {
        Self(std::array::from_fn(|channel| {
            std::array::from_fn(|byte| normalize.apply(channel, byte as f32 / 255.0))
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
        let table =
            Table(std::array::from_fn(|c| std::array::from_fn(|byte| byte as f32 + 1000.0 * c as f32)));
        let mut out = [0.0; 6];
        planes.write(&mut out, &table);
        assert_eq!(out, [0.0, 255.0, 1001.0, 1254.0, 2002.0, 2253.0]);
        let mut grey = [0.0; 2];
        planes.write(&mut grey, &table);
        assert_eq!(grey, [1.0, 254.0]);
        assert_eq!(planes.to_rgb().unwrap(), image);
    }
}

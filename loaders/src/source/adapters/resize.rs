//! How images of several sizes become images of one.

use crate::source::options::{Fit, OpenOptions};
use crate::{Error, Result, RgbImage};

/// A size, and how images are brought to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    /// Height and width.
    pub(crate) size: [usize; 2],
    pub(crate) fit: Fit,
}

impl Resize {
    /// What the options ask for.
    pub(crate) fn of(options: &OpenOptions) -> Option<Self> {
        options.size().map(|(size, fit)| Self { size, fit })
    }

    /// The image at this size: bilinear and antialiased, as Pillow and torchvision resize.
    ///
    /// # Errors
    /// If the image, scaled to cover the size, has more than `most_pixels`.
    pub(crate) fn apply(self, image: &RgbImage, most_pixels: u64) -> Result<RgbImage> {
        let [height, width] = self.size;
        if self.fit == Fit::Stretch {
            return image.resized(width, height);
        }
        let [scaled_height, scaled_width] = covering([image.height(), image.width()], self.size);
        if scaled_height.saturating_mul(scaled_width) as u64 > most_pixels {
            let reason = format!(
                "{width} x {height} is too large for an image of {} x {} pixels, which would be scaled to \
                 {scaled_width} x {scaled_height}",
                image.width(),
                image.height(),
            );
            return Err(Error::config("image_size", reason));
        }
        let scaled = image.resized(scaled_width, scaled_height)?;
        let (top, left) = (offset(scaled_height - height), offset(scaled_width - width));
        let rows = scaled.as_bytes().chunks_exact(scaled_width * 3).skip(top).take(height);
        let pixels = rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect();
        RgbImage::new(width, height, pixels)
    }
}

/// The smallest size with the shape of `from` that covers `to`; the longer side is rounded down.
fn covering(from: [usize; 2], to: [usize; 2]) -> [usize; 2] {
    let ([height, width], [to_height, to_width]) = (from, to);
    if to_height * width >= to_width * height {
        [to_height, to_height * width / height]
    } else {
        [to_width * height / width, to_width]
    }
}

/// What is cut off before the centre: half of the excess, rounded to even as Python's `round` does.
fn offset(excess: usize) -> usize {
    let half = excess / 2;
    half + excess % 2 * (half % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_offsets_are_torchvisions() {
        for (from, to, scaled) in [
            ([375, 500], [224, 224], [224, 298]),
            ([500, 333], [224, 224], [336, 224]),
            ([64, 64], [32, 32], [32, 32]),
            ([3, 5], [7, 7], [7, 11]),
            // Oblong sizes: the side that needs the larger factor decides.
            ([100, 100], [50, 20], [50, 50]),
            ([100, 200], [50, 20], [50, 100]),
            ([100, 200], [20, 50], [25, 50]),
        ] {
            assert_eq!(covering(from, to), scaled, "{from:?} to {to:?}");
        }
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(offset), [0, 0, 1, 2, 2, 2, 4]);
    }

    /// An image whose channels change in different ways.
    fn image(width: usize, height: usize) -> RgbImage {
        let pixels = (0..height).flat_map(|y| {
            (0..width)
                .flat_map(move |x| [x * 37 + y * 11, y * 53 + x * x, x * y * 19 + 7].map(|value| value as u8))
        });
        RgbImage::new(width, height, pixels.collect()).unwrap()
    }

    #[test]
    fn pixels_are_pillows() {
        // Of `Image.resize(..., BILINEAR)`, and of torchvision's `Resize` and `CenterCrop` on it.
        let cases: [(&RgbImage, [usize; 2], Fit, &[u8]); 4] = [
            (
                &image(7, 5),
                [4, 3],
                Fit::Stretch,
                &[
                    35, 114, 193, 48, 127, 206, 60, 139, 218, 73, 152, 163, 14, 23, 40, 76, 85, 102, 138,
                    147, 164, 200, 209, 226, 11, 21, 32, 30, 88, 145, 49, 145, 142, 68, 161, 131,
                ],
            ),
            (
                &image(7, 5),
                [3, 3],
                Fit::Crop,
                &[
                    24, 82, 150, 41, 99, 167, 58, 116, 184, 24, 28, 39, 107, 111, 122, 190, 194, 205, 11, 24,
                    39, 27, 86, 144, 43, 148, 146,
                ],
            ),
            (
                &image(4, 9),
                [3, 3],
                Fit::Crop,
                &[
                    46, 91, 135, 64, 109, 153, 79, 124, 168, 171, 174, 179, 83, 86, 91, 74, 77, 82, 25, 99,
                    172, 34, 144, 133, 42, 142, 122,
                ],
            ),
            (
                &image(4, 9),
                [2, 4],
                Fit::Crop,
                &[
                    44, 81, 118, 155, 55, 92, 129, 166, 212, 213, 216, 221, 9, 10, 13, 18, 7, 83, 159, 235,
                    7, 102, 197, 36,
                ],
            ),
        ];
        for (image, size, fit, expected) in cases {
            let resized = Resize { size, fit }.apply(image, 1 << 24).unwrap();
            let planes = crate::pixels::planar(resized.as_bytes());
            let differences = planes.iter().zip(expected).map(|(ours, theirs)| ours.abs_diff(*theirs));
            assert!(
                planes.len() == expected.len() && differences.max() <= Some(1),
                "{size:?} {fit:?}: {planes:?}"
            );
        }
    }

    #[test]
    fn an_image_that_is_too_oblong_to_crop_is_refused() {
        let line = image(1000, 1);
        let crop = Resize { size: [100, 100], fit: Fit::Crop };
        let error = crop.apply(&line, 1 << 20).unwrap_err().to_string();
        assert!(error.starts_with("image_size") && error.contains("1000 x 1"), "{error}");
        let stretched = Resize { fit: Fit::Stretch, ..crop }.apply(&line, 1 << 20).unwrap();
        assert_eq!((stretched.width(), stretched.height()), (100, 100));
    }
}

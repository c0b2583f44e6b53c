//! Random crops, resized to the size of the image.

use super::draws::Draws;
use crate::pixels::resize_planar;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cuts a random part out of every image and resizes it to the image's size: torchvision's `RandomResizedCrop`, with its
/// antialiased bilinear filter.
///
/// ```
/// use diver_loaders::augment::RandomResizedCrop;
///
/// assert_eq!(RandomResizedCrop::default(), RandomResizedCrop::new([0.08, 1.0], [0.75, 4.0 / 3.0])?);
/// assert!(RandomResizedCrop::new([1.0, 0.5], [1.0, 1.0]).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// The least and the largest area of the part, as shares of the image's area, above 0 and at most 1.
    scale: [f64; 2],
    /// The least and the largest ratio of the part's width to its height, above 0.
    ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl RandomResizedCrop {
    /// How often torchvision draws a part before it takes the middle of the image.
    const TRIES: usize = 10;

    /// Crops whose share of the image's area lies in `scale` (default: 0.08 to 1), and whose ratio of width to height
    /// lies in `ratio` (default: 3/4 to 4/3).
    ///
    /// # Errors
    /// If a range is not finite, positive and in order, or if `scale` exceeds 1.
    pub fn new(scale: [f64; 2], ratio: [f64; 2]) -> Result<Self> {
        let crop = Self { scale, ratio };
        crop.check()?;
        Ok(crop)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (option, [least, most], limit) in [("scale", self.scale, 1.0), ("ratio", self.ratio, f64::MAX)] {
            if least > most {
                let reason = format!("the first number must not exceed the second: write [{most}, {least}]");
                return Err(Error::config(option, reason));
            }
            if !(least > 0.0 && most <= limit) {
                let range = if limit == 1.0 { "above 0 and at most 1" } else { "positive and finite" };
                return Err(Error::config(option, format!("[{least}, {most}] must be {range}")));
            }
        }
        Ok(())
    }

    /// Area and ratio are drawn until a part fits into the image, 10 times at most; then the largest part in the middle
    /// of the image that has an allowed ratio is taken.
    pub(super) fn draw(&self, draws: &mut Draws, [height, width]: [usize; 2]) -> Crop {
        let [rows, columns] = [height as f64, width as f64];
        let [least, most] = self.ratio;
        let (log_least, log_most) = (libm::log(least), libm::log(most));
        for _ in 0..Self::TRIES {
            let area = rows * columns * draws.between(self.scale[0], self.scale[1]);
            let ratio = libm::exp(draws.between(log_least, log_most));
            // As Python's `round`.
            let side = |square: f64| libm::sqrt(square).round_ties_even() as usize;
            let (crop_width, crop_height) = (side(area * ratio), side(area / ratio));
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                let top = draws.below(height - crop_height + 1);
                let left = draws.below(width - crop_width + 1);
                return Crop { top, left, height: crop_height, width: crop_width };
            }
        }
        let side = |length: f64, most: usize| (length.round_ties_even() as usize).clamp(1, most.max(1));
        let (crop_height, crop_width) = match columns / rows {
            ratio if ratio < least => (side(columns / least, height), width),
            ratio if ratio > most => (height, side(rows * most, width)),
            _ => (height, width),
        };
        let (top, left) = (height.saturating_sub(crop_height) / 2, width.saturating_sub(crop_width) / 2);
        Crop { top, left, height: crop_height, width: crop_width }
    }
}

/// The part of an image that a crop keeps, in pixels.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Crop, Step, Views};
///
/// // The lower one of two rows.
/// let crop = Crop { top: 1, left: 0, height: 1, width: 2 };
/// let mut image = [1.0, 2.0, 3.0, 4.0];
/// let views = Views::new([Step::Crop(vec![crop])], None);
/// views.apply(&mut image, [1, 1, 2, 2], &mut [], 0, &Normalize::IMAGENET)?;
/// assert_eq!(image, [3.0, 4.0, 3.0, 4.0]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Rows above the part.
    pub top: usize,
    /// Columns left of the part.
    pub left: usize,
    /// Rows of the part, at least 1.
    pub height: usize,
    /// Columns of the part, at least 1.
    pub width: usize,
}

impl Crop {
    /// Whether the part lies in an image of `height` x `width` pixels.
    pub(super) fn fits(&self, [height, width]: [usize; 2]) -> bool {
        let ends = [self.top.checked_add(self.height), self.left.checked_add(self.width)];
        let [Some(bottom), Some(right)] = ends else { return false };
        self.height > 0 && self.width > 0 && bottom <= height && right <= width
    }

    /// Crops `image`, `[channels, height, width]`, and resizes the part to the same shape.
    pub(super) fn apply(
        &self,
        image: &mut [f32],
        [channels, height, width]: [usize; 3],
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        if (self.height, self.width) == (height, width) {
            return Ok(());
        }
        scratch.clear();
        for plane in image.chunks_exact(height * width) {
            for row in plane.chunks_exact(width).skip(self.top).take(self.height) {
                scratch.extend_from_slice(&row[self.left..self.left + self.width]);
            }
        }
        let resized = resize_planar(scratch, channels, (self.height, self.width), (height, width))?;
        image.copy_from_slice(&resized);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Key;
    use super::*;
    use proptest::prelude::*;

    fn drawn(crop: &RandomResizedCrop, position: u64, size: [usize; 2]) -> Crop {
        crop.draw(&mut Key { seed: 1, epoch: 0, nth: 0 }.draws("random_resized_crop", position), size)
    }

    #[test]
    fn areas_and_ratios_are_those_asked_for() {
        let crop = RandomResizedCrop::new([0.25, 0.5], [0.5, 2.0]).unwrap();
        let (mut areas, mut ratios) = (0.0, 0.0);
        for position in 0..4000 {
            let Crop { height, width, .. } = drawn(&crop, position, [1000, 1000]);
            let (area, ratio) = ((height * width) as f64 / 1e6, (width as f64 / height as f64).log2());
            assert!((0.249..0.501).contains(&area) && (-1.01..1.01).contains(&ratio), "{area} {ratio}");
            (areas, ratios) = (areas + area / 4000.0, ratios + ratio / 4000.0);
        }
        // Uniform areas and log-uniform ratios: standard deviations of 0.0011 and 0.009.
        assert!((areas - 0.375).abs() < 0.005 && ratios.abs() < 0.04, "{areas} {ratios}");
    }

    #[test]
    fn an_image_that_no_part_fits_is_cropped_in_its_middle() {
        let wide = RandomResizedCrop::new([1.0, 1.0], [1.0, 2.0]).unwrap();
        assert_eq!(drawn(&wide, 0, [10, 60]), Crop { top: 0, left: 20, height: 10, width: 20 });
        assert_eq!(drawn(&wide, 0, [50, 10]), Crop { top: 20, left: 0, height: 10, width: 10 });
        let extreme = RandomResizedCrop::new([1.0, 1.0], [1e9, 1e9]).unwrap();
        assert_eq!(drawn(&extreme, 0, [9, 3]), Crop { top: 4, left: 0, height: 1, width: 3 });
    }

    #[test]
    fn ranges_out_of_order_or_bounds_are_refused() {
        let fault = |scale, ratio| match RandomResizedCrop::new(scale, ratio) {
            Err(Error::Config { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        for scale in [[0.5, 0.1], [0.0, 1.0], [0.5, 1.5], [f64::NAN, 1.0], [0.5, f64::NAN], [-1.0, 1.0]] {
            assert_eq!(fault(scale, [1.0, 1.0]), "scale", "{scale:?}");
        }
        for ratio in [[2.0, 1.0], [0.0, 1.0], [1.0, f64::INFINITY], [f64::NAN, f64::NAN]] {
            assert_eq!(fault([0.5, 1.0], ratio), "ratio", "{ratio:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_in_their_image(
            size in [1_usize..60, 1_usize..60], scale in 1e-6_f64..1.0, ratio in -9.0_f64..9.0, position: u64
        ) {
            let crop = RandomResizedCrop::new([scale, 1.0], [ratio.exp(), 2.0 * ratio.exp()]).unwrap();
            prop_assert!(drawn(&crop, position, size).fits(size));
        }
    }
}

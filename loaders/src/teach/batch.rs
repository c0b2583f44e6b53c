//! What a teacher is shown.

use crate::{Error, Result};
use std::slice::ChunksExact;

/// A batch of `B` images on their way to a teacher: finite values, normalised as the teacher was trained.
///
/// Unlike [`RawBatch`](crate::refine::RawBatch), which holds pixels in [0, 1] of three channels and what each image
/// shows, it holds what a network takes, and may be empty.
///
/// ```
/// use diver_loaders::teach::TeachBatch;
///
/// let pixels = [0.25; 2 * 3 * 4 * 4];
/// let batch = TeachBatch::new(&pixels, [2, 3, 4, 4])?;
/// assert_eq!((batch.len(), batch.images().count()), (2, 2));
/// assert!(TeachBatch::new(&pixels, [3, 3, 4, 4]).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TeachBatch<'a> {
    pixels: &'a [f32],
    shape: [usize; 4],
}

impl<'a> TeachBatch<'a> {
    /// A batch of shape `[B, C, H, W]`, row-major. `B` may be 0; `C`, `H` and `W` are at least 1.
    ///
    /// # Errors
    /// [`Error::Config`] for `batch` if a side or the number of channels is 0, the number of values is not that of the
    /// shape, or a value is NaN or infinite.
    pub fn new(pixels: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        let [images, image @ ..] = shape;
        if image.contains(&0) {
            let reason = format!("the shape is {shape:?}; channels, height and width must be at least 1");
            return Err(Error::config("batch", reason));
        }
        let size = image.iter().try_fold(1_usize, |size, side| size.checked_mul(*side));
        let Some(size) = size.filter(|size| size.checked_mul(images) == Some(pixels.len())) else {
            let reason =
                format!("found {} pixel values, which do not make images of shape {shape:?}", pixels.len());
            return Err(Error::config("batch", reason));
        };
        if let Some(at) = pixels.iter().position(|value| !value.is_finite()) {
            let reason = format!("image {} contains {}; pixel values must be finite", at / size, pixels[at]);
            return Err(Error::config("batch", reason));
        }
        Ok(Self { pixels, shape })
    }

    /// The values, row-major `[B, C, H, W]`.
    #[must_use]
    pub fn pixels(&self) -> &'a [f32] {
        self.pixels
    }

    /// `[B, C, H, W]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values of each image, `[C, H, W]`.
    pub fn images(&self) -> ChunksExact<'a, f32> {
        self.pixels.chunks_exact(self.shape[1..].iter().product())
    }

    /// The number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape[0] == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(pixels: &[f32], shape: [usize; 4]) -> String {
        match TeachBatch::new(pixels, shape) {
            Err(Error::Config { option: "batch", reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_shape_must_fit_its_values() {
        assert!(TeachBatch::new(&[], [0, 3, 2, 2]).unwrap().is_empty());
        for shape in [[1, 0, 2, 2], [1, 3, 0, 2], [0, 3, 2, 0]] {
            assert!(reason(&[], shape).contains("at least 1"), "{shape:?}");
        }
        for shape in [[1, 1, 2, 2], [usize::MAX, 1, 1, 3], [usize::MAX, usize::MAX, 2, 2], [0, 1, 1, 1]] {
            assert!(reason(&[0.0; 3], shape).contains("found 3 pixel values"), "{shape:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_by_its_image() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let reason = reason(&[0.0, -7.5, 3.0, 1.0, value, 0.0], [3, 1, 1, 2]);
            assert!(reason.starts_with("image 2 contains"), "{reason}");
        }
    }
}

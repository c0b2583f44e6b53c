//! The image side of the method: pixels in [0, 1] to what the autoencoder is fed, and back.

use crate::{Error, Result};
use tch::Tensor;

/// How images are brought to the backbone's size. Both are those of `torch.nn.functional.interpolate` with
/// `align_corners=False` and no antialiasing.
///
/// ```
/// assert_eq!(diver::method::Interpolation::default(), diver::method::Interpolation::Bicubic);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// Cubic convolution over 4 x 4 pixels: what refinement uses.
    #[default]
    Bicubic,
    /// Linear over 2 x 2 pixels.
    Bilinear,
}

/// Images `[B, 3, H, W]` (f32; values outside [0, 1] are clamped) resized to `side` x `side`, in [-1, 1].
///
/// ```
/// use diver::method::{Interpolation, from_network, to_network};
/// use tch::{Device, Kind, Tensor};
///
/// let images = Tensor::full([1, 3, 8, 8], 0.25, (Kind::Float, Device::Cpu));
/// let fed = to_network(&images, 16, Interpolation::Bicubic)?;
/// assert_eq!(fed.size(), [1, 3, 16, 16]);
/// assert_eq!(from_network(&fed)?.double_value(&[0, 0, 5, 5]), 0.25);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// If the shape is another.
pub fn to_network(images: &Tensor, side: i64, interpolation: Interpolation) -> Result<Tensor> {
    let (height, width) = match images.size()[..] {
        [_, 3, height, width] if height > 0 && width > 0 => (height, width),
        _ => return Err(Error::tensor("images", "[B, 3, H, W]", format!("{:?}", images.size()))),
    };
    let mut images = images.f_clamp(0.0, 1.0)?;
    if (height, width) != (side, side) {
        let size = [side, side];
        let resized = match interpolation {
            Interpolation::Bicubic => images.f_upsample_bicubic2d(size, false, None, None)?,
            Interpolation::Bilinear => images.f_upsample_bilinear2d(size, false, None, None)?,
        };
        // Cubic convolution overshoots at edges.
        images = resized.f_clamp(0.0, 1.0)?;
    }
    Ok(images.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?)
}

/// What the decoder gives, about -1 to 1, as images in [0, 1]. Any shape.
///
/// # Errors
/// If libtorch fails.
pub fn from_network(decoded: &Tensor) -> Result<Tensor> {
    Ok(decoded.f_add_scalar(1.0)?.f_div_scalar(2.0)?.f_clamp(0.0, 1.0)?)
}

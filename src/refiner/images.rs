//! From the decoder's tensors to images.

use crate::method::from_network;
use crate::{Error, Result};
use diver_loaders::RgbImage;
use tch::{Device, Kind, Tensor};

/// Refuses decoded images `[B, 3, H, W]` that are none; before the clamp, which makes an infinite value white or
/// black. `first` is the position of the first image in its batch.
pub(super) fn check_finite(decoded: &Tensor, first: usize) -> Result<()> {
    match not_finite(decoded)? {
        Some(image) => Err(Error::NotFinite { image: first + image }),
        None => Ok(()),
    }
}

/// Refuses images `[B, ...]` to encode that are none: the networks would make a whole image of NaN of a single one.
pub(super) fn check_values(images: &Tensor) -> Result<()> {
    if !images.is_floating_point() {
        // Bytes would be taken for values far above 1, and be white.
        let found = format!("{:?}", images.kind());
        return Err(Error::tensor("images", "a floating-point dtype with values in [0, 1]", found));
    }
    if images.dim() < 2 {
        return Err(Error::tensor("images", "[B, 3, H, W]", format!("{:?}", images.size())));
    }
    match not_finite(images)? {
        Some(image) => {
            let found = format!("a value of image {image} that is not finite");
            Err(Error::tensor("images", "values in [0, 1]", found))
        }
        None => Ok(()),
    }
}

/// The first image with a value that is not finite.
fn not_finite(images: &Tensor) -> Result<Option<usize>> {
    let finite = Vec::<bool>::try_from(images.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)?)?;
    Ok(finite.iter().position(|finite| !finite))
}

/// What the decoder gives, `[B, 3, H, W]`, as bytes.
pub(super) fn to_images(decoded: &Tensor) -> Result<Vec<RgbImage>> {
    let (count, channels, height, width) = decoded.size4()?;
    let bytes = from_network(decoded)?.f_mul_scalar(255.0)?.f_round()?.f_to_kind(Kind::Uint8)?;
    let bytes = bytes.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_to_device(Device::Cpu)?;
    let mut data = vec![0; (count * channels * height * width) as usize];
    let length = data.len();
    bytes.f_copy_data(&mut data, length)?;
    let to_image = |image: &[u8]| {
        RgbImage::new(width as usize, height as usize, image.to_vec())
            .map_err(|e| Error::tensor("refined images", "RGB images", e.to_string()))
    };
    data.chunks_exact((channels * height * width) as usize).map(to_image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_rounded_and_checked() {
        let one = Tensor::from_slice(&[-1.0_f32, 0.0, 1.5]).view([1, 3, 1, 1]);
        assert_eq!(to_images(&one).unwrap()[0].as_bytes(), [0, 128, 255]);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bad = Tensor::from_slice(&[0.0, value, 0.0]).view([1, 3, 1, 1]);
            let error = check_finite(&Tensor::cat(&[&one, &bad], 0), 4).unwrap_err().to_string();
            assert!(error.starts_with("image 5 of the batch has values that are not finite"), "{error}");
        }
    }

    #[test]
    fn images_of_no_numbers_are_refused() {
        let images = Tensor::zeros([3, 3, 2, 2], (Kind::Float, Device::Cpu));
        check_values(&images).unwrap();
        let _ = images.get(1).get(2).get(0).get(1).fill_(f64::NAN);
        let error = check_values(&images).unwrap_err().to_string();
        assert_eq!(
            error,
            "images: a value of image 1 that is not finite was given, values in [0, 1] is expected"
        );
        assert!(check_values(&images.get(1).get(2).get(0)).is_err());
    }
}

//! How an image is stored in a row.

use crate::options::named_enum;
use crate::{Error, Result, RgbImage};
use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder as _, ImageFormat};

named_enum! {
    /// How images are stored in a cache: as files of a format that others read as well, none of which loses anything.
    #[derive(Default)]
    ImageForm, "image_form" {
        /// PNG.
        #[default]
        Png = "png",
        /// Lossless WebP: smaller than PNG, and slower to write.
        Webp = "webp",
        /// PPM: the pixels as they are, behind a short header.
        Raw = "raw",
    }
}

impl ImageForm {
    /// The image as a file of this form.
    ///
    /// # Errors
    /// If the encoder fails, which memory alone can cause, or WebP at more than 16,384 pixels a side.
    pub(super) fn encode(self, image: &RgbImage) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let (width, height) = (side(image.width()), side(image.height()));
        let written = match self {
            Self::Png => return image.to_png(),
            Self::Webp => WebPEncoder::new_lossless(&mut file).write_image(
                image.as_bytes(),
                width,
                height,
                ExtendedColorType::Rgb8,
            ),
            Self::Raw => PnmEncoder::new(&mut file)
                .with_subtype(PnmSubtype::Pixmap(SampleEncoding::Binary))
                .write_image(image.as_bytes(), width, height, ExtendedColorType::Rgb8),
        };
        written.map_err(|e| Error::config("image", format!("cannot encode as {self}: {e}")))?;
        Ok(file)
    }
}

/// Decodes a file of any of the forms.
///
/// # Errors
/// If it is of none of them, or damaged.
pub(super) fn decode(file: &[u8]) -> Result<RgbImage> {
    let form = match image::guess_format(file) {
        Ok(form @ (ImageFormat::WebP | ImageFormat::Pnm)) => form,
        _ => return RgbImage::from_png(file),
    };
    let refused = |e| Error::config("image", format!("damaged {}: {e}", form.extensions_str()[0]));
    let decoded = image::load_from_memory_with_format(file, form).map_err(refused)?.into_rgb8();
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    RgbImage::new(width, height, decoded.into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_form_gives_the_image_back(width in 1_usize..40, height in 1_usize..40, seed: u8) {
            let bytes = (0..width * height * 3).map(|at| (at * 7) as u8 ^ seed).collect();
            let image = RgbImage::new(width, height, bytes).unwrap();
            for form in ImageForm::ALL {
                prop_assert_eq!(&decode(&form.encode(&image).unwrap()).unwrap(), &image);
            }
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let image = RgbImage::new(9, 9, vec![7; 243]).unwrap();
        for form in ImageForm::ALL {
            let file = form.encode(&image).unwrap();
            assert!(decode(&file[..file.len() / 2]).is_err(), "{form}");
        }
        assert!(decode(b"P6\n99999999 99999999\n255\n").is_err());
        assert!(decode(b"").is_err());
    }
}

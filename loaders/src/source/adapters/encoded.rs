//! Encoded images, decoded on demand.
//!
//! Images of one size are samples of that size, and their digests are of the pixels in the files: where a loader wants
//! another size, it resizes what it streams. Images of several sizes have no shape that a set could name, so they are
//! resized as they are read, and their digests are of the resized pixels. `fit = crop` always works so.

use super::super::containers::picture::{self, MOST_PIXELS};
use super::super::options::Fit;
use super::super::{Label, Sample, Source, SourceInfo, StoredPixels};
use super::Resize;
use crate::wording::counted;
use crate::{Error, Result, pixels};
use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{BufRead, Seek};

/// Sets of at most this many images have all headers read when they are opened, so that a wrong one is found
/// before training begins; larger ones have each image checked as it is read.
const CHECKED_AT_OPEN: usize = 1000;

/// Where the encoded images of a set are.
pub(crate) trait Encoded: Debug + Send + Sync {
    /// The bytes of image `index`, which exists.
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek>;

    /// The error for image `index`.
    fn refused(&self, index: usize, reason: String) -> Error;

    /// As [`Source::name`].
    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        let _ = index;
        None
    }
}

/// Encoded images with their labels, decoded when they are read.
#[derive(Debug)]
pub(crate) struct EncodedSet<E> {
    info: SourceInfo,
    labels: Vec<Label>,
    images: E,
    /// For images that are resized as they are read.
    resize: Option<Resize>,
}

impl<E: Encoded> EncodedSet<E> {
    /// A set of at least one image.
    ///
    /// Without `resize`, the first image's size is that of all. With it, images may have several sizes; headers are
    /// then read until two sizes are found, which is all of them where there is one size.
    ///
    /// # Errors
    /// If an image that is looked at cannot be read, or has another size and there is no `resize`; if the size to
    /// resize to is empty or too large.
    pub(crate) fn new(
        info: SourceInfo,
        labels: Vec<Label>,
        images: E,
        resize: Option<Resize>,
    ) -> Result<Self> {
        let (mut of_several, mut first_of_several) = (0, None);
        let mut size = |index| {
            let image = images.reader(index)?;
            let (size, has_more) = picture::look(image).map_err(|reason| images.refused(index, reason))?;
            if has_more {
                of_several += 1;
                first_of_several.get_or_insert(index);
            }
            Ok::<_, Error>(size)
        };
        if let Some(resize) = resize {
            check(resize.size)?;
        }
        let native = size(0)?;
        let mut has_one_size = true;
        if labels.len() <= CHECKED_AT_OPEN || resize.is_some() {
            for index in 1..labels.len() {
                let size = size(index)?;
                if size == native {
                    continue;
                }
                if resize.is_none() {
                    return Err(images.refused(index, other_size(size, native)));
                }
                has_one_size = false;
                // A small set's other headers are read all the same, so that a wrong one is found.
                if labels.len() > CHECKED_AT_OPEN {
                    break;
                }
            }
        }
        // Of one size, they are left to the loader, unless they are cropped.
        let resize =
            resize.filter(|resize| !has_one_size || resize.fit == Fit::Crop && resize.size != native);
        let [height, width] = resize.map_or(native, |resize| resize.size);
        let mut info = SourceInfo { shape: [3, height, width], ..info };
        if let Some(resize) = resize {
            info.notes.extend(resize_note(resize, has_one_size));
        }
        if let Some(first) = first_of_several {
            let first = images.name(first).unwrap_or_else(|| format!("sample {first}").into());
            info.notes.push(format!(
                "of images with several frames or pages, only the first is read: {}, such as {first}",
                counted(of_several, "image")
            ));
        }
        Ok(Self { info, labels, images, resize })
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
        let accept = |size| match self.resize {
            None if size != [height, width] => Err(other_size(size, [height, width])),
            _ => Ok(()),
        };
        let image = picture::decode(self.images.reader(index)?, accept)
            .map_err(|reason| self.images.refused(index, reason))?;
        let image = match self.resize {
            Some(resize) => resize
                .apply(&image, MOST_PIXELS)
                .map_err(|error| self.images.refused(index, error.to_string()))?,
            None => image,
        };
        let pixels = pixels::planar(image.as_bytes());
        Ok(Sample { pixels: StoredPixels::U8(pixels), shape: self.info.shape, label })
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        self.images.name(index)
    }
}

/// Refuses sizes to resize to that no image could have.
fn check([height, width]: [usize; 2]) -> Result<()> {
    if height == 0 || width == 0 || height.saturating_mul(width) as u64 > MOST_PIXELS {
        let reason = format!(
            "{width} x {height} pixels: expected at least 1 x 1 and at most {MOST_PIXELS} pixels in all"
        );
        return Err(Error::config("image_size", reason));
    }
    Ok(())
}

fn other_size(size: [usize; 2], first: [usize; 2]) -> String {
    let ([height, width], [first_height, first_width]) = (size, first);
    format!(
        "{width} x {height} pixels where the first image has {first_width} x {first_height}: pass `image_size=` to \
         bring all images to one size, with `fit=\"stretch\"` or `fit=\"crop\"`"
    )
}

fn resize_note(Resize { size: [height, width], fit }: Resize, has_one_size: bool) -> Option<String> {
    let how = match fit {
        Fit::Stretch => format!("stretched to {width} x {height}"),
        Fit::Crop => format!("scaled to cover {width} x {height} and cropped at the center"),
    };
    (!has_one_size).then(|| format!("images of several sizes are {how} when they are read"))
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance;
    use super::super::super::{LabelKind, ValueSpace};
    use super::*;
    use crate::source::Format;
    use crate::{ClassMap, Normalize, RgbImage};
    use std::io::Cursor;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Images of the given widths and of 4 rows, each of one grey value.
    #[derive(Debug)]
    struct Greys {
        widths: Vec<usize>,
        /// How many have been read.
        reads: AtomicUsize,
    }

    impl Encoded for Greys {
        fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let width = self.widths[index];
            RgbImage::new(width, 4, vec![index as u8; width * 12])?.to_png().map(Cursor::new)
        }

        fn refused(&self, index: usize, reason: String) -> Error {
            Error::sample(Path::new("set"), index, reason)
        }
    }

    fn set(widths: &[usize], resize: Option<Resize>) -> Result<EncodedSet<Greys>> {
        let info = SourceInfo {
            format: Format::ImageFolder,
            method: None,
            path: PathBuf::from("set"),
            num_samples: widths.len(),
            num_classes: 1,
            classes: None,
            class_map: ClassMap::default(),
            shape: [3, 0, 0],
            labels: LabelKind::Hard,
            value_space: ValueSpace::Unit,
            normalize: Normalize::IMAGENET,
            learning_rate: None,
            facts: vec![],
            notes: Vec::new(),
        };
        let labels = vec![Label::Hard(0); widths.len()];
        EncodedSet::new(info, labels, Greys { widths: widths.to_vec(), reads: AtomicUsize::new(0) }, resize)
    }

    const STRETCH: Option<Resize> = Some(Resize { size: [2, 2], fit: Fit::Stretch });
    const CROP: Option<Resize> = Some(Resize { size: [2, 2], fit: Fit::Crop });

    #[test]
    fn several_sizes_are_an_error_that_names_them_and_the_way_out() {
        let error = set(&[3, 3, 5], None).unwrap_err();
        let Error::Sample { index: 2, reason, .. } = error else { panic!("{error}") };
        for word in ["5 x 4", "3 x 4", "image_size", "stretch", "crop"] {
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn several_sizes_become_one() {
        for resize in [STRETCH, CROP] {
            let set = set(&[3, 5, 3], resize).unwrap();
            conformance::check(&set);
            assert_eq!(set.info().shape, [3, 2, 2]);
            assert!(set.info().notes.iter().any(|note| note.contains("2 x 2")), "{:?}", set.info().notes);
            for index in 0..3 {
                assert_eq!(set.sample(index).unwrap().pixels, StoredPixels::U8(vec![index as u8; 12]));
            }
        }
    }

    #[test]
    fn images_of_one_size_keep_it_unless_they_are_cropped() {
        let (plain, stretched) = (set(&[4, 4], None).unwrap(), set(&[4, 4], STRETCH).unwrap());
        assert_eq!(stretched.info(), plain.info());
        assert_eq!(stretched.sample(1).unwrap().digest(), plain.sample(1).unwrap().digest());
        let cropped = set(&[4, 4], CROP).unwrap();
        assert_eq!((cropped.info().shape, &cropped.info().notes), ([3, 2, 2], &plain.info().notes));
        let whole = set(&[4, 4], Some(Resize { size: [4, 4], fit: Fit::Crop })).unwrap();
        assert_eq!(whole.sample(1).unwrap().digest(), plain.sample(1).unwrap().digest());
    }

    #[test]
    fn large_sets_are_looked_at_no_further_than_needed() {
        let mut widths = vec![3; CHECKED_AT_OPEN + 1];
        let reads = |set: &EncodedSet<Greys>| set.images.reads.load(Ordering::Relaxed);
        assert_eq!(reads(&set(&widths, None).unwrap()), 1);
        // That all have one size is known when all have been seen.
        let uniform = set(&widths, STRETCH).unwrap();
        assert_eq!((reads(&uniform), uniform.info().shape), (widths.len(), [3, 4, 3]));
        widths[7] = 5;
        let late = set(&widths, None).unwrap();
        assert!(late.sample(7).unwrap_err().to_string().contains("5 x 4"));
        let resized = set(&widths, STRETCH).unwrap();
        assert_eq!((reads(&resized), resized.info().shape), (8, [3, 2, 2]));
    }

    #[test]
    fn sizes_that_no_image_can_have_are_refused() {
        for size in [[0, 2], [2, 0], [1 << 13, 1 << 13], [usize::MAX, 2]] {
            let error = set(&[3, 5], Some(Resize { size, fit: Fit::Stretch })).unwrap_err();
            assert!(matches!(error, Error::Config { option: "image_size", .. }), "{error}");
        }
    }
}

//! What a teacher returned, once it is known to be logits.

use super::{Teach, TeachBatch};
use crate::{CancelToken, Error, Result};
use std::slice::ChunksExact;

/// The checked logits of a batch: `[B, C]`, row-major, finite.
///
/// ```
/// use diver_loaders::teach::Logits;
///
/// let logits = Logits::new(vec![0.5, 2.0, -1.0, 0.0, 1.0, 3.0], 2, 3)?;
/// assert_eq!(logits.row(1), Some(&[0.0, 1.0, 3.0][..]));
/// assert!(Logits::new(vec![0.5, f32::NAN], 1, 2).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    images: usize,
    num_classes: usize,
}

impl Logits {
    /// Checks values that a teacher returned for `images` images of a dataset with `num_classes` classes.
    ///
    /// # Errors
    /// [`Error::Config`] for `teacher` if the values are logits for another number of classes, or `num_classes` is 0;
    /// [`Error::Teach`] if their number is no multiple of `images`, or one of them is NaN or infinite.
    pub fn new(values: Vec<f32>, images: usize, num_classes: usize) -> Result<Self> {
        if num_classes == 0 {
            return Err(Error::config("teacher", "the dataset has 0 classes; labels need at least 1"));
        }
        if images.checked_mul(num_classes) != Some(values.len()) {
            return Err(match values.len().checked_div(images) {
                Some(classes) if classes > 0 && classes * images == values.len() => {
                    other_classes(classes, num_classes)
                }
                _ => Error::teach(format!(
                    "expected {images} x {num_classes} logits, found {} values",
                    values.len()
                )),
            });
        }
        if let Some(at) = values.iter().position(|logit| !logit.is_finite()) {
            let (row, class) = (at / num_classes, at % num_classes);
            return Err(Error::teach(format!(
                "the logit of image {row} for class {class} is {}: the weights are damaged, or the images are not \
                 normalised as the teacher expects",
                values[at]
            )));
        }
        Ok(Self { values, images, num_classes })
    }

    /// Asks `teacher` for the logits of `images`, which belong to a dataset with `num_classes` classes.
    ///
    /// # Errors
    /// As for [`check_classes`](Self::check_classes), [`Teach::teach`] and [`new`](Self::new).
    pub fn of<T: Teach + ?Sized>(
        teacher: &mut T,
        images: &TeachBatch<'_>,
        num_classes: usize,
        cancel: &CancelToken,
    ) -> Result<Self> {
        Self::check_classes(teacher, num_classes)?;
        Self::new(teacher.teach(images, cancel)?, images.len(), num_classes)
    }

    /// Refuses a teacher that is known to have another number of classes than the dataset: to be called before there
    /// are images.
    ///
    /// # Errors
    /// [`Error::Config`] for `teacher` says both numbers.
    pub fn check_classes<T: Teach + ?Sized>(teacher: &T, num_classes: usize) -> Result<()> {
        match teacher.num_classes() {
            Some(classes) if classes != num_classes => Err(other_classes(classes, num_classes)),
            _ => Ok(()),
        }
    }

    /// The logits of all images, row-major `[B, C]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The logits of each image, `[C]`.
    pub fn rows(&self) -> ChunksExact<'_, f32> {
        self.values.chunks_exact(self.num_classes)
    }

    /// The logits of one image, `[C]`; `None` past the last image.
    #[must_use]
    pub fn row(&self, image: usize) -> Option<&[f32]> {
        self.rows().nth(image)
    }

    /// The number of classes, `C`.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The number of images, `B`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.images
    }

    /// Whether there are no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images == 0
    }
}

fn other_classes(found: usize, expected: usize) -> Error {
    Error::config(
        "teacher",
        format!(
            "the teacher gives logits for {found} classes, the dataset has {expected}; use a teacher that was trained on \
             the dataset's classes, in the same order"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teach::from_fn;

    #[test]
    fn another_number_of_classes_is_a_matter_of_the_option() {
        let reason = |result: Result<Logits>| match result {
            Err(Error::Config { option: "teacher", reason }) => reason,
            other => panic!("{other:?}"),
        };
        let given = reason(Logits::new(vec![0.0; 30], 2, 10));
        assert!(given.contains("15 classes") && given.contains("has 10"), "{given}");
        assert!(Logits::new(Vec::new(), 0, 10).unwrap().is_empty());
        reason(Logits::new(Vec::new(), 0, 0));

        // Known before the first call, and so without one.
        let mut teacher = from_fn(|_| panic!("it was called")).with_num_classes(1000);
        let pixels = [0.0; 4];
        let images = TeachBatch::new(&pixels, [1, 1, 2, 2]).unwrap();
        let said = reason(Logits::of(&mut teacher, &images, 10, &CancelToken::new()));
        assert!(said.contains("1000 classes") && said.contains("has 10"), "{said}");
    }

    #[test]
    fn values_that_are_no_logits_are_the_teachers_fault() {
        let reason = |result: Result<Logits>| match result {
            Err(Error::Teach(source)) => source.to_string(),
            other => panic!("{other:?}"),
        };
        for (values, images) in [(vec![0.0; 7], 2), (Vec::new(), 2), (vec![0.0; 3], 0)] {
            let found = format!("found {} values", values.len());
            assert!(reason(Logits::new(values, images, 3)).contains(&found));
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.0; 12];
            values[7] = value;
            let reason = reason(Logits::new(values, 3, 4));
            assert!(reason.contains("image 1 for class 3"), "{reason}");
        }
    }
}

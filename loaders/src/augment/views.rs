//! What was drawn for a batch, and its application.

use super::affine::Affine;
use super::crop::Crop;
use super::flip::mirror;
use super::jitter::{self, Adjustment};
use super::mixed::{Mixed, outside};
use super::operators::{Color, Cutout, Shift};
use crate::{Error, Normalize, Result};

/// A change of every image of a batch. Each sample has parameters of its own, in the batch's order.
///
/// ```
/// use diver_loaders::augment::{Augment, HorizontalFlip, Step};
///
/// let augment = Augment::new([HorizontalFlip::new(1.0)?.into()])?;
/// assert_eq!(augment.draw(7, 0, &[0, 1], [8, 8]).steps(), [Step::Flip(vec![true, true])]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// The image is cropped, and resized to its own size.
    Crop(Vec<Crop>),
    /// Images with `true` are mirrored left to right.
    Flip(Vec<bool>),
    /// Adjustments of pixels in [0, 1], in their order.
    Jitter(Vec<[Option<Adjustment>; 4]>),
    /// DSA's change of colours.
    Color(Vec<Color>),
    /// DSA's crop.
    Shift(Vec<Shift>),
    /// DSA's cutout.
    Cutout(Vec<Cutout>),
    /// DSA's scaling and rotation.
    Affine(Vec<Affine>),
}

/// The views of a batch, as plain numbers: [`Augment::draw`](super::Augment::draw) draws them, and a program can also
/// choose them itself.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Mixed, Step, Views};
///
/// let mixed = Mixed { partners: vec![1, 0], share: 0.75, bounds: None };
/// let views = Views::new([Step::Flip(vec![true, false])], Some(mixed));
/// // Two images of one channel, one row and two columns, and their targets.
/// let (mut images, mut targets) = (vec![1.0, 0.0, 0.0, 2.0], vec![1.0, 0.0, 0.0, 1.0]);
/// views.apply(&mut images, [2, 1, 1, 2], &mut targets, 2, &Normalize::IMAGENET)?;
/// assert_eq!(images, [0.0, 1.25, 0.0, 1.75]);
/// assert_eq!(targets, [0.75, 0.25, 0.25, 0.75]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Views {
    steps: Vec<Step>,
    mix: Option<Mixed>,
}

impl Views {
    /// Views whose images are changed by `steps`, in their order, and then mixed.
    pub fn new(steps: impl Into<Vec<Step>>, mix: Option<Mixed>) -> Self {
        Self { steps: steps.into(), mix }
    }

    /// The changes of images, in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How the views are mixed, if they are.
    pub fn mix(&self) -> Option<&Mixed> {
        self.mix.as_ref()
    }

    /// Whether the views are the images themselves.
    pub fn is_identity(&self) -> bool {
        self.steps.is_empty() && self.mix.is_none()
    }

    /// Turns a batch into its views, in place. Uses the memory of two more images, whatever the size of the batch.
    ///
    /// `images` holds `shape` = `[B, channels, height, width]` values, normalised by `normalize`; `targets` holds
    /// `[B, classes]` values, which change only if the views are mixed. A batch that is refused stays as it was.
    ///
    /// # Errors
    /// If lengths do not fit, a side of an image is 0, a number lies outside the images or its range, or the pixels of
    /// images of other than 1 or 3 channels are to be jittered.
    pub fn apply(
        &self,
        images: &mut [f32],
        shape: [usize; 4],
        targets: &mut [f32],
        classes: usize,
        normalize: &Normalize,
    ) -> Result<()> {
        check_lengths(images.len(), shape, targets.len(), classes)?;
        let [rows, channels, height, width] = shape;
        if rows == 0 || self.is_identity() {
            return Ok(());
        }
        for step in &self.steps {
            step.fault(shape).map_or(Ok(()), |fault| Err(Error::config("augment", fault)))?;
        }
        if let Some(fault) = self.mix.as_ref().and_then(|mix| mix.fault(rows, [height, width])) {
            return Err(Error::config("augment", fault));
        }
        let mut scratch = Vec::new();
        if !self.steps.is_empty() {
            // All steps of an image before the next one: it stays in the processor's cache.
            for (row, image) in images.chunks_exact_mut(channels * height * width).enumerate() {
                for step in &self.steps {
                    step.apply(row, image, [channels, height, width], normalize, &mut scratch)?;
                }
            }
        }
        if let Some(mix) = &self.mix {
            mix.apply(images, [channels, height, width]);
            mix.average(targets, classes);
        }
        Ok(())
    }
}

fn check_lengths(images: usize, shape: [usize; 4], targets: usize, classes: usize) -> Result<()> {
    let [rows, channels, height, width] = shape;
    let values = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    if values != Some(images) {
        let reason = format!("expected {rows} x {channels} x {height} x {width} values, found {images}");
        return Err(Error::config("images", reason));
    }
    if rows > 0 && images == 0 {
        let reason = format!("images of {channels} x {height} x {width} values are empty");
        return Err(Error::config("images", reason));
    }
    if rows.checked_mul(classes) != Some(targets) {
        let reason = format!("expected {rows} x {classes} values, found {targets}");
        return Err(Error::config("targets", reason));
    }
    Ok(())
}

impl Step {
    /// Number of samples that have parameters.
    fn rows(&self) -> usize {
        match self {
            Self::Crop(all) => all.len(),
            Self::Flip(all) => all.len(),
            Self::Jitter(all) => all.len(),
            Self::Color(all) => all.len(),
            Self::Shift(all) => all.len(),
            Self::Cutout(all) => all.len(),
            Self::Affine(all) => all.len(),
        }
    }

    /// The reason why it cannot be applied to a batch of this shape, if there is one.
    fn fault(&self, [rows, channels, height, width]: [usize; 4]) -> Option<String> {
        if self.rows() != rows {
            return Some(format!("views of {} images do not fit a batch of {rows}", self.rows()));
        }
        match self {
            Self::Crop(all) => {
                let crop = all.iter().find(|crop| !crop.fits([height, width]))?;
                Some(format!("{crop:?} must be a part of {height} x {width} pixels"))
            }
            Self::Cutout(all) => all.iter().find_map(|cutout| outside(cutout.bounds, [height, width])),
            Self::Jitter(_) if channels != 1 && channels != 3 => {
                Some(format!("color_jitter needs images of 1 or 3 channels, found {channels}"))
            }
            Self::Flip(_) | Self::Jitter(_) | Self::Color(_) | Self::Shift(_) | Self::Affine(_) => None,
        }
    }

    /// Changes the image of sample `row`, of `shape` = `[channels, height, width]`.
    fn apply(
        &self,
        row: usize,
        image: &mut [f32],
        shape: [usize; 3],
        normalize: &Normalize,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let [_, height, width] = shape;
        match self {
            Self::Crop(all) => all[row].apply(image, shape, scratch)?,
            Self::Flip(all) if all[row] => mirror(image, width),
            Self::Flip(_) => {}
            Self::Jitter(all) => jitter::apply(&all[row], image, height * width, normalize),
            Self::Color(all) => all[row].apply(image, height * width, scratch),
            Self::Shift(all) => all[row].apply(image, [height, width], scratch),
            Self::Cutout(all) => all[row].apply(image, [height, width]),
            Self::Affine(all) => all[row].apply(image, [height, width], scratch),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [2, 2, 3, 4];

    /// The option at fault when `views` are applied to a batch of `shape`.
    fn fault(
        views: &Views,
        shape: [usize; 4],
        images: usize,
        targets: usize,
    ) -> Option<(&'static str, String)> {
        let (mut images, mut targets) = (vec![0.5; images], vec![0.5; targets]);
        let before = (images.clone(), targets.clone());
        match views.apply(&mut images, shape, &mut targets, 5, &Normalize::IMAGENET) {
            Ok(()) => None,
            Err(Error::Config { option, reason }) => {
                assert_eq!((images, targets), before);
                Some((option, reason))
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_does_not_fit_a_batch_is_refused() {
        let none = Views::default();
        assert_eq!(fault(&none, SHAPE, 48, 10), None);
        assert_eq!(fault(&none, SHAPE, 47, 10).unwrap().0, "images");
        assert_eq!(fault(&none, [2, 2, 0, 4], 0, 10).unwrap().0, "images");
        assert_eq!(fault(&none, [usize::MAX, 2, 1, 1], 0, 10).unwrap().0, "images");
        assert_eq!(fault(&none, SHAPE, 48, 9).unwrap().0, "targets");
        assert_eq!(fault(&none, [0, 2, 3, 4], 0, 0), None);

        let crop = Crop { top: 1, left: 0, height: 2, width: 4 };
        let views = |step| Views::new([Step::Flip(vec![true; 2]), step], None);
        assert_eq!(fault(&views(Step::Crop(vec![crop; 2])), SHAPE, 48, 10), None);
        for crop in [Crop { top: 2, ..crop }, Crop { width: 0, ..crop }, Crop { left: usize::MAX, ..crop }] {
            assert_eq!(fault(&views(Step::Crop(vec![crop; 2])), SHAPE, 48, 10).unwrap().0, "augment");
        }
        assert!(fault(&views(Step::Flip(vec![true])), SHAPE, 48, 10).unwrap().1.contains("batch of 2"));
        let cutout = Cutout { bounds: [0, 0, 3, 5] };
        assert!(fault(&views(Step::Cutout(vec![cutout; 2])), SHAPE, 48, 10).is_some());
        let jitter = views(Step::Jitter(vec![[None; 4]; 2]));
        assert!(fault(&jitter, SHAPE, 48, 10).unwrap().1.contains("color_jitter"));
        let mix = Mixed { partners: vec![0, 0], share: 0.5, bounds: None };
        assert!(fault(&Views::new([], Some(mix)), SHAPE, 48, 10).is_some());
    }
}

//! A batch of views: images cropped, flipped and mixed as when a teacher saw them, with what it said.

use crate::augment::mirror;
use crate::source::{Label, Source};
use crate::{CancelToken, Error, Normalize, Result, RgbImage};
use std::num::NonZero;
use std::path::PathBuf;

pub use crate::augment::Mixed;

/// The views of a batch. Row by row: an image of the folder, and what became of it.
#[derive(Clone, Debug)]
pub struct Views {
    path: PathBuf,
    indices: Vec<usize>,
    /// Top, left, height and width, as shares of the image's.
    crops: Vec<[f32; 4]>,
    flips: Vec<bool>,
    mix: Option<Mixed>,
    logits: Vec<f32>,
    classes: usize,
    teacher_side: Option<usize>,
}

impl Views {
    pub(super) fn new(
        path: PathBuf,
        indices: Vec<usize>,
        crops: Vec<[f32; 4]>,
        flips: Vec<bool>,
        mix: Option<Mixed>,
        logits: Vec<f32>,
        classes: usize,
    ) -> Self {
        Self { path, indices, crops, flips, mix, logits, classes, teacher_side: None }
    }

    /// The views, of which the teacher saw those of `side` pixels; none for as many as are asked for.
    pub(super) fn seen_at(self, side: Option<usize>) -> Self {
        Self { teacher_side: side, ..self }
    }

    /// Number of views.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Number of classes that the teacher knew.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The image of each view: its index in the source.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// How the views were mixed, if they were.
    pub fn mix(&self) -> Option<&Mixed> {
        self.mix.as_ref()
    }

    /// The teacher's logits for view `row`, as it was mixed.
    ///
    /// # Panics
    /// If there is no such view.
    pub fn label(&self, row: usize) -> Label {
        Label::Logits(self.logits[row * self.classes..(row + 1) * self.classes].to_vec())
    }

    /// For each view the row whose image it shows the most of: its own or its partner's; none where both share alike.
    pub(super) fn most_shown(&self) -> Option<Vec<usize>> {
        match &self.mix {
            Some(mix) if mix.share < 0.5 => Some(mix.partners.clone()),
            Some(mix) if mix.share == 0.5 => None,
            _ => Some((0..self.len()).collect()),
        }
    }

    /// The teacher's logits, `[B, classes]`, row by row.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The views as a network is trained on them, `[B, 3, side, side]`: cropped, resized, flipped, normalised and mixed,
    /// in this order. Images are read and cropped on as many threads as there are processors.
    ///
    /// The boxes of CutMix are in pixels of what the teacher saw
    /// ([`SoftLabels::with_teacher_side`](super::SoftLabels::with_teacher_side)), and are scaled to `side`.
    ///
    /// # Errors
    /// If an image cannot be read, a crop is empty, `side` is 0, the box of a mix lies outside of what the teacher saw,
    /// rows are not mixed by a permutation, or `cancel` is cancelled, which is looked at for each view and channel.
    pub fn pixels(
        &self,
        images: &dyn Source,
        side: usize,
        normalize: &Normalize,
        cancel: &CancelToken,
    ) -> Result<Vec<f32>> {
        if side == 0 {
            return Err(Error::config("side", "0 is not a number of pixels"));
        }
        let mix = self.mix_at(side)?;
        let mut pixels = vec![0.0; self.len() * 3 * side * side];
        in_parallel(&mut pixels, 3 * side * side, |row, image| {
            cancel.check()?;
            let view = self.view(row, images, side)?;
            for (channel, plane) in image.chunks_exact_mut(side * side).enumerate() {
                cancel.check()?;
                for (place, pixel) in plane.iter_mut().enumerate() {
                    *pixel = normalize.apply(channel, view.unit(channel, place / side, place % side));
                }
            }
            // A view is flipped before it is mixed: each by its own flag.
            if self.flips[row] {
                mirror(image, side);
            }
            Ok(())
        })?;
        cancel.check()?;
        if let Some(mix) = mix {
            mix.apply(&mut pixels, [3, side, side]);
        }
        Ok(pixels)
    }

    /// How views of `side` pixels are mixed.
    fn mix_at(&self, side: usize) -> Result<Option<Mixed>> {
        let Some(mix) = &self.mix else { return Ok(None) };
        let mix = Mixed { bounds: self.bounds(side)?, ..mix.clone() };
        match mix.fault(self.len(), [side, side]) {
            Some(fault) => Err(Error::field(&self.path, "mix_index", fault)),
            None => Ok(Some(mix)),
        }
    }

    /// The box of CutMix in views of `side` pixels: its edges lie where the nearest ones between pixels are.
    fn bounds(&self, side: usize) -> Result<Option<[usize; 4]>> {
        let Some(bounds) = self.mix.as_ref().and_then(|mix| mix.bounds) else { return Ok(None) };
        let teacher = self.teacher_side.unwrap_or(side);
        if bounds.iter().any(|bound| *bound > teacher) {
            let reason = format!(
                "{bounds:?} lies outside of {teacher} x {teacher} pixels: say at which size the teacher saw the views"
            );
            return Err(Error::field(&self.path, "mix_bbox", reason));
        }
        Ok(Some(bounds.map(|bound| (bound as f64 * side as f64 / teacher as f64).round() as usize)))
    }

    /// View `row`, before it is normalised and mixed.
    fn view(&self, row: usize, images: &dyn Source, side: usize) -> Result<RgbImage> {
        let index = self.indices[row];
        let sample = images.sample(index)?;
        let [_, height, width] = sample.shape;
        let image = RgbImage::from_planar(width, height, &sample.to_pixels(&images.value_space(index))?)?;
        self.cropped(row, &image)?.resized(side, side)
    }

    /// As PIL crops: its bounds are rounded, halves to even.
    fn cropped(&self, row: usize, image: &RgbImage) -> Result<RgbImage> {
        let [top, left, height, width] = self.crops[row].map(f64::from);
        let [rows, columns] = [image.height() as f64, image.width() as f64];
        let bound = |position: f64, most: f64| position.round_ties_even().clamp(0.0, most) as usize;
        let (first_row, last_row) = (bound(top * rows, rows), bound(top * rows + height * rows, rows));
        let (first_column, last_column) =
            (bound(left * columns, columns), bound(left * columns + width * columns, columns));
        if last_row <= first_row || last_column <= first_column {
            return Err(Error::field(&self.path, "coords", format!("row {row}: an empty part of the image")));
        }
        let mut data = Vec::new();
        for y in first_row..last_row {
            let start = (y * image.width() + first_column) * 3;
            data.extend_from_slice(&image.as_bytes()[start..start + (last_column - first_column) * 3]);
        }
        RgbImage::new(last_column - first_column, last_row - first_row, data)
    }
}

/// Calls `work` with the number of each row and its `width` values, on as many threads as there are processors.
///
/// # Errors
/// The first error in the order of the rows' parts.
fn in_parallel<T: Send>(
    values: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let rows = (values.len() / width).div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = values.chunks_mut(rows * width).enumerate().map(|(part, values)| {
            let work = &work;
            scope.spawn(move || {
                let mut numbered = values.chunks_mut(width).enumerate();
                numbered.try_for_each(|(row, values)| work(part * rows + row, values))
            })
        });
        let parts: Vec<_> = parts.collect();
        parts
            .into_iter()
            .try_for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

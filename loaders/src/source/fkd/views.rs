//! A batch of views: images cropped, flipped and mixed as when a teacher saw them, with what it said.

use super::super::{Label, Source};
use crate::{Error, Normalize, Result, RgbImage};
use std::path::PathBuf;

/// How the images of a batch were mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The row that each row was mixed with.
    pub partners: Vec<usize>,
    /// Each row's own share, 0 to 1.
    pub share: f64,
    /// CutMix: the first row and column of the partner's box, and the row and column behind it. MixUp has none.
    pub bounds: Option<[usize; 4]>,
}

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
        Self { path, indices, crops, flips, mix, logits, classes }
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

    /// Each view's own share among what it was mixed with.
    pub(super) fn own_share(&self) -> f64 {
        self.mix.as_ref().map_or(1.0, |mix| mix.share)
    }

    /// The views as a network is trained on them, `[B, 3, side, side]`: cropped, resized, flipped, normalised and mixed,
    /// in this order.
    ///
    /// # Errors
    /// If an image cannot be read, a crop is empty, or the box of a mix lies outside of `side`.
    pub fn pixels(&self, images: &dyn Source, side: usize, normalize: &Normalize) -> Result<Vec<f32>> {
        let mut pixels = Vec::new();
        for row in 0..self.len() {
            pixels.extend(self.view(row, images, side, normalize)?);
        }
        let Some(mix) = &self.mix else { return Ok(pixels) };
        if mix.bounds.is_some_and(|[_, _, bottom, right]| bottom > side || right > side) {
            let reason = format!("{:?} lies outside of {side} x {side} pixels", mix.bounds);
            return Err(Error::field(&self.path, "mix_bbox", reason));
        }
        let unmixed = pixels.clone();
        let size = 3 * side * side;
        let share = mix.share as f32;
        for (row, mixed) in pixels.chunks_exact_mut(size).enumerate() {
            let partner = &unmixed[mix.partners[row] * size..][..size];
            for (at, (value, other)) in mixed.iter_mut().zip(partner).enumerate() {
                let (y, x) = (at % (side * side) / side, at % side);
                match mix.bounds {
                    None => *value = share * *value + (1.0 - share) * other,
                    Some([top, left, bottom, right])
                        if (top..bottom).contains(&y) && (left..right).contains(&x) =>
                    {
                        *value = *other;
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(pixels)
    }

    /// View `row` alone, before it is mixed.
    fn view(&self, row: usize, images: &dyn Source, side: usize, normalize: &Normalize) -> Result<Vec<f32>> {
        let index = self.indices[row];
        let sample = images.sample(index)?;
        let [_, height, width] = sample.shape;
        let image = RgbImage::from_planar(width, height, &sample.to_pixels(&images.info().value_space)?)?;
        let view = self.cropped(row, &image)?.resized(side, side)?;
        let mut pixels = Vec::with_capacity(3 * side * side);
        for channel in 0..3 {
            for y in 0..side {
                for x in 0..side {
                    let x = if self.flips[row] { side - 1 - x } else { x };
                    pixels.push(normalize.apply(channel, view.unit(channel, y, x)));
                }
            }
        }
        Ok(pixels)
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

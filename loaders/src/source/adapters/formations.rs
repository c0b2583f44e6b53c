//! Multi-formation: several small images in each stored one, as IDC and NCFM make them.
//!
//! Decoded as their evaluation does (`single` in IDC's `test.py`): each stored image is cut into factor x factor
//! parts, which are enlarged to the size of the whole.

use super::super::{Label, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use crate::{Error, Result};

/// Larger ones leave parts of a few pixels.
const LARGEST_FACTOR: usize = 16;

/// What pads images whose side the factor does not divide: mid-grey.
const PADDING: f32 = 0.5;

/// The parts of another source's images.
#[derive(Debug)]
pub(crate) struct Formations {
    whole: Box<dyn Source>,
    info: SourceInfo,
    factor: usize,
    /// Of each sample, the stored image and the part.
    parts: Vec<(usize, usize)>,
}

impl Formations {
    /// The parts of `whole`, class by class; within a class, all first parts, then all second ones, and so on.
    ///
    /// # Errors
    /// If the factor is not from 1 to 16, or images are not square floats in [0, 1].
    pub(crate) fn new(whole: Box<dyn Source>, factor: usize) -> Result<Self> {
        let info = whole.info();
        let [_, height, width] = info.shape;
        if height != width {
            let reason = format!("{height} x {width} pixels: only square images hold several");
            return Err(Error::field(&info.path, "images", reason));
        }
        if !(1..=LARGEST_FACTOR.min(height)).contains(&factor) {
            let most = LARGEST_FACTOR.min(height);
            return Err(Error::config("factor", format!("{factor} is not a number from 1 to {most}")));
        }
        if info.value_space != ValueSpace::Unit {
            let reason = "images that hold several have pixels in [0, 1]: give no `factor` with other values";
            return Err(Error::config("factor", reason));
        }
        let mut by_class = vec![Vec::new(); info.num_classes];
        for index in 0..info.num_samples {
            by_class[whole.label(index)?.class()].push(index);
        }
        let mut parts = Vec::with_capacity(info.num_samples.saturating_mul(factor * factor));
        for images in by_class {
            for part in 0..factor * factor {
                parts.extend(images.iter().map(|image| (*image, part)));
            }
        }
        let info = SourceInfo { num_samples: parts.len(), ..info.clone() };
        Ok(Self { whole, info, factor, parts })
    }
}

impl Source for Formations {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        let (image, _) = self.parts.get(index).ok_or_else(|| self.info.no_sample(index))?;
        self.whole.label(*image)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (image, part) = *self.parts.get(index).ok_or_else(|| self.info.no_sample(index))?;
        let sample = self.whole.sample(image)?;
        let values = match sample.pixels {
            StoredPixels::F32(values) => values,
            StoredPixels::U8(values) => values.into_iter().map(|v| f32::from(v) / 255.0).collect(),
        };
        let side = self.info.shape[1];
        let place = [part / self.factor, part % self.factor];
        let planes = values.chunks_exact(side * side);
        let pixels = planes.flat_map(|plane| enlarged(plane, side, self.factor, place)).collect();
        Ok(Sample { pixels: StoredPixels::F32(pixels), ..sample })
    }
}

/// Part `[row, column]` of a square plane, enlarged to the plane's size: bilinear, between the centres of pixels.
fn enlarged(plane: &[f32], side: usize, factor: usize, [row, column]: [usize; 2]) -> Vec<f32> {
    let part = side.div_ceil(factor);
    let at = |y: usize, x: usize| {
        let (y, x) = (row * part + y, column * part + x);
        // Beyond the right and lower edges lies the padding.
        if y < side && x < side { plane[y * side + x] } else { PADDING }
    };
    let taps: Vec<(usize, usize, f32)> = (0..side)
        .map(|position| {
            let source = ((position as f32 + 0.5) * (part as f32 / side as f32) - 0.5).max(0.0);
            let first = (source as usize).min(part - 1);
            (first, (first + 1).min(part - 1), source - first as f32)
        })
        .collect();
    let mut enlarged = Vec::with_capacity(side * side);
    for &(top, bottom, down) in &taps {
        for &(left, right, across) in &taps {
            let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
            let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
            enlarged.push(upper * (1.0 - down) + lower * down);
        }
    }
    enlarged
}

#[cfg(test)]
mod tests {
    use super::super::super::{MemorySource, conformance};
    use super::*;

    /// Three images of classes 1, 0 and 1; every value is told by its place.
    fn whole(side: usize) -> Box<dyn Source> {
        let area = 3 * side * side;
        let values = (0..3 * area).map(|i| i as f32 / (3 * area) as f32).collect();
        Box::new(MemorySource::unit(3, [3, side, side], values, vec![1, 0, 1]).unwrap())
    }

    #[test]
    fn parts_come_by_class_then_by_part() {
        let parts = Formations::new(whole(4), 2).unwrap();
        conformance::check(&parts);
        let expected: Vec<(usize, usize)> =
            (0..4).map(|part| (1, part)).chain((0..4).flat_map(|part| [(0, part), (2, part)])).collect();
        assert_eq!(parts.parts, expected);
        assert_eq!(parts.info().num_samples, 12);
        let labels: Vec<usize> = (0..12).map(|i| parts.label(i).unwrap().class()).collect();
        assert_eq!(labels, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn parts_are_enlarged_between_centres() {
        let plane: Vec<f32> = (0..16).map(|i| i as f32).collect();
        // Of the part [[2, 3], [6, 7]], by hand.
        let first_row = [2.0, 2.25, 2.75, 3.0];
        let expected: Vec<f32> =
            [0.0, 1.0, 3.0, 4.0].iter().flat_map(|down| first_row.map(|value| value + down)).collect();
        assert_eq!(enlarged(&plane, 4, 2, [0, 1]), expected);
        // 3 pixels, factor 2: padded to 4 x 4 with mid-grey.
        let small: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let corner = enlarged(&small, 3, 2, [1, 1]);
        assert_eq!((corner[0], corner[8]), (8.0, 0.5));
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        for factor in [0, 5, 17] {
            let error = Formations::new(whole(4), factor).unwrap_err().to_string();
            assert!(error.starts_with(&format!("factor: {factor} is not")), "{error}");
        }
        let oblong = MemorySource::unit(1, [3, 2, 4], vec![0.0; 24], vec![0]).unwrap();
        assert!(Formations::new(Box::new(oblong), 2).is_err());
    }
}

//! Texture canvases: MTT's runs with `--texture` store images that are larger than those of the network and join at
//! their edges.
//!
//! Each use of a canvas is a window of it, at a place that MTT draws anew (`utils.py`: a random roll, then a crop).
//! Refined images are kept, and so windows must stay where they are: they are those that show each pixel once.

use super::super::{Label, Sample, Source, SourceInfo, StoredPixels};
use crate::{Error, Result};

/// MTT's default is 2.
const LARGEST: usize = 16;

/// How many images of `side` pixels lie along a canvas of `height` x `width`; none if it is no larger than an image.
pub(crate) fn along([height, width]: [usize; 2], side: usize) -> Option<usize> {
    let along = height / side;
    ((2..=LARGEST).contains(&along) && height == width && height == along * side).then_some(along)
}

/// The windows of another source's images.
#[derive(Debug)]
pub(crate) struct Canvases {
    whole: Box<dyn Source>,
    info: SourceInfo,
    /// How many windows lie along each side.
    along: usize,
}

impl Canvases {
    /// The windows of `whole`, canvas by canvas, row by row.
    ///
    /// # Errors
    /// If `along` is not from 1 to 16, or does not divide both sides of the canvases.
    pub(crate) fn new(whole: Box<dyn Source>, along: usize) -> Result<Self> {
        let info = whole.info();
        let [channels, height, width] = info.shape;
        if !(1..=LARGEST).contains(&along) {
            return Err(Error::config("canvas", format!("{along} is not a number from 1 to {LARGEST}")));
        }
        if height % along != 0 || width % along != 0 {
            let reason = format!("{along} does not divide images of {height} x {width} pixels");
            return Err(Error::config("canvas", reason));
        }
        let samples = info.num_samples.saturating_mul(along * along);
        let shape = [channels, height / along, width / along];
        let info = SourceInfo { num_samples: samples, shape, ..info.clone() };
        Ok(Self { whole, info, along })
    }

    /// The canvas of a sample, and the window's place in it.
    fn place(&self, index: usize) -> Result<(usize, [usize; 2])> {
        if index >= self.info.num_samples {
            return Err(self.info.no_sample(index));
        }
        let window = index % (self.along * self.along);
        Ok((index / (self.along * self.along), [window / self.along, window % self.along]))
    }
}

impl Source for Canvases {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.whole.label(self.place(index)?.0)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (canvas, place) = self.place(index)?;
        let sample = self.whole.sample(canvas)?;
        let whole = [sample.shape[1], sample.shape[2]];
        let window = [self.info.shape[1], self.info.shape[2]];
        let pixels = match sample.pixels {
            StoredPixels::F32(values) => StoredPixels::F32(cut(&values, whole, window, place)),
            StoredPixels::U8(values) => StoredPixels::U8(cut(&values, whole, window, place)),
        };
        Ok(Sample { pixels, shape: self.info.shape, label: sample.label })
    }
}

/// The window at `[row, column]`, in windows, of each plane.
fn cut<T: Copy>(planes: &[T], whole: [usize; 2], window: [usize; 2], [row, column]: [usize; 2]) -> Vec<T> {
    let lines = planes
        .chunks_exact(whole[0] * whole[1])
        .flat_map(|plane| plane.chunks_exact(whole[1]).skip(row * window[0]).take(window[0]));
    lines.flat_map(|line| line[column * window[1]..][..window[1]].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::{MemorySource, conformance};
    use super::*;

    fn canvases() -> Box<dyn Source> {
        let values = (0..2 * 48).map(|i| i as f32 / 96.0).collect();
        Box::new(MemorySource::unit(2, [3, 4, 4], values, vec![1, 0]).unwrap())
    }

    #[test]
    fn windows_show_each_pixel_once() {
        let windows = Canvases::new(canvases(), 2).unwrap();
        conformance::check(&windows);
        assert_eq!((windows.info().num_samples, windows.info().shape), (8, [3, 2, 2]));
        let labels: Vec<usize> = (0..8).map(|index| windows.label(index).unwrap().class()).collect();
        assert_eq!(labels, [1, 1, 1, 1, 0, 0, 0, 0]);
        let StoredPixels::F32(last) = windows.sample(7).unwrap().pixels else { panic!("floats") };
        assert_eq!(last[..4], [58.0 / 96.0, 59.0 / 96.0, 62.0 / 96.0, 63.0 / 96.0]);
        assert_eq!(windows.sample(8).unwrap_err().to_string(), windows.label(8).unwrap_err().to_string());
        let whole = Canvases::new(canvases(), 1).unwrap();
        assert_eq!(whole.sample(1).unwrap(), canvases().sample(1).unwrap());
    }

    #[test]
    fn canvases_that_cannot_be_are_refused() {
        for (along, reason) in
            [(0, "canvas: 0 is not"), (17, "canvas: 17 is not"), (3, "canvas: 3 does not divide")]
        {
            let error = Canvases::new(canvases(), along).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn canvases_are_told_by_their_size() {
        assert_eq!((along([64, 64], 32), along([96, 96], 32)), (Some(2), Some(3)));
        for [height, width] in [[32, 32], [64, 32], [80, 80], [16, 16], [1024, 1024]] {
            assert_eq!(along([height, width], 32), None);
        }
    }
}

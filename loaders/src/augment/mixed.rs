//! Batches in which every image is mixed with another one.

use super::draws::Draws;
use super::probability;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Puts a rectangle of another image of the batch into every image, and mixes their targets by area (Yun et al.,
/// "CutMix", ICCV 2019).
///
/// A batch has one rectangle. Its sides are `sqrt(1 - lambda)` of the image's, with `lambda` from Beta(alpha, alpha); its
/// centre is uniform, and what lies outside the image is clipped.
///
/// ```
/// use diver_loaders::augment::CutMix;
///
/// assert_eq!(CutMix::default(), CutMix::new(1.0, 1.0)?);
/// assert!(CutMix::new(0.0, 1.0).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CutMix {
    /// Parameter of the Beta distribution, above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    alpha: f64,
    /// Probability that a batch is mixed.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) p: f64,
}

/// Averages every image with another one of the batch, and their targets alike (Zhang et al., "mixup", ICLR 2018).
///
/// A batch has one weight, from Beta(alpha, alpha): `weight * image + (1 - weight) * other`.
///
/// ```
/// use diver_loaders::augment::MixUp;
///
/// assert_eq!(MixUp::default(), MixUp::new(0.8, 1.0)?);
/// assert!(MixUp::new(0.8, -0.5).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MixUp {
    /// Parameter of the Beta distribution, above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    alpha: f64,
    /// Probability that a batch is mixed.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) p: f64,
}

impl Default for CutMix {
    fn default() -> Self {
        Self { alpha: 1.0, p: 1.0 }
    }
}

impl Default for MixUp {
    fn default() -> Self {
        Self { alpha: 0.8, p: 1.0 }
    }
}

impl CutMix {
    /// Mixes a batch with probability `p` (default: 1), with `lambda` from Beta(alpha, alpha) (default: 1).
    ///
    /// # Errors
    /// If `alpha` is not finite and above 0, or `p` is not in [0, 1].
    pub fn new(alpha: f64, p: f64) -> Result<Self> {
        let mix = Self { alpha, p };
        mix.check()?;
        Ok(mix)
    }

    pub(super) fn check(&self) -> Result<()> {
        concentration(self.alpha).and_then(|()| probability(self.p))
    }

    /// How a batch of `rows` images of `height` x `width` pixels is mixed, if it is.
    pub(super) fn draw(&self, draws: &mut Draws, rows: usize, [height, width]: [usize; 2]) -> Option<Mixed> {
        if !draws.chance(self.p) {
            return None;
        }
        let cut = libm::sqrt(1.0 - draws.beta(self.alpha));
        let mut drawn = |side: usize| {
            let half = (side as f64 * cut) as usize / 2;
            let centre = draws.below(side);
            (centre.saturating_sub(half), (centre + half).min(side))
        };
        let ((top, bottom), (left, right)) = (drawn(height), drawn(width));
        let cut = ((bottom - top) * (right - left)) as f64 / (height * width).max(1) as f64;
        let partners = draws.permutation(rows);
        Some(Mixed { partners, share: 1.0 - cut, bounds: Some([top, left, bottom, right]) })
    }
}

impl MixUp {
    /// Mixes a batch with probability `p` (default: 1), with a weight from Beta(alpha, alpha) (default: 0.8).
    ///
    /// # Errors
    /// If `alpha` is not finite and above 0, or `p` is not in [0, 1].
    pub fn new(alpha: f64, p: f64) -> Result<Self> {
        let mix = Self { alpha, p };
        mix.check()?;
        Ok(mix)
    }

    pub(super) fn check(&self) -> Result<()> {
        concentration(self.alpha).and_then(|()| probability(self.p))
    }

    /// How a batch of `rows` images is mixed, if it is.
    pub(super) fn draw(&self, draws: &mut Draws, rows: usize) -> Option<Mixed> {
        if !draws.chance(self.p) {
            return None;
        }
        let share = draws.beta(self.alpha);
        Some(Mixed { partners: draws.permutation(rows), share, bounds: None })
    }
}

fn concentration(alpha: f64) -> Result<()> {
    if alpha > 0.0 && alpha.is_finite() {
        return Ok(());
    }
    Err(Error::config("alpha", format!("{alpha} must be a finite number above 0")))
}

/// How the images of a batch are mixed.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Mixed, Views};
///
/// // CutMix: the left one of two columns comes from the other image.
/// let mixed = Mixed { partners: vec![1, 0], share: 0.5, bounds: Some([0, 0, 1, 1]) };
/// let (mut images, mut targets) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]);
/// Views::new([], Some(mixed)).apply(&mut images, [2, 1, 1, 2], &mut targets, 2, &Normalize::IMAGENET)?;
/// assert_eq!((images, targets), ([3.0, 2.0, 1.0, 4.0], [0.5; 4]));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The row that each row is mixed with. Every row is the partner of one row.
    pub partners: Vec<usize>,
    /// Each row's own share, 0 to 1.
    pub share: f64,
    /// CutMix: the first row and column of the partner's rectangle, and the row and column behind it, in pixels. MixUp
    /// has none.
    pub bounds: Option<[usize; 4]>,
}

impl Mixed {
    /// The reason why `rows` images of `height` x `width` pixels cannot be mixed so, if there is one.
    pub(crate) fn fault(&self, rows: usize, size: [usize; 2]) -> Option<String> {
        let mut is_partner = vec![false; rows];
        for partner in &self.partners {
            if let Some(is_partner) = is_partner.get_mut(*partner) {
                *is_partner = true;
            }
        }
        if self.partners.len() != rows || is_partner.contains(&false) {
            return Some(format!("each of the {rows} rows must be the partner of one row"));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Some(format!("a share of {} must be in [0, 1]", self.share));
        }
        self.bounds.and_then(|bounds| outside(bounds, size))
    }

    /// Mixes a batch of images of channels of `height` x `width` pixels in place.
    pub(crate) fn apply(&self, images: &mut [f32], [channels, height, width]: [usize; 3]) {
        let Some([top, left, bottom, right]) = self.bounds else {
            return self.average(images, channels * height * width);
        };
        exchange(images, channels * height * width, &self.partners, |image, partner| {
            let planes = image.chunks_exact_mut(height * width).zip(partner.chunks_exact(height * width));
            for (plane, partner) in planes {
                for row in top..bottom {
                    let boxed = row * width + left..row * width + right;
                    plane[boxed.clone()].copy_from_slice(&partner[boxed]);
                }
            }
        });
    }

    /// Averages rows of `width` values with their partners, by the share.
    pub(super) fn average(&self, rows: &mut [f32], width: usize) {
        let share = self.share as f32;
        exchange(rows, width, &self.partners, |row, partner| {
            for (value, other) in row.iter_mut().zip(partner) {
                *value = share * *value + (1.0 - share) * other;
            }
        });
    }
}

/// The reason why a rectangle does not lie in an image of `height` x `width` pixels, if there is one.
pub(super) fn outside([top, left, bottom, right]: [usize; 4], [height, width]: [usize; 2]) -> Option<String> {
    let is_inside = top <= bottom && bottom <= height && left <= right && right <= width;
    (!is_inside).then(|| {
        format!("the rectangle {:?} must lie in {height} x {width} pixels", [top, left, bottom, right])
    })
}

/// Calls `mix` for every row of `width` values with its partner as it was at first. It follows each cycle of the
/// permutation `partners`, so that only the first row of a cycle has to be copied.
fn exchange(rows: &mut [f32], width: usize, partners: &[usize], mix: impl Fn(&mut [f32], &[f32])) {
    let mut is_mixed = vec![false; partners.len()];
    let mut first = Vec::new();
    let span = |row: usize| row * width..(row + 1) * width;
    for start in 0..partners.len() {
        if is_mixed[start] {
            continue;
        }
        first.clear();
        first.extend_from_slice(&rows[span(start)]);
        let mut row = start;
        loop {
            is_mixed[row] = true;
            let partner = partners[row];
            if is_mixed[partner] {
                // The cycle ends: this partner is the row that was mixed first.
                mix(&mut rows[span(row)], &first);
                break;
            }
            // Two different rows never overlap.
            if let Ok([row, partner]) = rows.get_disjoint_mut([span(row), span(partner)]) {
                mix(row, partner);
            }
            row = partner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Key;
    use super::*;
    use proptest::prelude::*;

    fn draws(position: u64) -> Draws {
        Key { seed: 3, epoch: 0, nth: 0 }.draws("test", position)
    }

    #[test]
    fn rows_see_their_partners_as_they_were() {
        for partners in [vec![2, 0, 1, 3], vec![1, 0, 3, 2], vec![0, 1, 2, 3]] {
            let mut rows = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];
            Mixed { partners: partners.clone(), share: 0.25, bounds: None }.average(&mut rows, 2);
            for (row, partner) in partners.iter().enumerate() {
                let expected = 0.25 * (row + 1) as f32 + 0.75 * (partner + 1) as f32;
                assert_eq!(rows[2 * row..2 * row + 2], [expected; 2], "{partners:?}");
            }
        }
    }

    #[test]
    fn mixes_come_as_often_as_asked_for() {
        let mixed = |p: f64| {
            let mix = CutMix::new(1.0, p).unwrap();
            (0..4000).filter(|position| mix.draw(&mut draws(*position), 2, [4, 4]).is_some()).count()
        };
        // The standard deviation is 32.
        assert!(mixed(0.5).abs_diff(2000) < 110);
        assert_eq!((mixed(0.0), mixed(1.0)), (0, 4000));
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let mixed = Mixed { partners: vec![1, 0], share: 0.5, bounds: Some([0, 0, 4, 4]) };
        assert_eq!(mixed.fault(2, [4, 4]), None);
        for (rows, size) in [(3, [4, 4]), (1, [4, 4]), (2, [3, 4]), (2, [4, 3])] {
            assert!(mixed.fault(rows, size).is_some(), "{rows} {size:?}");
        }
        for partners in [vec![0, 0], vec![0, 2], vec![1]] {
            assert!(Mixed { partners, ..mixed.clone() }.fault(2, [4, 4]).is_some());
        }
        assert!(Mixed { share: f64::NAN, ..mixed }.fault(2, [4, 4]).is_some());
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for error in [CutMix::new(alpha, 1.0).unwrap_err(), MixUp::new(alpha, 1.0).unwrap_err()] {
                assert!(matches!(error, Error::Config { option: "alpha", .. }), "{error}");
            }
        }
        assert!(matches!(CutMix::new(1.0, f64::NAN).unwrap_err(), Error::Config { option: "p", .. }));
    }

    proptest! {
        #[test]
        fn whatever_is_drawn_fits(
            rows in 0_usize..20, height in 1_usize..40, width in 1_usize..40, alpha in 0.01_f64..9.0, position: u64
        ) {
            let cut = CutMix::new(alpha, 1.0).unwrap().draw(&mut draws(position), rows, [height, width]).unwrap();
            prop_assert_eq!(cut.fault(rows, [height, width]), None);
            let [top, left, bottom, right] = cut.bounds.unwrap();
            let area = ((bottom - top) * (right - left)) as f64 / (height * width) as f64;
            prop_assert!((cut.share - (1.0 - area)).abs() < 1e-12);
            let mixed = MixUp::new(alpha, 1.0).unwrap().draw(&mut draws(position), rows).unwrap();
            prop_assert_eq!(mixed.fault(rows, [height, width]), None);
        }
    }
}

//! The operators of [`Dsa`](super::Dsa) that need no sampling between pixels.

use super::draws::Draws;

/// A change of an image's colours: `x + brightness`; then `(x - m) * saturation + m`, where `m` is the pixel's mean over
/// channels; then `(x - m) * contrast + m`, where `m` is the image's mean.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Color, Step, Views};
///
/// let color = Color { brightness: 0.5, saturation: 1.0, contrast: 2.0 };
/// let mut image = [1.0, 3.0];
/// let views = Views::new([Step::Color(vec![color])], None);
/// views.apply(&mut image, [1, 1, 1, 2], &mut [], 0, &Normalize::IMAGENET)?;
/// assert_eq!(image, [0.5, 4.5]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Color {
    /// Added to every value; drawn from -0.5 to 0.5.
    pub brightness: f32,
    /// Multiplies each value's distance from its pixel's grey; drawn from 0 to 2.
    pub saturation: f32,
    /// Multiplies each value's distance from the image's mean; drawn from 0.5 to 1.5.
    pub contrast: f32,
}

impl Color {
    pub(super) fn draw(draws: &mut Draws) -> Self {
        let brightness = (draws.unit() - 0.5) as f32;
        let saturation = (draws.unit() * 2.0) as f32;
        Self { brightness, saturation, contrast: (draws.unit() + 0.5) as f32 }
    }

    /// Changes an image of channels of `area` pixels.
    pub(super) fn apply(&self, image: &mut [f32], area: usize, scratch: &mut Vec<f32>) {
        let channels = (image.len() / area) as f32;
        scratch.clear();
        scratch.resize(area, 0.0);
        for plane in image.chunks_exact(area) {
            for (sum, value) in scratch.iter_mut().zip(plane) {
                *sum += value;
            }
        }
        // Saturation keeps each pixel's mean, so that the image's mean moves by the brightness alone.
        let mean = mean(image) as f32 + self.brightness;
        for plane in image.chunks_exact_mut(area) {
            for (value, sum) in plane.iter_mut().zip(scratch.iter()) {
                let grey = sum / channels;
                let saturated = (*value - grey) * self.saturation + grey + self.brightness;
                *value = (saturated - mean) * self.contrast + mean;
            }
        }
    }
}

/// The mean of at least one value. There are eight partial sums, so that the processor can add them at once.
pub(super) fn mean(values: &[f32]) -> f64 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value);
        }
    }
    let rest: f64 = rest.iter().copied().map(f64::from).sum();
    (sums.iter().sum::<f64>() + rest) / values.len() as f64
}

/// A shift of an image by whole pixels. Pixels that come in from outside are 0. Shifts of up to an eighth of the sides are
/// drawn.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Shift, Step, Views};
///
/// let mut image = [1.0, 2.0, 3.0];
/// let views = Views::new([Step::Shift(vec![Shift { rows: 0, columns: 1 }])], None);
/// views.apply(&mut image, [1, 1, 1, 3], &mut [], 0, &Normalize::IMAGENET)?;
/// assert_eq!(image, [2.0, 3.0, 0.0]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// The row of the image that becomes the first one; negative to move the image down.
    pub rows: isize,
    /// The column of the image that becomes the first one; negative to move the image right.
    pub columns: isize,
}

impl Shift {
    pub(super) fn draw(draws: &mut Draws, [height, width]: [usize; 2]) -> Self {
        let mut drawn = |side: usize| {
            let most = (0.125 * side as f64 + 0.5) as usize;
            draws.below(2 * most + 1) as isize - most as isize
        };
        Self { rows: drawn(height), columns: drawn(width) }
    }

    /// Shifts an image of channels of `height` x `width` pixels.
    pub(super) fn apply(&self, image: &mut [f32], [height, width]: [usize; 2], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.extend_from_slice(image);
        image.fill(0.0);
        // Along one side: where the pixels that stay begin, before and after, and how many there are.
        let kept = |shift: isize, side: usize| {
            let far = shift.unsigned_abs().min(side);
            if shift < 0 { (0, far, side - far) } else { (far, 0, side - far) }
        };
        let (from_row, to_row, rows) = kept(self.rows, height);
        let (from_column, to_column, columns) = kept(self.columns, width);
        let area = height * width;
        for (plane, before) in image.chunks_exact_mut(area).zip(scratch.chunks_exact(area)) {
            for row in 0..rows {
                let (from, to) = ((from_row + row) * width + from_column, (to_row + row) * width + to_column);
                plane[to..to + columns].copy_from_slice(&before[from..from + columns]);
            }
        }
    }
}

/// A rectangle of an image that is set to 0. Rectangles of half the image's sides, rounded up, are drawn.
///
/// ```
/// use diver_loaders::augment::Cutout;
///
/// assert_eq!(Cutout::at([3, 3], [6, 6]).bounds, [2, 2, 5, 5]);
/// assert_eq!(Cutout::at([0, 8], [8, 8]).bounds, [0, 6, 2, 8]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutout {
    /// The first row and column of the rectangle, and the row and column behind it, in pixels.
    pub bounds: [usize; 4],
}

impl Cutout {
    /// The rectangle of half the sides of an image of `size` = `[height, width]` pixels, clipped to the image. `centre` is
    /// the row and the column in its middle, or for an even side the first ones behind the middle.
    #[must_use]
    pub fn at(centre: [usize; 2], size: [usize; 2]) -> Self {
        let [[top, bottom], [left, right]] = [0, 1].map(|axis| {
            let (centre, side, length) = (centre[axis], size[axis], Self::length(size[axis]));
            let start = centre.saturating_sub(length / 2).min(side);
            [start, centre.saturating_add(length - length / 2).min(side)]
        });
        Self { bounds: [top, left, bottom, right] }
    }

    fn length(side: usize) -> usize {
        (0.5 * side as f64 + 0.5) as usize
    }

    pub(super) fn draw(draws: &mut Draws, size: [usize; 2]) -> Self {
        // A side of even length has one more possible centre, since it lies between pixels.
        let centre = size.map(|side| draws.below(side + 1 - Self::length(side) % 2));
        Self::at(centre, size)
    }

    /// Blanks the rectangle in every channel of an image of `height` x `width` pixels, in which it lies.
    pub(super) fn apply(&self, image: &mut [f32], [height, width]: [usize; 2]) {
        let [top, left, bottom, right] = self.bounds;
        for plane in image.chunks_exact_mut(height * width) {
            for row in plane[top * width..bottom * width].chunks_exact_mut(width) {
                row[left..right].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Key;
    use super::*;
    use proptest::prelude::*;

    fn draws(position: u64) -> Draws {
        Key { seed: 0, epoch: 0, nth: 0 }.draws("test", position)
    }

    #[test]
    fn shifts_reach_an_eighth_both_ways() {
        let shifts: Vec<Shift> =
            (0..2000).map(|position| Shift::draw(&mut draws(position), [32, 20])).collect();
        let rows: std::collections::BTreeSet<isize> = shifts.iter().map(|shift| shift.rows).collect();
        let columns: std::collections::BTreeSet<isize> = shifts.iter().map(|shift| shift.columns).collect();
        assert!(rows.into_iter().eq(-4..=4) && columns.into_iter().eq(-3..=3));
    }

    #[test]
    fn a_shift_leaves_zeros_behind() {
        let mut image: Vec<f32> = (1..=6).map(|value| value as f32).collect();
        Shift { rows: 1, columns: -1 }.apply(&mut image, [2, 3], &mut Vec::new());
        assert_eq!(image, [0.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
        Shift { rows: 0, columns: isize::MIN }.apply(&mut image, [2, 3], &mut Vec::new());
        assert_eq!(image, [0.0; 6]);
    }

    #[test]
    fn colours_lie_in_their_ranges() {
        for position in 0..1000 {
            let Color { brightness, saturation, contrast } = Color::draw(&mut draws(position));
            assert!((-0.5..=0.5).contains(&brightness) && (0.0..=2.0).contains(&saturation));
            assert!((0.5..=1.5).contains(&contrast));
        }
    }

    proptest! {
        #[test]
        fn rectangles_lie_in_their_image(height in 1_usize..50, width in 1_usize..50, position: u64) {
            let [top, left, bottom, right] = Cutout::draw(&mut draws(position), [height, width]).bounds;
            prop_assert!(top < bottom && bottom <= height && left < right && right <= width);
            // At least half of the rectangle's sides, rounded down, lies inside.
            prop_assert!(bottom - top >= (height.div_ceil(2) / 2).max(1) && bottom - top <= height.div_ceil(2));
            prop_assert!(right - left >= (width.div_ceil(2) / 2).max(1) && right - left <= width.div_ceil(2));
        }
    }
}

//! Linear maps of an image about its centre.

/// A linear map about the image's centre, sampled bilinearly: torch's `affine_grid` without a translation, then
/// `grid_sample`, both with `align_corners=False` and zeros outside the image.
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Affine, Step, Views};
///
/// let mut image = [0.0, 1.0, 2.0, 0.0];
/// let views = Views::new([Step::Affine(vec![Affine::scale(0.5, 1.0)])], None);
/// views.apply(&mut image, [1, 1, 1, 4], &mut [], 0, &Normalize::IMAGENET)?;
/// assert_eq!(image, [0.75, 1.25, 1.75, 1.5]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Sends a place `(x, y)` of the result to the place of the image that is seen there; both run from -1 to 1 between
    /// the image's edges.
    pub matrix: [[f64; 2]; 2],
}

impl Affine {
    /// Shrinks an image by the factor `x` along its rows and `y` along its columns; factors below 1 enlarge.
    #[must_use]
    pub fn scale(x: f64, y: f64) -> Self {
        Self { matrix: [[x, 0.0], [0.0, y]] }
    }

    /// Turns a square image counterclockwise.
    #[must_use]
    pub fn rotation(radians: f64) -> Self {
        let (sin, cos) = (libm::sin(radians), libm::cos(radians));
        Self { matrix: [[cos, -sin], [sin, cos]] }
    }

    /// Maps an image of channels of `height` x `width` pixels.
    pub(super) fn apply(&self, image: &mut [f32], [height, width]: [usize; 2], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.extend_from_slice(image);
        let [[xx, xy], [yx, yy]] = self.matrix;
        let [rows, columns] = [height as f64, width as f64];
        // In pixels, from the middle of the first one. The matrix counts in halves of the image's sides.
        let (middle_row, middle_column) = ((rows - 1.0) / 2.0, (columns - 1.0) / 2.0);
        let (across, down) = (columns / rows, rows / columns);
        let area = height * width;
        let mut taps = Vec::with_capacity(width);
        for row in 0..height {
            let y = row as f64 - middle_row;
            taps.clear();
            taps.extend((0..width).map(|column| {
                let x = column as f64 - middle_column;
                let from_row = yx * down * x + yy * y + middle_row;
                let from_column = xx * x + xy * across * y + middle_column;
                taps_at([from_row, from_column], [height, width])
            }));
            for (plane, before) in image.chunks_exact_mut(area).zip(scratch.chunks_exact(area)) {
                let pixels = &mut plane[row * width..(row + 1) * width];
                for (pixel, [a, b, c, d]) in pixels.iter_mut().zip(&taps) {
                    let part = |(place, weight): &(usize, f32)| weight * before[*place];
                    *pixel = part(a) + part(b) + part(c) + part(d);
                }
            }
        }
    }
}

/// The four pixels of a plane around a place, and their weights.
fn taps_at([row, column]: [f64; 2], [height, width]: [usize; 2]) -> [(usize, f32); 4] {
    let [(upper, above), (lower, below)] = neighbours(row, height);
    let [(left, before), (right, behind)] = neighbours(column, width);
    [
        (upper * width + left, above * before),
        (upper * width + right, above * behind),
        (lower * width + left, below * before),
        (lower * width + right, below * behind),
    ]
}

/// The two of `count` pixels next to a place, and their weights. A pixel outside has the weight 0.
fn neighbours(place: f64, count: usize) -> [(usize, f32); 2] {
    // Also false for NaN, and for what an integer does not hold.
    if !(place > -1.0 && place < count as f64) {
        return [(0, 0.0); 2];
    }
    // The conversion rounds down, as the sum is above 0. (`floor` is a function call on x86-64 without SSE 4.1.)
    let after = (place + 1.0) as usize;
    let share = (place + 1.0 - after as f64) as f32;
    let first = if after == 0 { (0, 0.0) } else { (after - 1, 1.0 - share) };
    [first, if after < count { (after, share) } else { (0, 0.0) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_turns_and_unit_scales_change_nothing() {
        let image: Vec<f32> = (0..24).map(|value| value as f32).collect();
        for map in [Affine::scale(1.0, 1.0), Affine::rotation(0.0), Affine::rotation(std::f64::consts::TAU)] {
            let mut same = image.clone();
            map.apply(&mut same, [3, 4], &mut Vec::new());
            assert!(image.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-4), "{map:?}: {same:?}");
        }
    }

    #[test]
    fn a_quarter_turn_is_counterclockwise() {
        let mut image = vec![1.0, 2.0, 3.0, 4.0];
        Affine::rotation(std::f64::consts::FRAC_PI_2).apply(&mut image, [2, 2], &mut Vec::new());
        assert!(image.iter().zip([2.0, 4.0, 1.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{image:?}");
    }

    #[test]
    fn places_outside_are_zero_whatever_the_map() {
        for factor in [1e300, f64::INFINITY, f64::NAN, 1e18] {
            let mut image = vec![1.0; 8];
            Affine::scale(factor, factor).apply(&mut image, [2, 4], &mut Vec::new());
            assert_eq!(image, [0.0; 8], "{factor}");
        }
    }
}

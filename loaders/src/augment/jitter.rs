//! Random changes of brightness, contrast, saturation and hue.

use super::draws::Draws;
use super::operators::mean;
use crate::{Error, Normalize, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes brightness, contrast, saturation and hue of every image, in random order: torchvision's `ColorJitter`.
///
/// It works on pixels in [0, 1]: the normalisation is undone and values outside are clamped, as the formulas assume
/// that range; afterwards the image is normalised again. Saturation and hue leave images of one channel as they are.
///
/// ```
/// use diver_loaders::augment::ColorJitter;
///
/// let jitter = ColorJitter::new(0.4, 0.4, 0.4, 0.1)?;
/// assert_ne!(jitter, ColorJitter::default()); // The default changes nothing.
/// assert!(ColorJitter::new(0.0, 0.0, 0.0, 0.7).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Brightness is multiplied by a factor from max(0, 1 - brightness) to 1 + brightness.
    #[schemars(range(min = 0.0, max = 100.0))]
    brightness: f64,
    /// Contrast is multiplied by a factor from max(0, 1 - contrast) to 1 + contrast.
    #[schemars(range(min = 0.0, max = 100.0))]
    contrast: f64,
    /// Saturation is multiplied by a factor from max(0, 1 - saturation) to 1 + saturation.
    #[schemars(range(min = 0.0, max = 100.0))]
    saturation: f64,
    /// Hue is turned by a share of the colour circle from -hue to hue.
    #[schemars(range(min = 0.0, max = 0.5))]
    hue: f64,
}

impl ColorJitter {
    /// Such a factor leaves little but black and white, and f32 does not overflow.
    const LARGEST: f64 = 100.0;

    /// Factors from `max(0, 1 - x)` to `1 + x` for brightness, contrast and saturation (each from 0 to 100), and turns
    /// of the hue by up to `hue` of the colour circle (0 to 0.5). An amount of 0 (default) changes nothing.
    ///
    /// # Errors
    /// If an amount is out of its range.
    pub fn new(brightness: f64, contrast: f64, saturation: f64, hue: f64) -> Result<Self> {
        let jitter = Self { brightness, contrast, saturation, hue };
        jitter.check()?;
        Ok(jitter)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (option, amount, most) in [
            ("brightness", self.brightness, Self::LARGEST),
            ("contrast", self.contrast, Self::LARGEST),
            ("saturation", self.saturation, Self::LARGEST),
            ("hue", self.hue, 0.5),
        ] {
            if !(0.0..=most).contains(&amount) {
                return Err(Error::config(option, format!("{amount} must be in [0, {most}]")));
            }
        }
        Ok(())
    }

    /// Whether it never changes an image.
    pub(super) fn is_identity(&self) -> bool {
        *self == Self::default()
    }

    /// The adjustments of one image, in the order in which they are made. An amount of 0 makes none.
    pub(super) fn draw(&self, draws: &mut Draws) -> [Option<Adjustment>; 4] {
        let order = draws.permutation(4);
        let mut factor = |amount: f64| {
            let factor = draws.between((1.0 - amount).max(0.0), 1.0 + amount) as f32;
            (amount > 0.0).then_some(factor)
        };
        let brightness = factor(self.brightness).map(Adjustment::Brightness);
        let contrast = factor(self.contrast).map(Adjustment::Contrast);
        let saturation = factor(self.saturation).map(Adjustment::Saturation);
        let turn = draws.between(-self.hue, self.hue) as f32;
        let hue = (self.hue > 0.0).then_some(Adjustment::Hue(turn));
        let all = [brightness, contrast, saturation, hue];
        std::array::from_fn(|place| all[order[place]])
    }
}

/// One change of an image's colours, by torchvision's formulas (`transforms.v2.functional`, for float images).
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Adjustment, Step, Views};
///
/// let pixels = Normalize::new([0.0; 3], [1.0; 3])?;
/// let mut image = [0.25, 0.75];
/// let views = Views::new([Step::Jitter(vec![[Some(Adjustment::Brightness(2.0)), None, None, None]])], None);
/// views.apply(&mut image, [1, 1, 1, 2], &mut [], 0, &pixels)?;
/// assert_eq!(image, [0.5, 1.0]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Adjustment {
    /// Multiplies pixels by the factor.
    Brightness(f32),
    /// Moves pixels away from the image's mean grey, or towards it for a factor below 1.
    Contrast(f32),
    /// Moves pixels away from their own grey, or towards it for a factor below 1.
    Saturation(f32),
    /// Turns the hue by this share of the colour circle, -0.5 to 0.5.
    Hue(f32),
}

impl Adjustment {
    /// Adjusts an image of 1 or 3 channels of `area` pixels in [0, 1]; they stay there.
    fn apply(self, image: &mut [f32], area: usize) {
        match self {
            Self::Brightness(factor) => {
                for value in image {
                    *value = (*value * factor).clamp(0.0, 1.0);
                }
            }
            Self::Contrast(factor) => {
                let mean = match planes(image, area) {
                    Some(planes) => {
                        let [red, green, blue] = planes.map(|plane| mean(plane) as f32);
                        grey(red, green, blue)
                    }
                    None => mean(image) as f32,
                };
                for value in image {
                    *value = blend(*value, mean, factor);
                }
            }
            Self::Saturation(factor) => each_pixel(image, area, |[r, g, b]| {
                let grey = grey(r, g, b);
                [r, g, b].map(|value| blend(value, grey, factor))
            }),
            Self::Hue(turn) => each_pixel(image, area, |pixel| turned(pixel, turn)),
        }
    }
}

/// Adjusts a normalised image of 1 or 3 channels of `area` pixels.
pub(super) fn apply(
    adjustments: &[Option<Adjustment>],
    image: &mut [f32],
    area: usize,
    normalize: &Normalize,
) {
    for (channel, plane) in image.chunks_exact_mut(area).enumerate() {
        for value in plane {
            *value = normalize.invert(channel, *value).clamp(0.0, 1.0);
        }
    }
    for adjustment in adjustments.iter().flatten() {
        adjustment.apply(image, area);
    }
    for (channel, plane) in image.chunks_exact_mut(area).enumerate() {
        for value in plane {
            *value = normalize.apply(channel, *value);
        }
    }
}

/// The planes of an image of three channels of `area` pixels; none for one of a single channel.
fn planes(image: &mut [f32], area: usize) -> Option<[&mut [f32]; 3]> {
    let (red, rest) = image.split_at_mut_checked(area)?;
    let (green, blue) = rest.split_at_mut_checked(area)?;
    (blue.len() == area).then_some([red, green, blue])
}

/// Changes every pixel of an image of three channels; an image of one stays as it is.
fn each_pixel(image: &mut [f32], area: usize, change: impl Fn([f32; 3]) -> [f32; 3]) {
    let Some([red, green, blue]) = planes(image, area) else { return };
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        [*r, *g, *b] = change([*r, *g, *b]);
    }
}

/// Luma of ITU-R BT.601, with torchvision's digits.
fn grey(red: f32, green: f32, blue: f32) -> f32 {
    0.2989 * red + 0.587 * green + 0.114 * blue
}

fn blend(value: f32, other: f32, factor: f32) -> f32 {
    (factor * value + (1.0 - factor) * other).clamp(0.0, 1.0)
}

/// The pixel with its hue turned: to hue, saturation and value, and back (Smith, "Color Gamut Transform Pairs", SIGGRAPH
/// 1978).
fn turned([red, green, blue]: [f32; 3], turn: f32) -> [f32; 3] {
    let (value, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let range = value - least;
    if range == 0.0 {
        return [red, green, blue];
    }
    let sixths = if value == red {
        (green - blue) / range
    } else if value == green {
        2.0 + (blue - red) / range
    } else {
        4.0 + (red - green) / range
    };
    let hue = (sixths / 6.0 + turn).rem_euclid(1.0) * 6.0;
    // Which sixth of the circle the hue lies in, and how far in it. Rounding may make the last one the seventh.
    let (sector, within) = (hue.floor(), hue - hue.floor());
    let saturation = range / value;
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - saturation * within);
    let rising = value * (1.0 - saturation * (1.0 - within));
    match sector as u8 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Key;
    use super::*;

    #[test]
    fn adjustments_lie_in_their_ranges_and_come_in_every_order() {
        let jitter = ColorJitter::new(0.4, 2.0, 0.0, 0.1).unwrap();
        let mut orders = std::collections::HashSet::new();
        for position in 0..600 {
            let adjustments = jitter.draw(&mut Key { seed: 0, epoch: 0, nth: 0 }.draws("jitter", position));
            let order = adjustments.map(|adjustment| match adjustment {
                Some(Adjustment::Brightness(factor)) => ((0.6..=1.4).contains(&factor), 0),
                Some(Adjustment::Contrast(factor)) => ((0.0..=3.0).contains(&factor), 1),
                Some(Adjustment::Saturation(_)) => (false, 2),
                None => (true, 2),
                Some(Adjustment::Hue(turn)) => ((-0.1..=0.1).contains(&turn), 3),
            });
            assert!(order.iter().all(|(holds, _)| *holds), "{adjustments:?}");
            orders.insert(order.map(|(_, kind)| kind));
        }
        assert_eq!(orders.len(), 24);
    }

    #[test]
    fn a_third_of_a_turn_moves_the_channels_on() {
        let pixel = [0.9, 0.5, 0.25];
        let near = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(turned(pixel, 1.0 / 3.0), [0.25, 0.9, 0.5]));
        assert!(near(turned(turned(pixel, 0.5), 0.5), pixel));
        assert_eq!(turned([0.3; 3], 0.2), [0.3; 3]);
    }

    #[test]
    fn amounts_out_of_range_are_refused() {
        for (amounts, at_fault) in [
            ([-0.1, 0.0, 0.0, 0.0], "brightness"),
            ([0.0, f64::NAN, 0.0, 0.0], "contrast"),
            ([0.0, 0.0, f64::INFINITY, 0.0], "saturation"),
            ([0.0, 0.0, 0.0, 0.51], "hue"),
        ] {
            let [brightness, contrast, saturation, hue] = amounts;
            let error = ColorJitter::new(brightness, contrast, saturation, hue).unwrap_err();
            assert!(matches!(error, Error::Config { option, .. } if option == at_fault), "{error}");
        }
    }
}

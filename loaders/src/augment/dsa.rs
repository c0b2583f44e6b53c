//! Differentiable Siamese augmentation, as distilled sets are evaluated with it.

use super::affine::Affine;
use super::draws::Key;
use super::operators::{Color, Cutout, Shift};
use super::views::Step;
use crate::options::named_enum;
use crate::wording::unknown;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Differentiable Siamese augmentation (Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation",
/// ICML 2021) with the formulas and constants of its published code, on normalised images: 0 is the mean colour.
///
/// Every sample has parameters of its own; which operators are applied is decided once for each batch ([`DsaMode`]).
///
/// ```
/// use diver_loaders::augment::{Dsa, DsaMode};
///
/// let dsa = Dsa::new("color_crop_cutout_flip_scale_rotate", DsaMode::Dsa)?;
/// assert_eq!(dsa, Dsa::default());
/// let error = Dsa::new("colour_crop", DsaMode::Dsa).unwrap_err();
/// assert!(error.to_string().contains("did you mean `color`?"));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dsa {
    /// The operators, joined by `_`: any of `color`, `crop`, `cutout`, `flip`, `scale` and `rotate`, or `none`.
    #[schemars(with = "String")]
    strategy: Strategy,
    /// Which of the operators are applied to a batch: one of them (`dsa`), or most of them (`idc`).
    mode: DsaMode,
}

named_enum! {
    /// Which of its operators [`Dsa`] applies to a batch.
    #[derive(Default)]
    DsaMode, "mode" {
        /// One of them, chosen at random, as in DC, DSA, DM, MTT and the methods built on them.
        #[default]
        Dsa = "dsa",
        /// As in IDC and NCFM: `flip` and `color` always, then one of `crop`, `scale` and `rotate`, chosen at random, then
        /// `cutout`. Operators that the strategy does not name are left out.
        Idc = "idc",
    }
}

named_enum! {
    /// An operator of [`Dsa`], by the field's name for it.
    DsaOperator, "strategy" {
        /// Brightness, saturation and contrast, in this order ([`Color`]).
        Color = "color",
        /// The image is shifted by up to an eighth of its sides ([`Shift`]).
        Crop = "crop",
        /// A rectangle of half the image's sides is blanked ([`Cutout`]).
        Cutout = "cutout",
        /// Half of the images are mirrored left to right.
        Flip = "flip",
        /// Rows and columns are scaled, each by a factor of its own from 1 / 1.2 to 1.2 ([`Affine::scale`]).
        Scale = "scale",
        /// The image is turned by up to 15 degrees either way ([`Affine::rotation`]).
        Rotate = "rotate",
    }
}

/// The operators of [`Dsa`], written as in the field: `color_crop_flip`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Strategy(Vec<DsaOperator>);

impl Default for Strategy {
    fn default() -> Self {
        Self(DsaOperator::ALL.to_vec())
    }
}

impl FromStr for Strategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if matches!(text, "none" | "None") {
            return Ok(Self(Vec::new()));
        }
        let mut operators = Vec::new();
        for word in text.split('_') {
            let operator = word.parse().map_err(|_| {
                let known: Vec<&str> = DsaOperator::ALL.iter().map(|operator| operator.as_str()).collect();
                let reason = unknown(word, &known);
                Error::config("strategy", format!("{reason}; join operators by `_`, or write `none`"))
            })?;
            if operators.contains(&operator) {
                return Err(Error::config("strategy", format!("`{text}` must name `{operator}` only once")));
            }
            operators.push(operator);
        }
        Ok(Self(operators))
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (place, operator) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "_" };
            write!(f, "{separator}{operator}")?;
        }
        Ok(())
    }
}

impl From<Strategy> for String {
    fn from(strategy: Strategy) -> Self {
        strategy.to_string()
    }
}

impl TryFrom<String> for Strategy {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl Dsa {
    const LARGEST_SCALE: f64 = 1.2;
    const LARGEST_DEGREES: f64 = 15.0;

    /// Augmentation by the operators of `strategy` (default: all six). `mode` says which of them a batch gets (default:
    /// [`DsaMode::Dsa`]).
    ///
    /// # Errors
    /// If `strategy` is not `none` and holds a word that is no operator, or one of them twice.
    pub fn new(strategy: &str, mode: DsaMode) -> Result<Self> {
        Ok(Self { strategy: strategy.parse()?, mode })
    }

    /// The operators that the strategy names, in its order.
    pub fn operators(&self) -> &[DsaOperator] {
        &self.strategy.0
    }

    /// Draws the operators of a batch, and their parameters for the samples at `positions`; `first` is one of them.
    pub(super) fn draw(&self, key: Key, first: u64, positions: &[u64], size: [usize; 2]) -> Vec<Step> {
        let chosen = |operators: &[DsaOperator]| {
            let place = key.draws("dsa operator", first).below(operators.len());
            operators.get(place).copied()
        };
        let listed = |operator| self.strategy.0.contains(&operator).then_some(operator);
        let operators: Vec<DsaOperator> = match self.mode {
            DsaMode::Dsa => chosen(&self.strategy.0).into_iter().collect(),
            DsaMode::Idc => {
                let is_always = |o: &DsaOperator| {
                    matches!(o, DsaOperator::Flip | DsaOperator::Color | DsaOperator::Cutout)
                };
                let others: Vec<_> = self.strategy.0.iter().copied().filter(|o| !is_always(o)).collect();
                let in_order = [
                    listed(DsaOperator::Flip),
                    listed(DsaOperator::Color),
                    chosen(&others),
                    listed(DsaOperator::Cutout),
                ];
                in_order.into_iter().flatten().collect()
            }
        };
        operators.into_iter().map(|operator| operator.draw(key, positions, size)).collect()
    }
}

impl DsaOperator {
    fn draw(self, key: Key, positions: &[u64], size: [usize; 2]) -> Step {
        let draws = positions.iter().map(|position| key.draws(self.purpose(), *position));
        match self {
            Self::Color => Step::Color(draws.map(|mut draws| Color::draw(&mut draws)).collect()),
            Self::Crop => Step::Shift(draws.map(|mut draws| Shift::draw(&mut draws, size)).collect()),
            Self::Cutout => Step::Cutout(draws.map(|mut draws| Cutout::draw(&mut draws, size)).collect()),
            Self::Flip => Step::Flip(draws.map(|mut draws| draws.chance(0.5)).collect()),
            Self::Scale => {
                let most = Dsa::LARGEST_SCALE;
                let scale = draws.map(|mut draws| {
                    let [x, y] = [draws.between(1.0 / most, most), draws.between(1.0 / most, most)];
                    Affine::scale(x, y)
                });
                Step::Affine(scale.collect())
            }
            Self::Rotate => {
                let most = Dsa::LARGEST_DEGREES.to_radians();
                let turn = draws.map(|mut draws| Affine::rotation(draws.between(-most, most)));
                Step::Affine(turn.collect())
            }
        }
    }

    /// What its random numbers are keyed by.
    fn purpose(self) -> &'static str {
        match self {
            Self::Color => "dsa color",
            Self::Crop => "dsa crop",
            Self::Cutout => "dsa cutout",
            Self::Flip => "dsa flip",
            Self::Scale => "dsa scale",
            Self::Rotate => "dsa rotate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(strategy: &str, mode: DsaMode, first: u64) -> Vec<Step> {
        let dsa = Dsa::new(strategy, mode).unwrap();
        dsa.draw(Key { seed: 5, epoch: 1, nth: 0 }, first, &[first, first + 1, first + 2], [8, 6])
    }

    fn names(steps: &[Step]) -> Vec<&'static str> {
        let name = |step: &Step| match step {
            Step::Color(_) => "color",
            Step::Shift(_) => "crop",
            Step::Cutout(_) => "cutout",
            Step::Flip(_) => "flip",
            Step::Affine(all) if all[0].matrix[0][1] == 0.0 => "scale",
            Step::Affine(_) => "rotate",
            other => panic!("{other:?}"),
        };
        steps.iter().map(name).collect()
    }

    /// Chi-squared with 5 degrees of freedom stays below 20.5 with probability 0.999.
    #[test]
    fn a_batch_has_one_operator_and_each_is_as_likely() {
        let mut counts = std::collections::BTreeMap::<_, f64>::new();
        for first in 0..6000 {
            let steps = draw("color_crop_cutout_flip_scale_rotate", DsaMode::Dsa, first);
            assert_eq!(steps.len(), 1);
            *counts.entry(names(&steps)[0]).or_default() += 1.0;
        }
        let chi_squared: f64 = counts.values().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(counts.len() == 6 && chi_squared < 20.5, "{counts:?}");
    }

    #[test]
    fn idc_flips_and_colours_always() {
        let mut chosen = std::collections::BTreeSet::new();
        for first in 0..50 {
            let names = names(&draw("color_crop_cutout_flip_scale_rotate", DsaMode::Idc, first));
            assert_eq!([names[0], names[1], names[3]], ["flip", "color", "cutout"]);
            chosen.insert(names[2]);
        }
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), ["crop", "rotate", "scale"]);
        assert_eq!(names(&draw("color_cutout", DsaMode::Idc, 0)), ["color", "cutout"]);
        assert_eq!(names(&draw("scale", DsaMode::Idc, 0)), ["scale"]);
        assert!(draw("none", DsaMode::Idc, 0).is_empty() && draw("None", DsaMode::Dsa, 0).is_empty());
    }

    #[test]
    fn maps_lie_in_their_ranges() {
        let (mut scales, mut turns) = ([f64::MAX, 0.0_f64], [0.0_f64; 2]);
        for first in 0..600 {
            let steps = [draw("scale", DsaMode::Dsa, first), draw("rotate", DsaMode::Dsa, first)].concat();
            let [Step::Affine(scaled), Step::Affine(turned)] = &steps[..] else { panic!("{steps:?}") };
            for [[x, _], [_, y]] in scaled.iter().map(|map| map.matrix) {
                scales = [scales[0].min(x).min(y), scales[1].max(x).max(y)];
            }
            for [[cos, _], [sin, _]] in turned.iter().map(|map| map.matrix) {
                let degrees = sin.atan2(cos).to_degrees();
                turns = [turns[0].min(degrees), turns[1].max(degrees)];
            }
        }
        let near = |found: [f64; 2], [least, most]: [f64; 2]| {
            (least..least * 0.99 + most * 0.01).contains(&found[0])
                && (least * 0.01 + most * 0.99..=most).contains(&found[1])
        };
        assert!(near(scales, [1.0 / 1.2, 1.2]) && near(turns, [-15.0, 15.0]), "{scales:?} {turns:?}");
    }

    #[test]
    fn strategies_are_written_as_they_are_read() {
        for text in ["color_crop_cutout_flip_scale_rotate", "rotate_flip", "none"] {
            assert_eq!(text.parse::<Strategy>().unwrap().to_string(), text);
        }
        for (text, mentioned) in [
            ("color_crop_colour", "did you mean `color`?"),
            ("flip-crop", "did you mean"),
            ("", "`none`"),
            ("flip__crop", "`none`"),
            ("none_flip", "`none` is not one of"),
            ("flip_crop_flip", "`flip` only once"),
        ] {
            let error = text.parse::<Strategy>().unwrap_err();
            assert!(matches!(error, Error::Config { option: "strategy", .. }), "{error}");
            assert!(error.to_string().contains(mentioned), "{error}");
        }
    }
}

//! Which labels a network is trained on: those stored with the images, a teacher's, or both.

use crate::{Error, Label, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the target distribution of a sample is made of its stored label and a teacher's logits (default: the stored
/// label at temperature 1).
///
/// With `T` the temperature and `C` the number of classes:
///
/// | made by | target |
/// |---|---|
/// | [`stored`](Self::stored) | `softmax(stored / T)` of stored logits; stored probabilities as they are; one-hot for a class |
/// | [`hard`](Self::hard) | `(1 - smoothing) one_hot(class) + smoothing / C` (Szegedy et al. 2016, arXiv 1512.00567, section 7) |
/// | [`teacher`](Self::teacher) | `softmax(logits / T)` (Hinton et al. 2015, arXiv 1503.02531, equation 1) |
/// | [`logits`](Self::logits) | the teacher's logits, for losses on logits, as G_VBSM's (Shao et al., CVPR 2024) |
/// | [`average`](Self::average) | `weight stored + (1 - weight) teacher`, both at `T` |
///
/// In JSON it is an object, such as `{"from": "teacher", "temperature": 20}`.
///
/// ```
/// use diver_loaders::{Label, Targets};
///
/// let targets = Targets::average(0.5, 1.0)?;
/// let mut target = [0.0; 2];
/// targets.write(&Label::Hard(1), Some(&[3.0, 3.0]), &mut target)?;
/// assert_eq!(target, [0.25, 0.75]);
///
/// assert_eq!(serde_json::from_str::<Targets>(r#"{"from": "average", "weight": 0.5}"#)?, targets);
/// assert!(Targets::teacher(0.0).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Choice", into = "Choice")]
pub struct Targets(Choice);

/// The choice as it is written, with values that are yet to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
enum Choice {
    /// The stored label
    Stored {
        /// Divisor of stored logits before their softmax
        #[serde(default = "one")]
        #[schemars(range(max = f32::MAX), extend("exclusiveMinimum" = 0))]
        temperature: f32,
    },
    /// The class of the stored label
    Hard {
        /// Share of the target that is spread evenly over all classes
        #[serde(default)]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        smoothing: f32,
    },
    /// The teacher's logits
    Teacher {
        /// Divisor of logits before their softmax
        #[serde(default = "one")]
        #[schemars(range(max = f32::MAX), extend("exclusiveMinimum" = 0))]
        temperature: f32,
    },
    /// The teacher's logits as they are
    Logits {},
    /// A weighted average of both
    Average {
        /// Weight of the stored label; the teacher has the rest
        #[schemars(range(min = 0, max = 1))]
        weight: f32,
        /// Divisor of stored and of the teacher's logits before their softmax
        #[serde(default = "one")]
        #[schemars(range(max = f32::MAX), extend("exclusiveMinimum" = 0))]
        temperature: f32,
    },
}

fn one() -> f32 {
    1.0
}

impl Default for Targets {
    fn default() -> Self {
        Self(Choice::Stored { temperature: one() })
    }
}

impl Targets {
    /// The stored label, logits softmaxed at `temperature`.
    ///
    /// # Errors
    /// [`Error::Config`] for `temperature` if it is not a finite number above 0.
    pub fn stored(temperature: f32) -> Result<Self> {
        Choice::Stored { temperature }.try_into()
    }

    /// The class of the stored label (of a soft one, its most likely class), smoothed by `smoothing`.
    ///
    /// # Errors
    /// [`Error::Config`] for `smoothing` if it is not at least 0 and below 1.
    pub fn hard(smoothing: f32) -> Result<Self> {
        Choice::Hard { smoothing }.try_into()
    }

    /// The teacher's logits, softmaxed at `temperature`.
    ///
    /// # Errors
    /// As [`stored`](Self::stored).
    pub fn teacher(temperature: f32) -> Result<Self> {
        Choice::Teacher { temperature }.try_into()
    }

    /// The teacher's logits as they are, `[C]`, which are no distribution.
    ///
    /// ```
    /// use diver_loaders::{Label, Targets};
    ///
    /// let mut target = [0.0; 2];
    /// Targets::logits().write(&Label::Hard(1), Some(&[3.0, -1.0]), &mut target)?;
    /// assert_eq!(target, [3.0, -1.0]);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[must_use]
    pub fn logits() -> Self {
        Self(Choice::Logits {})
    }

    /// `weight` of the stored label and `1 - weight` of the teacher's, logits softmaxed at `temperature`.
    ///
    /// # Errors
    /// [`Error::Config`] for `weight` if it is not in [0, 1], and as [`stored`](Self::stored).
    pub fn average(weight: f32, temperature: f32) -> Result<Self> {
        Choice::Average { weight, temperature }.try_into()
    }

    /// Whether [`write`](Self::write) needs a teacher's logits.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        matches!(self.0, Choice::Teacher { .. } | Choice::Logits {} | Choice::Average { .. })
    }

    /// Writes the part of a target that the stored label makes, at the temperature of the whole, where there is such a
    /// part.
    pub(crate) fn write_stored(&self, stored: &Label, target: &mut [f32]) -> Result<()> {
        match self.0 {
            Choice::Average { temperature, .. } => write_stored(stored, temperature, target),
            // It has no weight.
            Choice::Teacher { .. } | Choice::Logits {} => {
                write_stored(&Label::Hard(stored.class()), one(), target)
            }
            Choice::Stored { .. } | Choice::Hard { .. } => self.write(stored, None, target),
        }
    }

    /// Writes the target of one sample: `C` probabilities that sum to 1, or logits where those are asked for, with `C` the
    /// length of `target`, whose values before do not matter. `stored` is the sample's label, `logits` the teacher's for its image, `[C]`; without a need
    /// for them they are not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] for `targets` if a teacher is needed and `logits` is `None`, and for `labels` or `teacher` if
    /// the stored label or the logits are not those of `C` classes, or make a target that is not finite.
    pub fn write(&self, stored: &Label, logits: Option<&[f32]>, target: &mut [f32]) -> Result<()> {
        let teacher = || {
            logits.ok_or_else(|| {
                Error::config("targets", "the teacher's logits are needed, and there is no teacher; set one")
            })
        };
        match self.0 {
            Choice::Stored { temperature } => write_stored(stored, temperature, target),
            Choice::Hard { smoothing } => {
                check_label(stored, target.len())?;
                target.fill(smoothing / target.len() as f32);
                target[stored.class()] += 1.0 - smoothing;
                Ok(())
            }
            Choice::Teacher { temperature } => write_teacher(teacher()?, temperature, target),
            Choice::Logits {} => {
                let logits = teacher()?;
                check_teacher(logits, target.len())?;
                target.copy_from_slice(logits);
                check_finite("teacher", target)
            }
            Choice::Average { weight, temperature } => {
                write_teacher(teacher()?, temperature, target)?;
                let mut own = vec![0.0; target.len()];
                write_stored(stored, temperature, &mut own)?;
                for (target, own) in target.iter_mut().zip(own) {
                    *target = weight * own + (1.0 - weight) * *target;
                }
                Ok(())
            }
        }
    }
}

impl TryFrom<Choice> for Targets {
    type Error = Error;

    fn try_from(choice: Choice) -> Result<Self> {
        let check = |option, value: f32, is_allowed: bool, allowed: &str| match is_allowed {
            true => Ok(()),
            false => Err(Error::config(option, format!("{value} must be {allowed}"))),
        };
        let check_temperature = |temperature: f32| {
            let is_allowed = temperature.is_finite() && temperature > 0.0;
            check("temperature", temperature, is_allowed, "a finite number above 0")
        };
        match choice {
            Choice::Stored { temperature } | Choice::Teacher { temperature } => {
                check_temperature(temperature)?
            }
            Choice::Hard { smoothing } => {
                check("smoothing", smoothing, (0.0..1.0).contains(&smoothing), "at least 0 and below 1")?;
            }
            Choice::Average { weight, temperature } => {
                check("weight", weight, (0.0..=1.0).contains(&weight), "in [0, 1]")?;
                check_temperature(temperature)?;
            }
            Choice::Logits {} => {}
        }
        Ok(Self(choice))
    }
}

impl From<Targets> for Choice {
    fn from(targets: Targets) -> Self {
        targets.0
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Choice::json_schema(generator)
    }
}

fn write_stored(stored: &Label, temperature: f32, target: &mut [f32]) -> Result<()> {
    check_label(stored, target.len())?;
    target.fill(0.0);
    stored.write_target(target, temperature);
    check_finite("labels", target)
}

fn write_teacher(logits: &[f32], temperature: f32, target: &mut [f32]) -> Result<()> {
    check_teacher(logits, target.len())?;
    write_softmax(logits, temperature, target);
    check_finite("teacher", target)
}

fn check_teacher(logits: &[f32], classes: usize) -> Result<()> {
    match logits.len() == classes {
        true => Ok(()),
        false => Err(other_classes("teacher", "the teacher", logits.len(), classes)),
    }
}

/// Refuses a label that [`Label::write_target`] would have no place for.
fn check_label(label: &Label, classes: usize) -> Result<()> {
    match (label, label.scores()) {
        (_, Some(scores)) if scores.len() != classes => {
            Err(other_classes("labels", "a stored label", scores.len(), classes))
        }
        (Label::Hard(class), _) if *class >= classes => Err(Error::config(
            "labels",
            format!("class {class} must be below the number of classes, {classes}"),
        )),
        // Of no classes there is no label.
        (_, Some([])) => {
            Err(Error::config("labels", "a stored label has 0 classes; a target needs at least 1"))
        }
        _ => Ok(()),
    }
}

fn other_classes(option: &'static str, whose: &str, found: usize, expected: usize) -> Error {
    Error::config(
        option,
        format!("{whose} has {found} classes, expected {expected}, as many as the dataset has"),
    )
}

/// A score that is not finite makes a sum that is not.
fn check_finite(option: &'static str, target: &[f32]) -> Result<()> {
    match target.iter().all(|share| share.is_finite()) {
        true => Ok(()),
        false => Err(Error::config(option, "a score is NaN or infinite; scores must be finite")),
    }
}

/// Writes the softmax of `logits / temperature` to `out`, which is of their length.
pub(crate) fn write_softmax(logits: &[f32], temperature: f32, out: &mut [f32]) {
    // Without it `exp` would overflow.
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (out, logit) in out.iter_mut().zip(logits) {
        *out = ((logit - highest) / temperature).exp();
        sum += *out;
    }
    out.iter_mut().for_each(|out| *out /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(targets: Targets, stored: &Label, logits: Option<&[f32]>, classes: usize) -> Result<Vec<f32>> {
        // What was there before must not matter.
        let mut target = vec![f32::NAN; classes];
        targets.write(stored, logits, &mut target).map(|()| target)
    }

    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let exps: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / f64::from(temperature)).collect();
        let highest = exps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = exps.iter().map(|exp| (exp - highest).exp()).sum();
        exps.iter().map(|exp| (exp - highest).exp() / sum).collect()
    }

    fn is_near(found: &[f32], expected: &[f64]) -> bool {
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5)
    }

    fn option<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
        match result {
            Err(Error::Config { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    }

    /// A stored label of any kind and a teacher's logits, of as many classes.
    fn labels() -> impl Strategy<Value = (Label, Vec<f32>)> {
        (1..40_usize).prop_flat_map(|classes| {
            let scores = || prop::collection::vec(-50.0..50.0_f32, classes);
            let shares = scores().prop_map(move |scores| Label::Logits(scores).target(classes, 1.0));
            let stored = prop_oneof![
                (0..classes).prop_map(Label::Hard),
                scores().prop_map(Label::Logits),
                shares.prop_map(Label::Probabilities)
            ];
            (stored, scores())
        })
    }

    fn choices() -> impl Strategy<Value = Targets> {
        prop_oneof![
            (1e-3..100.0_f32).prop_map(|t| Targets::stored(t).unwrap()),
            (0.0..1.0_f32).prop_map(|smoothing| Targets::hard(smoothing).unwrap()),
            (1e-3..100.0_f32).prop_map(|t| Targets::teacher(t).unwrap()),
            ((0.0..=1.0_f32), (1e-3..100.0_f32)).prop_map(|(w, t)| Targets::average(w, t).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn every_target_is_a_distribution((stored, logits) in labels(), targets in choices()) {
            let target = target(targets, &stored, Some(&logits), logits.len()).unwrap();
            prop_assert!(target.iter().all(|share| (0.0..=1.0 + 1e-6).contains(share)));
            let sum: f64 = target.iter().map(|share| f64::from(*share)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{}", sum);
        }

        #[test]
        fn every_target_is_its_formula(
            (stored, logits) in labels(), smoothing in 0.0..1.0_f32, weight in 0.0..=1.0_f32, temperature in 0.1..50.0_f32,
        ) {
            let classes = logits.len();
            let of = |targets: Result<Targets>| target(targets.unwrap(), &stored, Some(&logits), classes).unwrap();
            // What the loader writes today, to the bit.
            let own = stored.target(classes, temperature);
            prop_assert_eq!(&of(Targets::stored(temperature)), &own);

            let teacher = softmax(&logits, temperature);
            prop_assert!(is_near(&of(Targets::teacher(temperature)), &teacher));

            let (smoothing_64, weight_64) = (f64::from(smoothing), f64::from(weight));
            let mut hard = vec![smoothing_64 / classes as f64; classes];
            hard[stored.class()] += 1.0 - smoothing_64;
            prop_assert!(is_near(&of(Targets::hard(smoothing)), &hard));

            let mix = |(own, teacher): (&f32, &f64)| weight_64 * f64::from(*own) + (1.0 - weight_64) * teacher;
            let average: Vec<f64> = own.iter().zip(&teacher).map(mix).collect();
            prop_assert!(is_near(&of(Targets::average(weight, temperature)), &average));
            prop_assert_eq!(of(Targets::average(1.0, temperature)), own);
            prop_assert_eq!(of(Targets::average(0.0, temperature)), of(Targets::teacher(temperature)));
        }

        #[test]
        fn json_goes_both_ways(targets in prop_oneof![choices(), Just(Targets::logits())]) {
            let json = serde_json::to_string(&targets).unwrap();
            prop_assert_eq!(serde_json::from_str::<Targets>(&json).unwrap(), targets);
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(option(Targets::stored(value)), "temperature");
            assert_eq!(option(Targets::teacher(value)), "temperature");
            assert_eq!(option(Targets::average(0.5, value)), "temperature");
        }
        for value in [-0.1, 1.0, f32::NAN] {
            assert_eq!(option(Targets::hard(value)), "smoothing");
        }
        for value in [-0.1, 1.1, f32::NAN] {
            assert_eq!(option(Targets::average(value, 1.0)), "weight");
        }
    }

    #[test]
    fn json_is_checked_as_constructors_are() {
        let read = |json: &str| serde_json::from_str::<Targets>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"from": "stored"}"#), Ok(Targets::default()));
        assert_eq!(read(r#"{"from": "hard"}"#), Ok(Targets::hard(0.0).unwrap()));
        for (json, named) in [
            (r#"{"from": "teacher", "temperature": 0}"#, "temperature"),
            (r#"{"from": "average"}"#, "weight"),
            (r#"{"from": "hard", "temperature": 2}"#, "unknown field `temperature`"),
            (r#"{"from": "network"}"#, "network"),
            ("{}", "from"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let schema = schemars::schema_for!(Targets).to_value().to_string();
        assert!(schema.contains("smoothing") && schema.contains("exclusiveMaximum"), "{schema}");
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let stored = Targets::default();
        let of = |targets: Targets, label: Label, logits: Option<&[f32]>| {
            option(target(targets, &label, logits, 3))
        };
        assert_eq!(of(stored, Label::Hard(3), None), "labels");
        assert_eq!(of(stored, Label::Logits(vec![0.0; 4]), None), "labels");
        assert_eq!(of(stored, Label::Logits(vec![f32::NAN, 0.0, 1.0]), None), "labels");
        assert_eq!(of(Targets::hard(0.1).unwrap(), Label::Probabilities(vec![1.0]), None), "labels");
        let teacher = Targets::teacher(1.0).unwrap();
        assert_eq!(of(teacher, Label::Hard(0), None), "targets");
        assert_eq!(of(Targets::logits(), Label::Hard(0), None), "targets");
        assert_eq!(of(Targets::logits(), Label::Hard(0), Some(&[0.0; 2])), "teacher");
        assert_eq!(of(Targets::logits(), Label::Hard(0), Some(&[0.0, f32::NAN, 0.0])), "teacher");
        assert_eq!(of(teacher, Label::Hard(0), Some(&[0.0; 2])), "teacher");
        assert_eq!(of(teacher, Label::Hard(0), Some(&[0.0, f32::INFINITY, 0.0])), "teacher");
        for targets in [stored, Targets::hard(0.0).unwrap()] {
            assert_eq!(option(target(targets, &Label::Hard(0), None, 0)), "labels");
            assert_eq!(option(target(targets, &Label::Logits(Vec::new()), None, 0)), "labels");
        }
        assert_eq!([stored, teacher].map(|targets| targets.needs_teacher()), [false, true]);
    }

    #[test]
    fn extreme_temperatures_stay_finite() {
        let logits = [1e38, -1e38, 3.0];
        let of =
            |temperature| target(Targets::teacher(temperature).unwrap(), &Label::Hard(0), Some(&logits), 3);
        assert_eq!(of(f32::MIN_POSITIVE).unwrap(), [1.0, 0.0, 0.0]);
        assert!(of(f32::MAX).unwrap().iter().all(|share| (0.1..0.6).contains(share)));
    }
}

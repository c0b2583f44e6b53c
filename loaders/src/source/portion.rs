//! How much of an epoch is each set's, where several sets are one.

use crate::wording::counted;
use crate::{Error, Result};

/// The most places of an epoch: more than anyone streams, and few enough that `f64` counts them exactly.
const MOST_PLACES: f64 = (1_u64 << 48) as f64;

/// A run of samples that follow each other in a source, and how many places of an epoch they take together.
///
/// Each sample of the run takes `places / samples` places, rounded down or up. Which ones take one more changes with the
/// epoch, so that over `samples` epochs all come equally often.
///
/// ```
/// use diver_loaders::source::Portion;
///
/// // Two places in three are the first set's, so that each of its samples comes four times.
/// let portions = Portion::weighted(&[100, 200], &[2.0, 1.0])?;
/// assert_eq!(portions, [Portion { samples: 100, places: 400 }, Portion { samples: 200, places: 200 }]);
/// assert!(Portion::weighted(&[100, 200], &[1.0, 0.0]).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Number of samples, at least 1.
    pub samples: usize,
    /// Number of places of an epoch.
    pub places: usize,
}

impl Portion {
    /// One portion for each set, from the number of its samples and its weight: set `k` has `weights[k] / sum(weights)` of
    /// an epoch's places. The epoch is as short as it can be with every sample in it. With `n` samples and weights `w`, set `k` has `w[k] * max(n[j] / w[j])` places, rounded to the
    /// nearest integer.
    ///
    /// # Errors
    /// [`Error::Config`] for `weights` if there is not one for each set, one is not a finite number above 0, or the epoch
    /// would have more than 2^48 places.
    pub fn weighted(samples: &[usize], weights: &[f64]) -> Result<Vec<Self>> {
        let refused = |reason: String| Err(Error::config("weights", reason));
        if weights.len() != samples.len() {
            return refused(format!(
                "{} for {}: give one for each set",
                counted(weights.len(), "weight"),
                counted(samples.len(), "set")
            ));
        }
        if let Some((set, weight)) =
            weights.iter().enumerate().find(|(_, weight)| !weight.is_finite() || **weight <= 0.0)
        {
            return refused(format!(
                "the weight of set {set} is {weight}: weights must be finite and above 0. To exclude a set, leave it \
                 out of `sets`"
            ));
        }
        let places_of_weight_1 = samples.iter().zip(weights).map(|(n, w)| *n as f64 / w).fold(0.0, f64::max);
        let places: Vec<f64> = weights.iter().map(|weight| (weight * places_of_weight_1).round()).collect();
        let total: f64 = places.iter().sum();
        if total.is_nan() || total > MOST_PLACES {
            return refused(format!(
                "every sample comes at least once, so an epoch would have {total} samples: the weights {weights:?} \
                 differ too much for sets of {samples:?} samples"
            ));
        }
        // `as` is exact: they are integers below 2^48.
        Ok(samples.iter().zip(places).map(|(n, p)| Self { samples: *n, places: p as usize }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_those_of_the_weights_and_no_sample_is_left_out(
            sets in proptest::collection::vec((1_usize..5000, 0.01_f64..100.0), 1..6)
        ) {
            let (samples, weights): (Vec<usize>, Vec<f64>) = sets.into_iter().unzip();
            let portions = Portion::weighted(&samples, &weights).unwrap();
            let total: usize = portions.iter().map(|portion| portion.places).sum();
            let sum: f64 = weights.iter().sum();
            for (portion, weight) in portions.iter().zip(&weights) {
                prop_assert!(portion.places >= portion.samples);
                // Each set's places are rounded, by a half at most.
                let exact = weight / sum * total as f64;
                prop_assert!((portion.places as f64 - exact).abs() <= portions.len() as f64);
            }
            prop_assert!(portions.iter().any(|portion| portion.places == portion.samples), "no longer than it must be");
            // Only their proportions count.
            let halves: Vec<f64> = weights.iter().map(|weight| weight / 2.0).collect();
            prop_assert_eq!(Portion::weighted(&samples, &halves).unwrap(), portions);
        }
    }

    #[test]
    fn bad_weights_are_refused() {
        for (weights, reason) in [
            (&[1.0][..], "1 weight for 2 sets"),
            (&[1.0, 0.0], "the weight of set 1 is 0"),
            (&[-1.0, 1.0], "the weight of set 0 is -1"),
            (&[1.0, f64::NAN], "the weight of set 1 is NaN"),
            (&[f64::INFINITY, 1.0], "the weight of set 0 is inf"),
            (&[1e30, 1.0], "differ too much"),
            (&[f64::MAX, f64::MIN_POSITIVE], "differ too much"),
        ] {
            let error = Portion::weighted(&[3, 4], weights).unwrap_err();
            assert!(matches!(error, Error::Config { option: "weights", .. }), "{error:?}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

//! How much of an epoch is refined.

use crate::{Error, Result};

/// The share of refined samples in each epoch: a constant, or a schedule over epochs.
///
/// ```
/// use diver_loaders::Mix;
///
/// let mix = Mix::linear(0.0, 1.0, 5)?;
/// assert_eq!(mix.share(0), 0.0);
/// assert_eq!(mix.share(2), 0.5);
/// assert_eq!(mix.share(300), 1.0);
/// assert!(Mix::constant(1.5).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(Schedule);

#[derive(Clone, Debug, PartialEq)]
enum Schedule {
    Constant(f64),
    Ramp { start: f64, end: f64, epochs: u64, cosine: bool },
    Steps(Vec<(u64, f64)>),
}

impl Mix {
    /// The same `share`, in [0, 1], in every epoch.
    ///
    /// # Errors
    /// If `share` is not in [0, 1].
    pub fn constant(share: f64) -> Result<Self> {
        Ok(Self(Schedule::Constant(checked(share)?)))
    }

    /// From `start` in epoch 0 in equal steps to `end` in epoch `epochs - 1`, and `end` from there on.
    ///
    /// # Errors
    /// If a share is not in [0, 1], or `epochs` is 0.
    pub fn linear(start: f64, end: f64, epochs: u64) -> Result<Self> {
        Self::ramp(start, end, epochs, false)
    }

    /// As [`linear`](Self::linear), but along half a cosine: slow at both ends.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    pub fn cosine(start: f64, end: f64, epochs: u64) -> Result<Self> {
        Self::ramp(start, end, epochs, true)
    }

    /// Share by epoch: each `(epoch, share)` holds from its epoch on; before the first, nothing is refined.
    ///
    /// # Errors
    /// If the list is empty, the epochs do not ascend, or a share is not in [0, 1].
    pub fn steps(steps: impl Into<Vec<(u64, f64)>>) -> Result<Self> {
        let steps = steps.into();
        if steps.is_empty() || !steps.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::config("mix", "steps must be (epoch, share) pairs with ascending epochs"));
        }
        for (_, share) in &steps {
            checked(*share)?;
        }
        Ok(Self(Schedule::Steps(steps)))
    }

    fn ramp(start: f64, end: f64, epochs: u64, cosine: bool) -> Result<Self> {
        if epochs == 0 {
            return Err(Error::config("mix", "a schedule must last at least one epoch"));
        }
        Ok(Self(Schedule::Ramp { start: checked(start)?, end: checked(end)?, epochs, cosine }))
    }

    /// The share of refined samples in `epoch`, in [0, 1].
    pub fn share(&self, epoch: u64) -> f64 {
        match &self.0 {
            Schedule::Constant(share) => *share,
            Schedule::Ramp { end, epochs, .. } if epoch >= *epochs - 1 => *end,
            Schedule::Ramp { start, end, epochs, cosine } => {
                let progress = epoch as f64 / (*epochs - 1) as f64;
                let weight =
                    if *cosine { 0.5 - 0.5 * (std::f64::consts::PI * progress).cos() } else { progress };
                start + (end - start) * weight
            }
            Schedule::Steps(steps) => {
                steps.iter().take_while(|(from, _)| *from <= epoch).last().map_or(0.0, |(_, share)| *share)
            }
        }
    }

    /// Whether no epoch holds a refined sample.
    pub fn is_raw(&self) -> bool {
        match &self.0 {
            Schedule::Constant(share) => *share == 0.0,
            Schedule::Ramp { start, end, .. } => *start == 0.0 && *end == 0.0,
            Schedule::Steps(steps) => steps.iter().all(|(_, share)| *share == 0.0),
        }
    }
}

fn checked(share: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(Error::config("mix", format!("a share of {share} is not in [0, 1]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_hold_their_ends() {
        let cosine = Mix::cosine(0.0, 0.8, 11).unwrap();
        assert_eq!((cosine.share(0), cosine.share(10), cosine.share(11)), (0.0, 0.8, 0.8));
        assert!((cosine.share(5) - 0.4).abs() < 1e-12);
        assert_eq!(Mix::linear(0.3, 0.7, 1).unwrap().share(0), 0.7);
        let steps = Mix::steps([(2, 0.5), (4, 1.0)]).unwrap();
        assert_eq!([0, 2, 3, 4, 9].map(|e| steps.share(e)), [0.0, 0.5, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn shares_outside_the_unit_interval_are_refused() {
        assert!(Mix::constant(f64::NAN).is_err());
        assert!(Mix::linear(-0.1, 1.0, 3).is_err());
        assert!(Mix::linear(0.1, 1.0, 0).is_err());
        assert!(Mix::steps([(4, 0.5), (2, 1.0)]).is_err());
        assert!(Mix::steps(Vec::new()).is_err());
    }
}

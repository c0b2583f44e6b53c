//! Noise schedules and the chains of timesteps that a sampler visits, in f64 throughout.
//!
//! Notation: `abar_t` is the product of `1 - beta_s` over `s <= t` (DDPM, Ho et al. 2020, eq. 4; DDIM and DIVER
//! write `alpha_t` for it). A chain of `N` steps counts them down: step `k = N..1` takes `z_k` to `z_{k-1}`, and
//! the network is asked about timestep `tau(k)`.

use crate::{Error, Result};
use diver_loaders::method::{ChainKind, Sigma};

/// The noise levels that a diffusion model was trained on.
///
/// ```
/// use diver::NoiseSchedule;
///
/// let dit = NoiseSchedule::linear(1e-4, 0.02, 1000)?;
/// assert_eq!(dit.abar()[0], 1.0 - 1e-4);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    abar: Vec<f64>,
}

impl NoiseSchedule {
    /// A straight line in `beta` over `timesteps` values (DDPM; DiT: 1e-4 to 0.02 over 1000).
    ///
    /// # Errors
    /// [`Error::Knob`] unless `0 < start <= end < 1` and there are 2 timesteps or more.
    pub fn linear(start: f64, end: f64, timesteps: usize) -> Result<Self> {
        check_betas(start, end, timesteps)?;
        Ok(Self::from_betas(linspace(start, end, timesteps).collect()))
    }

    /// A straight line in `sqrt(beta)` (Stable Diffusion: 0.00085 to 0.012 over 1000).
    ///
    /// # Errors
    /// As for [`linear`](Self::linear).
    pub fn scaled_linear(start: f64, end: f64, timesteps: usize) -> Result<Self> {
        check_betas(start, end, timesteps)?;
        Ok(Self::from_betas(linspace(start.sqrt(), end.sqrt(), timesteps).map(|root| root * root).collect()))
    }

    fn from_betas(betas: Vec<f64>) -> Self {
        let abar = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        Self { betas, abar }
    }

    /// `beta_t` for `t = 0..T`.
    #[must_use]
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `abar_t` for `t = 0..T`.
    #[must_use]
    pub fn abar(&self) -> &[f64] {
        &self.abar
    }
}

fn check_betas(start: f64, end: f64, timesteps: usize) -> Result<()> {
    if timesteps >= 2 && 0.0 < start && start <= end && end < 1.0 {
        return Ok(());
    }
    let reason = format!("{start} to {end} over {timesteps} timesteps does not rise within 0 and 1");
    Err(Error::knob("betas", reason))
}

/// `count` values from `start` to `end`, both kept, with NumPy's rounding.
fn linspace(start: f64, end: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (count - 1) as f64;
    (0..count).map(move |i| if i + 1 == count { end } else { start + i as f64 * step })
}

/// The timesteps that a sampler visits, and the noise level on which each step lands.
///
/// Every accessor takes the step counter `k` from 1 (the last step, to the clean latent) to [`len`](Self::len).
///
/// ```
/// use diver::{Chain, ChainKind, NoiseSchedule};
///
/// let chain = Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000)?)?;
/// assert_eq!((chain.tau(50), chain.tau(25), chain.tau(1)), (999, 489, 0));
/// assert_eq!(chain.abar_prev(1), 1.0);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    tau: Vec<i64>,
    abar: Vec<f64>,
    abar_prev: Vec<f64>,
}

impl Chain {
    /// The chain of `steps` steps of this kind.
    ///
    /// # Errors
    /// [`Error::Knob`] if the kind is not defined for that number of steps: fewer than 2, more than there are
    /// timesteps, or (`ddim`) no whole stride gives it.
    pub fn new(kind: ChainKind, steps: usize, schedule: &NoiseSchedule) -> Result<Self> {
        let levels = schedule.abar();
        let timesteps = levels.len();
        let undefined = || {
            let reason = format!("`{kind}` has no chain of {steps} steps over {timesteps} timesteps");
            Error::knob("chain", reason)
        };
        if !(2..=timesteps).contains(&steps) {
            return Err(undefined());
        }
        let tau = timesteps_of(kind, steps, timesteps).ok_or_else(undefined)?;
        let rises = tau.windows(2).all(|pair| pair[0] < pair[1]);
        if tau.len() != steps || !rises || tau[steps - 1] >= timesteps {
            return Err(undefined());
        }
        let stride = timesteps / steps;
        let lands_on = |i: usize| match kind {
            ChainKind::LinspaceDiffusers => tau[i].checked_sub(stride).map_or(1.0, |t| levels[t]),
            _ if i > 0 => levels[tau[i - 1]],
            ChainKind::SdLeading1 => levels[0],
            _ => 1.0,
        };
        Ok(Self {
            abar: tau.iter().map(|&t| levels[t]).collect(),
            abar_prev: (0..steps).map(lands_on).collect(),
            tau: tau.iter().map(|&t| t as i64).collect(),
        })
    }

    /// Number of steps `N`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tau.len()
    }

    /// Never true of a chain from [`Chain::new`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tau.is_empty()
    }

    /// The training timestep of step `k`.
    ///
    /// # Panics
    /// If `k` is not a step from 1 to [`len`](Self::len), here and in all that follow.
    #[must_use]
    pub fn tau(&self, k: usize) -> i64 {
        self.tau[k - 1]
    }

    /// `abar` of the latent that step `k` starts from.
    #[must_use]
    pub fn abar(&self, k: usize) -> f64 {
        self.abar[k - 1]
    }

    /// `abar` of the latent on which step `k` lands.
    #[must_use]
    pub fn abar_prev(&self, k: usize) -> f64 {
        self.abar_prev[k - 1]
    }

    /// `r = sqrt(1 / abar)`: weight of the latent in the predicted clean latent.
    #[must_use]
    pub fn r(&self, k: usize) -> f64 {
        (1.0 / self.abar(k)).sqrt()
    }

    /// `m = sqrt(1 / abar - 1)`: weight of the noise taken from it.
    #[must_use]
    pub fn m(&self, k: usize) -> f64 {
        (1.0 / self.abar(k) - 1.0).sqrt()
    }

    /// `a = sqrt(abar_prev)`: weight of the predicted clean latent in the next one.
    #[must_use]
    pub fn a(&self, k: usize) -> f64 {
        self.abar_prev(k).sqrt()
    }

    /// `b = sqrt(1 - abar_prev)`: weight of the predicted noise in the next one.
    #[must_use]
    pub fn b(&self, k: usize) -> f64 {
        (1.0 - self.abar_prev(k)).sqrt()
    }

    /// `beta` of the respaced chain, `1 - abar / abar_prev`.
    #[must_use]
    pub fn beta(&self, k: usize) -> f64 {
        1.0 - self.abar(k) / self.abar_prev(k)
    }

    /// `beta~ = beta (1 - abar_prev) / (1 - abar)`, the variance of `q(z_{k-1} | z_k, z_0)` (DDPM eq. 7).
    #[must_use]
    pub fn beta_tilde(&self, k: usize) -> f64 {
        self.beta(k) * (1.0 - self.abar_prev(k)) / (1.0 - self.abar(k))
    }

    /// `beta~` with the first entry, which is 0, replaced by the second: what the DiT repository takes the
    /// logarithm of.
    #[must_use]
    pub fn beta_tilde_clipped(&self, k: usize) -> f64 {
        self.beta_tilde(k.max(2))
    }

    /// `sigma` of step `k`; `None` for [`Sigma::Learned`], which the network gives per latent value.
    #[must_use]
    pub fn sigma(&self, kind: Sigma, k: usize) -> Option<f64> {
        match kind {
            Sigma::Posterior => Some(self.beta_tilde(k).sqrt()),
            Sigma::Marginal => Some((1.0 - self.abar(k)).sqrt()),
            Sigma::Beta => Some(self.beta(k).sqrt()),
            Sigma::DdimEta0 => Some(0.0),
            Sigma::Learned => None,
        }
    }
}

/// The visited timesteps in rising order; `None` where no rule gives them.
fn timesteps_of(kind: ChainKind, steps: usize, timesteps: usize) -> Option<Vec<usize>> {
    let last = (timesteps - 1) as f64;
    let evenly = timesteps / steps;
    Some(match kind {
        // `space_timesteps` of the DiT repository: the stride is added up, each sum rounded half to even.
        ChainKind::Dit => {
            let stride = last / (steps - 1) as f64;
            let mut position = 0.0_f64;
            let visit = |_| {
                let tau = position.round_ties_even() as usize;
                position += stride;
                tau
            };
            (0..steps).map(visit).collect()
        }
        ChainKind::Ddim => {
            let stride = (1..timesteps).find(|stride| timesteps.div_ceil(*stride) == steps)?;
            (0..timesteps).step_by(stride).collect()
        }
        ChainKind::Leading0 => (0..steps).map(|i| i * evenly).collect(),
        ChainKind::Leading1 | ChainKind::SdLeading1 => (0..steps).map(|i| i * evenly + 1).collect(),
        ChainKind::Trailing => {
            let stride = timesteps as f64 / steps as f64;
            let from_end = |i| (timesteps as f64 - i as f64 * stride).round_ties_even() as usize;
            (0..steps).rev().map(|i| from_end(i).checked_sub(1)).collect::<Option<_>>()?
        }
        ChainKind::LinspaceDiffusers => {
            linspace(0.0, last, steps).map(|tau| tau.round_ties_even() as usize).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dit() -> NoiseSchedule {
        NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap()
    }

    #[test]
    fn every_kind_is_defined_where_it_can_be() {
        for kind in ChainKind::ALL {
            for steps in [2, 10, 20, 25, 50, 100, 250] {
                let chain = Chain::new(*kind, steps, &dit()).unwrap();
                assert_eq!(chain.len(), steps, "{kind}");
                assert!((1..=steps).all(|k| chain.beta(k) > 0.0 && chain.beta_tilde(k) >= 0.0), "{kind}");
            }
        }
    }

    #[test]
    fn chains_that_do_not_exist_are_refused() {
        let refused = |kind, steps| Chain::new(kind, steps, &dit()).unwrap_err().to_string();
        assert_eq!(
            refused(ChainKind::Ddim, 400),
            "chain: `ddim` has no chain of 400 steps over 1000 timesteps"
        );
        for (kind, steps) in
            [(ChainKind::Dit, 1), (ChainKind::Dit, 1001), (ChainKind::Leading1, 1000), (ChainKind::Ddim, 0)]
        {
            assert!(Chain::new(kind, steps, &dit()).is_err(), "{kind} {steps}");
        }
    }

    #[test]
    fn other_schedules_than_dits_are_served() {
        let short = NoiseSchedule::scaled_linear(0.001, 0.1, 64).unwrap();
        let chain = Chain::new(ChainKind::Dit, 8, &short).unwrap();
        assert_eq!((chain.tau(1), chain.tau(8)), (0, 63));
        assert!(NoiseSchedule::linear(0.0, 0.1, 10).is_err());
        assert!(NoiseSchedule::linear(0.1, f64::NAN, 10).is_err());
    }
}

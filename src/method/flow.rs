//! The times and noise levels of a flow model on the linear path `z_s = s x + (1 - s) eps` (SiT, Ma et al. 2024, with
//! its repository's time: 0 is noise, 1 is data), in f64.

use super::Knobs;
use super::schedule::Chain;
use crate::{Error, Result};
use diver_loaders::method::{FlowStart, Grid, Mapping};
use diver_loaders::method::{Sigma, Start};

/// Where the SiT repository's SDE sampler takes its last step from.
const LAST_SDE_TIME: f64 = 0.96;

/// The times that a flow model visits, counted down as those of a [`Chain`]: step `k = N..1` goes from
/// [`time(k)`](Self::time) to `time(k - 1)`, and `time(0)` is 1.
///
/// ```
/// use diver::{Chain, ChainKind, Flow, Knobs, NoiseSchedule};
///
/// let chain = Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000)?)?;
/// let flow = Flow::new(&Knobs::default(), &chain)?;
/// assert_eq!((flow.time(50), flow.time(25), flow.time(0)), (0.0, 0.5, 1.0));
/// // The steps whose noise is that of 40..25 in the chain.
/// assert_eq!((1..=50).filter(|k| flow.is_in_window(*k)).collect::<Vec<_>>(), (39..=48).collect::<Vec<_>>());
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    knobs: Knobs,
    /// Entry `k` is the time from which step `k` starts.
    times: Vec<f64>,
    in_window: Vec<bool>,
    /// Weights of the distilled latent and of the noise in the latent that inheritance starts from.
    start: (f64, f64),
}

impl Flow {
    /// The grid, window and start that the knobs ask for; `chain` is the diffusion chain whose noise they are matched
    /// with.
    ///
    /// # Errors
    /// [`Error::Knob`] if the chain has another number of steps, or a knob means nothing to a flow model.
    pub fn new(knobs: &Knobs, chain: &Chain) -> Result<Self> {
        let steps = knobs.steps();
        if chain.len() != steps {
            return Err(Error::knob("steps", format!("{steps} are not the {} of the chain", chain.len())));
        }
        if knobs.start() == Start::Tf {
            return Err(Error::knob(
                "start",
                "`t_f` is for diffusion chains; a flow model runs all its steps",
            ));
        }
        if knobs.sigma() == Sigma::Learned {
            return Err(Error::knob(
                "sigma",
                "`learned` is for diffusion models; a flow model learns no variance",
            ));
        }
        let times = times(knobs.grid(), chain);
        let in_window = window(knobs, chain, &times);
        let mode = knobs.mode();
        if mode.guides() && mode.fuses() && !in_window.contains(&true) {
            let (high, low) = knobs.window();
            let reason = format!(
                "none of the {steps} steps has the noise of the chain's steps {high}..{low}: widen it, take more steps, or \
                 set `mapping` to counter"
            );
            return Err(Error::knob("window", reason));
        }
        let abar = chain.abar(knobs.t_f());
        let start = match knobs.flow_start() {
            FlowStart::Vp => (abar.sqrt(), (1.0 - abar).sqrt()),
            FlowStart::Path => {
                let time = match knobs.mapping() {
                    Mapping::Snr => matched_time(abar),
                    Mapping::Counter => 1.0 - knobs.t_f() as f64 / steps as f64,
                };
                (time, 1.0 - time)
            }
        };
        Ok(Self { knobs: knobs.clone(), times, in_window, start })
    }

    /// The settings that it was made from.
    #[must_use]
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Number of steps `N`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_window.len()
    }

    /// Never true of a flow from [`Flow::new`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_window.is_empty()
    }

    /// The time that step `k` starts from, 0 to 1; the end of the last step for `k = 0`.
    ///
    /// # Panics
    /// If `k` exceeds [`len`](Self::len).
    #[must_use]
    pub fn time(&self, k: usize) -> f64 {
        self.times[k]
    }

    /// Whether step `k` lies in the guidance window.
    ///
    /// # Panics
    /// If `k` is not a step from 1 to [`len`](Self::len).
    #[must_use]
    pub fn is_in_window(&self, k: usize) -> bool {
        self.in_window[k - 1]
    }

    /// Weights of the distilled latent and of the noise in the latent that inheritance starts from.
    #[must_use]
    pub fn start(&self) -> (f64, f64) {
        self.start
    }

    /// `sigma` of step `k`; of [`Sigma::Learned`], which a flow model lacks, 0.
    ///
    /// # Panics
    /// If `k` is not a step from 1 to [`len`](Self::len).
    #[must_use]
    pub fn sigma(&self, kind: Sigma, k: usize) -> f64 {
        let (time, next) = (self.time(k), self.time(k - 1));
        match kind {
            // The standard deviation of q(z_next | z_time, x) on a Gaussian path of signal s and noise 1 - s, which is
            // sqrt(beta~) for a diffusion chain's.
            Sigma::Posterior => {
                let (variance, next_variance) = ((1.0 - time).powi(2), (1.0 - next).powi(2));
                let ratio = time / next;
                let kept = variance - ratio * ratio * next_variance;
                (next_variance / variance * kept).max(0.0).sqrt()
            }
            Sigma::Marginal => 1.0 - time,
            Sigma::Beta => (2.0 * (1.0 - time) * (next - time)).sqrt(),
            Sigma::DdimEta0 | Sigma::Learned => 0.0,
        }
    }
}

/// The time at which the signal-to-noise ratio is that of a diffusion model's level `abar`.
fn matched_time(abar: f64) -> f64 {
    abar.sqrt() / (abar.sqrt() + (1.0 - abar).sqrt())
}

fn times(grid: Grid, chain: &Chain) -> Vec<f64> {
    let steps = chain.len();
    match grid {
        Grid::Uniform => (0..=steps).map(|k| 1.0 - k as f64 / steps as f64).collect(),
        Grid::OfficialSde => {
            let stride = LAST_SDE_TIME / (steps - 1) as f64;
            let time = |k: usize| if k == 1 { LAST_SDE_TIME } else { (steps - k) as f64 * stride };
            std::iter::once(1.0).chain((1..=steps).map(time)).collect()
        }
        Grid::Snr => {
            // The model expects pure noise first.
            let time = |k: usize| if k == steps { 0.0 } else { matched_time(chain.abar(k)) };
            std::iter::once(1.0).chain((1..=steps).map(time)).collect()
        }
    }
}

/// Whether each step `1..=N` lies in the window.
fn window(knobs: &Knobs, chain: &Chain, times: &[f64]) -> Vec<bool> {
    let in_chain = |k: &usize| knobs.window_ends().contains(knobs.window(), *k);
    let steps = 1..=chain.len();
    match knobs.mapping() {
        Mapping::Counter => steps.map(|k| in_chain(&k)).collect(),
        Mapping::Snr => {
            let mut guided = steps.clone().filter(in_chain);
            // The last steps have the least noise.
            let latest = guided.next().map(|k| matched_time(chain.abar(k)));
            let earliest = guided.next_back().map(|k| matched_time(chain.abar(k))).or(latest);
            // Pure noise, from which a flow starts, is the chain's first step and all before it.
            let earliest = if in_chain(&chain.len()) { Some(0.0) } else { earliest };
            let is_in = |time: f64| {
                earliest.is_some_and(|earliest| earliest <= time)
                    && latest.is_some_and(|latest| time <= latest)
            };
            steps.map(|k| is_in(times[k])).collect()
        }
    }
}

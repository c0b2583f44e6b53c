//! Settings on their way to being valid.

use super::{Knobs, PAPER_STEPS};
use crate::method::family::Family;
use crate::method::flow_switches::{FlowStart, Grid, Mapping, Solver};
use crate::method::presets::Preset;
use crate::method::switches::{ChainKind, Gradient, Mode, Sigma, Start, WindowEnds};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Settings on their way to [`Knobs`]; what is not set takes the preset's value, which is the paper's unless
/// [`Knobs::preset`] named another, and is left out in JSON.
///
/// ```
/// use diver::{Knobs, Mode};
///
/// let knobs = Knobs::builder().mode(Mode::Si).refine_seed(7).build()?;
/// assert_eq!(knobs.steps(), 50);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnobsBuilder {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) t_f: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cfg_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cfg_channels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sigma: Option<Sigma>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<ChainKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window_ends: Option<WindowEnds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gradient: Option<Gradient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) solver: Option<Solver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grid: Option<Grid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mapping: Option<Mapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow_start: Option<FlowStart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refine_seed: Option<u64>,
}

impl KnobsBuilder {
    /// Starts from a preset's values instead of the paper's.
    pub(in crate::method) fn preset(mut self, preset: Preset) -> Self {
        self.preset = Some(preset);
        self
    }

    /// Which parts of the method run.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Number of steps, 2 or more. Unless they are set too, `t_f` and the window scale in proportion.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = Some(steps);
        self
    }

    /// The step to which inheritance noises the distilled latent, 1 to `steps`.
    #[must_use]
    pub fn t_f(mut self, t_f: usize) -> Self {
        self.t_f = Some(t_f);
        self
    }

    /// The guidance window in steps, `1 <= low <= high <= steps`.
    #[must_use]
    pub fn window(mut self, high: usize, low: usize) -> Self {
        self.window = Some((high, low));
        self
    }

    /// Strength of guidance, 0 or more.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = Some(gamma);
        self
    }

    /// Scale of classifier-free guidance, 0 or more; 1 means none.
    #[must_use]
    pub fn cfg_scale(mut self, cfg_scale: f64) -> Self {
        self.cfg_scale = Some(cfg_scale);
        self
    }

    /// How many latent channels classifier-free guidance acts on, 3 or 4.
    #[must_use]
    pub fn cfg_channels(mut self, cfg_channels: usize) -> Self {
        self.cfg_channels = Some(cfg_channels);
        self
    }

    /// What `sigma_t` stands for.
    #[must_use]
    pub fn sigma(mut self, sigma: Sigma) -> Self {
        self.sigma = Some(sigma);
        self
    }

    /// Which timesteps are visited.
    #[must_use]
    pub fn chain(mut self, chain: ChainKind) -> Self {
        self.chain = Some(chain);
        self
    }

    /// Where the chain starts.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// Which ends belong to the window.
    #[must_use]
    pub fn window_ends(mut self, window_ends: WindowEnds) -> Self {
        self.window_ends = Some(window_ends);
        self
    }

    /// The vector along which guidance pulls.
    #[must_use]
    pub fn gradient(mut self, gradient: Gradient) -> Self {
        self.gradient = Some(gradient);
        self
    }

    /// How a flow model (SiT) is integrated.
    #[must_use]
    pub fn solver(mut self, solver: Solver) -> Self {
        self.solver = Some(solver);
        self
    }

    /// Which times a flow model visits; unless set, those that go with the solver.
    #[must_use]
    pub fn grid(mut self, grid: Grid) -> Self {
        self.grid = Some(grid);
        self
    }

    /// How the window is found on a flow model's grid.
    #[must_use]
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = Some(mapping);
        self
    }

    /// From which latent a flow model starts.
    #[must_use]
    pub fn flow_start(mut self, flow_start: FlowStart) -> Self {
        self.flow_start = Some(flow_start);
        self
    }

    /// Seed of the noise.
    #[must_use]
    pub fn refine_seed(mut self, refine_seed: u64) -> Self {
        self.refine_seed = Some(refine_seed);
        self
    }

    /// Names of the settings that were set and that their mode does not look at.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub(crate) fn without_effect(&self, family: Family) -> Result<Vec<String>> {
        let given = self.clone().build_for(family)?;
        let used = given.effective(family)?;
        let [set, given, used] =
            [serde_json::to_value(self), serde_json::to_value(given), serde_json::to_value(used)]
                .map(|value| value.ok().and_then(|value| value.as_object().cloned()).unwrap_or_default());
        Ok(set.keys().filter(|knob| given.get(*knob) != used.get(*knob)).cloned().collect())
    }

    /// Checks the settings, for a DiT.
    ///
    /// # Errors
    /// [`Error::Knob`] names the first one that has a value it cannot have, and what is allowed.
    pub fn build(self) -> Result<Knobs> {
        self.build_for(Family::Dit)
    }

    /// Checks the settings, for a family of models: classifier-free guidance and chain take its usual values unless
    /// they are set.
    ///
    /// ```
    /// use diver::{ChainKind, Family, Knobs};
    ///
    /// let knobs = Knobs::builder().build_for(Family::StableDiffusion)?;
    /// assert_eq!((knobs.cfg_scale(), knobs.chain()), (7.5, ChainKind::SdLeading1));
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_for(self, family: Family) -> Result<Knobs> {
        let paper = Knobs::default();
        let steps = self.steps.unwrap_or(paper.steps);
        if steps < 2 {
            return Err(Error::knob("steps", format!("{steps} is not a number from 2 up")));
        }
        let preset = self.preset.unwrap_or_default();
        let scaled = |of_paper: usize| in_proportion(of_paper, steps);
        let t_f = self.t_f.unwrap_or_else(|| scaled(paper.t_f));
        if !(1..=steps).contains(&t_f) {
            return Err(Error::knob("t_f", format!("{t_f} is not a step from 1 to {steps}")));
        }
        let (high, low) = self.window.unwrap_or_else(|| {
            let (high, low) = preset.window();
            (scaled(high), scaled(low))
        });
        if !(1 <= low && low <= high && high <= steps) {
            return Err(Error::knob(
                "window",
                format!("{high}..{low} is not two steps from {steps} down to 1, the higher first"),
            ));
        }
        let cfg_channels = self.cfg_channels.unwrap_or(family.cfg_channels());
        if !matches!(cfg_channels, 3 | 4) {
            return Err(Error::knob("cfg_channels", format!("{cfg_channels} is neither 3 nor 4")));
        }
        let solver = self.solver.unwrap_or_default();
        Ok(Knobs {
            mode: self.mode.unwrap_or_default(),
            steps,
            t_f,
            window: (high, low),
            gamma: not_negative("gamma", self.gamma.unwrap_or(preset.gamma()))?,
            cfg_scale: not_negative("cfg_scale", self.cfg_scale.unwrap_or(family.cfg_scale()))?,
            cfg_channels,
            sigma: self.sigma.unwrap_or_default(),
            chain: self.chain.unwrap_or(family.chain()),
            start: self.start.unwrap_or_default(),
            window_ends: self.window_ends.unwrap_or_default(),
            gradient: self.gradient.unwrap_or_default(),
            solver,
            grid: self.grid.filter(|grid| *grid != solver.usual_grid()),
            mapping: self.mapping.unwrap_or_default(),
            flow_start: self.flow_start.unwrap_or_default(),
            refine_seed: self.refine_seed.unwrap_or(paper.refine_seed),
        })
    }
}

/// Settings that are all set.
impl From<Knobs> for KnobsBuilder {
    fn from(knobs: Knobs) -> Self {
        knobs.to_builder()
    }
}

impl TryFrom<KnobsBuilder> for Knobs {
    type Error = Error;

    fn try_from(builder: KnobsBuilder) -> Result<Self> {
        builder.build()
    }
}

/// A step of the paper's 50, in a chain of `steps`: rounded, and never 0.
fn in_proportion(of_paper: usize, steps: usize) -> usize {
    let exact = of_paper as f64 * steps as f64 / PAPER_STEPS as f64;
    (exact.round() as usize).max(1)
}

fn not_negative(knob: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(Error::knob(knob, format!("{value} is not a number from 0 up")))
    }
}

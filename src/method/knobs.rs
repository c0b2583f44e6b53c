//! Every setting of the method, validated.

use super::family::Family;
use super::flow_switches::{FlowStart, Grid, Mapping, Solver};
use super::presets::Preset;
use super::switches::{ChainKind, Gradient, Mode, Sigma, Start, WindowEnds};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The number of steps for which the paper gives `t_f` and the window; other numbers scale them in proportion.
const PAPER_STEPS: usize = 50;

/// Every setting of the method. The default is the paper's.
///
/// A `Knobs` is always valid: it comes from [`Knobs::builder`] or from JSON, both of which check.
///
/// ```
/// use diver::{Knobs, Sigma};
///
/// let knobs = Knobs::builder().steps(20).gamma(0.2).sigma(Sigma::Marginal).build()?;
/// assert_eq!((knobs.t_f(), knobs.window()), (10, (16, 10)));
/// assert_eq!(knobs, serde_json::from_str(&serde_json::to_string(&knobs)?)?);
///
/// let refused = Knobs::builder().gamma(-1.0).build().unwrap_err();
/// assert_eq!(refused.to_string(), "gamma: -1 is not a number from 0 up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "KnobsBuilder")]
pub struct Knobs {
    mode: Mode,
    steps: usize,
    t_f: usize,
    window: (usize, usize),
    gamma: f64,
    cfg_scale: f64,
    cfg_channels: usize,
    sigma: Sigma,
    chain: ChainKind,
    start: Start,
    window_ends: WindowEnds,
    gradient: Gradient,
    // Left out where they say nothing new: what was cached before they were there is found by the old JSON.
    #[serde(skip_serializing_if = "is_default")]
    solver: Solver,
    /// None is the solver's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Grid>,
    #[serde(skip_serializing_if = "is_default")]
    mapping: Mapping,
    #[serde(skip_serializing_if = "is_default")]
    flow_start: FlowStart,
    refine_seed: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            steps: PAPER_STEPS,
            t_f: 25,
            window: Preset::Paper.window(),
            gamma: Preset::Paper.gamma(),
            cfg_scale: Family::Dit.cfg_scale(),
            cfg_channels: Family::Dit.cfg_channels(),
            sigma: Sigma::Posterior,
            chain: Family::Dit.chain(),
            start: Start::Tr,
            window_ends: WindowEnds::Closed,
            gradient: Gradient::Latent,
            solver: Solver::Euler,
            grid: None,
            mapping: Mapping::Snr,
            flow_start: FlowStart::Vp,
            refine_seed: 0,
        }
    }
}

impl Knobs {
    /// The paper's settings, ready to be changed.
    #[must_use]
    pub fn builder() -> KnobsBuilder {
        KnobsBuilder::default()
    }

    /// These settings, ready to be changed. `t_f` and the window stay as they are, whatever `steps` becomes.
    #[must_use]
    pub fn to_builder(&self) -> KnobsBuilder {
        KnobsBuilder {
            preset: None,
            mode: Some(self.mode),
            steps: Some(self.steps),
            t_f: Some(self.t_f),
            window: Some(self.window),
            gamma: Some(self.gamma),
            cfg_scale: Some(self.cfg_scale),
            cfg_channels: Some(self.cfg_channels),
            sigma: Some(self.sigma),
            chain: Some(self.chain),
            start: Some(self.start),
            window_ends: Some(self.window_ends),
            gradient: Some(self.gradient),
            solver: Some(self.solver),
            grid: self.grid,
            mapping: Some(self.mapping),
            flow_start: Some(self.flow_start),
            refine_seed: Some(self.refine_seed),
        }
    }

    /// Which parts of the method run.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of steps of the chain, 2 or more; 50 in the paper.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The step to which inheritance noises the distilled latent, 1 to `steps`; 25 of 50 in the paper.
    #[must_use]
    pub fn t_f(&self) -> usize {
        self.t_f
    }

    /// The guidance window `(high, low)` in steps; (40, 25) of 50 in the paper.
    #[must_use]
    pub fn window(&self) -> (usize, usize) {
        self.window
    }

    /// Strength of guidance, 0 or more; 0.1 in the paper, 0.02 for NCFM.
    #[must_use]
    pub fn gamma(&self) -> f64 {
        self.gamma
    }

    /// Scale of classifier-free guidance, 0 or more; 1 means none.
    #[must_use]
    pub fn cfg_scale(&self) -> f64 {
        self.cfg_scale
    }

    /// How many latent channels classifier-free guidance acts on: 3 as in the DiT repository, 4 as in diffusers.
    #[must_use]
    pub fn cfg_channels(&self) -> usize {
        self.cfg_channels
    }

    /// What `sigma_t` stands for.
    #[must_use]
    pub fn sigma(&self) -> Sigma {
        self.sigma
    }

    /// Which timesteps are visited.
    #[must_use]
    pub fn chain(&self) -> ChainKind {
        self.chain
    }

    /// Where the chain starts.
    #[must_use]
    pub fn start(&self) -> Start {
        self.start
    }

    /// Which ends belong to the window.
    #[must_use]
    pub fn window_ends(&self) -> WindowEnds {
        self.window_ends
    }

    /// The vector along which guidance pulls.
    #[must_use]
    pub fn gradient(&self) -> Gradient {
        self.gradient
    }

    /// How a flow model (SiT) is integrated.
    #[must_use]
    pub fn solver(&self) -> Solver {
        self.solver
    }

    /// Which times a flow model visits.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid.unwrap_or(self.solver.usual_grid())
    }

    /// How the window is found on a flow model's grid.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// From which latent a flow model starts.
    #[must_use]
    pub fn flow_start(&self) -> FlowStart {
        self.flow_start
    }

    /// Seed of the noise.
    #[must_use]
    pub fn refine_seed(&self) -> u64 {
        self.refine_seed
    }

    /// The first setting that only a flow model knows, if one is not as usual.
    pub(crate) fn for_flows_alone(&self) -> Option<&'static str> {
        let unusual = [
            ("solver", !is_default(&self.solver)),
            ("grid", self.grid.is_some()),
            ("mapping", !is_default(&self.mapping)),
            ("flow_start", !is_default(&self.flow_start)),
        ];
        unusual.into_iter().find_map(|(knob, is_unusual)| is_unusual.then_some(knob))
    }

    /// How many steps run: all of them, or `t_f` if the chain starts there.
    #[must_use]
    pub fn executed_steps(&self) -> usize {
        match self.start {
            Start::Tr => self.steps,
            Start::Tf => self.t_f,
        }
    }
}

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
    preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    t_f: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cfg_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cfg_channels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sigma: Option<Sigma>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<ChainKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_ends: Option<WindowEnds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient: Option<Gradient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solver: Option<Solver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Grid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<Mapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_start: Option<FlowStart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refine_seed: Option<u64>,
}

impl KnobsBuilder {
    /// Starts from a preset's values instead of the paper's.
    pub(super) fn preset(mut self, preset: Preset) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_starts_from_the_paper() {
        assert_eq!(Knobs::builder().build().unwrap(), Knobs::default());
        assert_eq!(Knobs::default().to_builder().build().unwrap(), Knobs::default());
        assert_eq!(serde_json::from_str::<Knobs>("{}").unwrap(), Knobs::default());
    }

    #[test]
    fn other_numbers_of_steps_scale_what_is_not_set() {
        let of = |steps| {
            let knobs = Knobs::builder().steps(steps).build().unwrap();
            (knobs.t_f(), knobs.window())
        };
        assert_eq!(of(100), (50, (80, 50)));
        assert_eq!(of(25), (13, (20, 13)));
        assert_eq!(of(2), (1, (2, 1)));
        let set = Knobs::builder().steps(100).t_f(25).window(40, 25).build().unwrap();
        assert_eq!((set.t_f(), set.window()), (25, (40, 25)));
    }

    #[test]
    fn refusals_name_the_knob() {
        let refused = |builder: KnobsBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(refused(Knobs::builder().steps(1)), "steps: 1 is not a number from 2 up");
        assert_eq!(refused(Knobs::builder().t_f(51)), "t_f: 51 is not a step from 1 to 50");
        assert!(refused(Knobs::builder().window(25, 40)).starts_with("window: 25..40 is not"));
        assert!(refused(Knobs::builder().gamma(f64::NAN)).starts_with("gamma: NaN is not"));
        assert!(refused(Knobs::builder().cfg_channels(5)).starts_with("cfg_channels: 5 is"));
        let unknown = serde_json::from_str::<Knobs>(r#"{"sigma": "prior"}"#).unwrap_err().to_string();
        assert!(unknown.contains("sigma: `prior` is none of posterior, marginal"), "{unknown}");
        assert!(serde_json::from_str::<Knobs>(r#"{"gama": 1}"#).is_err());
    }

    #[test]
    fn a_builder_is_written_as_what_was_set() {
        let text = |builder: &KnobsBuilder| serde_json::to_string(builder).unwrap();
        assert_eq!(text(&Knobs::builder()), "{}");
        let builder = Knobs::builder().window(9, 4).sigma(Sigma::Beta);
        assert_eq!(text(&builder), r#"{"window":[9,4],"sigma":"beta"}"#);
        let read: KnobsBuilder = serde_json::from_str(&text(&builder)).unwrap();
        assert_eq!(read.build().unwrap(), builder.build().unwrap());
    }

    #[test]
    fn flow_settings_survive_json() {
        assert!(!serde_json::to_string(&Knobs::default()).unwrap().contains("solver"));
        for solver in Solver::ALL {
            for grid in Grid::ALL {
                let knobs = Knobs::builder().solver(*solver).grid(*grid).build().unwrap();
                let read: Knobs = serde_json::from_str(&serde_json::to_string(&knobs).unwrap()).unwrap();
                assert_eq!((read.grid(), &read), (*grid, &knobs));
                assert_eq!(knobs.to_builder().build().unwrap(), knobs);
            }
        }
    }

    #[test]
    fn names_go_both_ways() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse::<Mode>().unwrap(), *mode);
        }
        assert_eq!(serde_json::to_string(&ChainKind::SdLeading1).unwrap(), "\"sd_leading1\"");
    }
}

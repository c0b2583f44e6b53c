//! Every setting of the method, validated.

mod builder;

pub use builder::KnobsBuilder;

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
/// use diver_loaders::method::{Knobs, Sigma};
///
/// let knobs = Knobs::builder().steps(20).gamma(0.2).sigma(Sigma::Marginal).build()?;
/// assert_eq!((knobs.t_f(), knobs.window()), (10, (16, 10)));
/// assert_eq!(knobs, serde_json::from_str(&serde_json::to_string(&knobs)?)?);
///
/// let refused = Knobs::builder().gamma(-1.0).build().unwrap_err();
/// assert_eq!(refused.to_string(), "gamma: -1.0 must be at least 0");
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
    pub fn for_flows_alone(&self) -> Option<&'static str> {
        let unusual = [
            ("solver", !is_default(&self.solver)),
            ("grid", self.grid.is_some()),
            ("mapping", !is_default(&self.mapping)),
            ("flow_start", !is_default(&self.flow_start)),
        ];
        unusual.into_iter().find_map(|(knob, is_unusual)| is_unusual.then_some(knob))
    }

    /// How many steps run: all of them, `t_f` if the chain starts there, none without diffusion.
    #[must_use]
    pub fn executed_steps(&self) -> usize {
        match (self.mode, self.start) {
            (Mode::Vae, _) => 0,
            (_, Start::Tr) => self.steps,
            (_, Start::Tf) => self.t_f,
        }
    }

    /// Refuses settings with which a diffusion chain would leave out a part of its mode.
    ///
    /// # Errors
    /// [`Error::Config`] names `start` or `window`.
    pub fn check_for_chain(&self) -> Result<()> {
        let mode = self.mode;
        if mode == Mode::Vae {
            return Ok(());
        }
        if self.start == Start::Tf && !mode.inherits() {
            let reason =
                format!("`t_f` starts from the noised distilled latent, which mode `{mode}` leaves out");
            return Err(Error::config("start", reason));
        }
        let is_guided = |k| self.window_ends.contains(self.window, k);
        if mode.guides() && mode.fuses() && !(1..=self.executed_steps()).any(is_guided) {
            let (high, low) = self.window;
            let reason = format!(
                "none of the steps {}..1 that run lies in {high}..{low} (window_ends `{}`), so none would be guided; \
                 mode `si` or `raw` says so",
                self.executed_steps(),
                self.window_ends
            );
            return Err(Error::config("window", reason));
        }
        Ok(())
    }

    /// The same with every setting that the mode does not look at as it usually is: two that are equal then make the
    /// same images.
    ///
    /// # Errors
    /// As for [`KnobsBuilder::build`].
    pub fn effective(&self, family: Family) -> Result<Self> {
        let mode = self.mode;
        let all = self.to_builder();
        let mut used = KnobsBuilder { mode: all.mode, ..KnobsBuilder::default() };
        if mode != Mode::Vae {
            used = KnobsBuilder {
                steps: all.steps,
                cfg_scale: all.cfg_scale,
                chain: all.chain,
                start: all.start,
                solver: all.solver,
                grid: all.grid,
                refine_seed: all.refine_seed,
                ..used
            };
            if self.cfg_scale != 1.0 {
                used.cfg_channels = all.cfg_channels;
            }
        }
        if mode.inherits() {
            used = KnobsBuilder { t_f: all.t_f, flow_start: all.flow_start, ..used };
        }
        if mode.guides() {
            used = KnobsBuilder { gamma: all.gamma, sigma: all.sigma, gradient: all.gradient, ..used };
        }
        if mode.fuses() {
            used = KnobsBuilder { window: all.window, window_ends: all.window_ends, ..used };
        }
        // Says where the window is, and from where a flow starts.
        if mode.fuses() || mode.inherits() {
            used.mapping = all.mapping;
        }
        used.build_for(family)
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
        assert_eq!(refused(Knobs::builder().steps(1)), "steps: 1 must be at least 2");
        assert_eq!(refused(Knobs::builder().t_f(51)), "t_f: 51 is not a step from 1 to 50");
        assert!(refused(Knobs::builder().window(25, 40)).starts_with("window: 25..40 is not"));
        assert!(refused(Knobs::builder().gamma(f64::NAN)).starts_with("gamma: NaN is not"));
        assert!(refused(Knobs::builder().cfg_channels(5)).starts_with("cfg_channels: 5 must be at most 4"));
        let unknown = serde_json::from_str::<Knobs>(r#"{"sigma": "prior"}"#).unwrap_err().to_string();
        assert!(unknown.contains("sigma: `prior` is not one of posterior, marginal"), "{unknown}");
        assert!(serde_json::from_str::<Knobs>(r#"{"gama": 1}"#).is_err());
    }

    #[test]
    fn a_builder_is_written_as_what_was_set() {
        let text = |builder: &KnobsBuilder| serde_json::to_string(builder).unwrap();
        assert_eq!(text(&Knobs::builder()), "{}");
        let builder = Knobs::builder().window(9, 4).sigma(Sigma::Beta);
        assert_eq!(text(&builder), r#"{"sigma":"beta","window":[9,4]}"#);
        let read: KnobsBuilder = serde_json::from_str(&text(&builder)).unwrap();
        assert_eq!(read.build().unwrap(), builder.build().unwrap());
    }

    #[test]
    fn every_setting_has_a_setter() {
        let builder = Knobs::preset("ncfm").unwrap().window(3, 2);
        let builder =
            KnobsBuilder { preset: builder.preset, ..Knobs::default().to_builder() }.grid(Grid::Snr);
        crate::options::assert_every_one_is_set(&builder);
    }

    #[test]
    fn what_a_mode_leaves_out_makes_no_difference() {
        let effective = |builder: KnobsBuilder| {
            let family = Family::StableDiffusion;
            builder.build_for(family).unwrap().effective(family).unwrap()
        };
        for mode in Mode::ALL {
            let of = || Knobs::builder().mode(*mode);
            let same = |other: KnobsBuilder| effective(of()) == effective(other);
            let draws = *mode != Mode::Vae;
            assert_eq!(
                same(of().gamma(0.7).sigma(Sigma::Beta).gradient(Gradient::X0)),
                !mode.guides(),
                "{mode}"
            );
            assert_eq!(same(of().window(30, 28).window_ends(WindowEnds::High)), !mode.fuses(), "{mode}");
            assert_eq!(same(of().t_f(20)), !mode.inherits(), "{mode}");
            for other in [of().steps(20), of().refine_seed(7), of().cfg_scale(2.0), of().cfg_channels(3)] {
                assert_eq!(same(other), !draws, "{mode}");
            }
            assert!(same(of().cfg_scale(1.0).cfg_channels(3)) != draws, "{mode}");
            let unguided = |channels| effective(of().cfg_scale(1.0).cfg_channels(channels));
            assert_eq!(unguided(3), unguided(4), "{mode}");
        }
        assert_eq!(Knobs::default().effective(Family::Dit).unwrap(), Knobs::default());
        let idle = Knobs::builder().mode(Mode::Si).gamma(0.7).steps(20).window_ends(WindowEnds::High);
        assert_eq!(idle.without_effect(Family::Dit).unwrap(), ["gamma", "window_ends"]);
    }

    #[test]
    fn a_chain_has_steps_for_its_mode() {
        let refused = |builder: KnobsBuilder| {
            builder.build().unwrap().check_for_chain().map_err(|error| error.to_string())
        };
        let late = || Knobs::builder().start(Start::Tf);
        assert_eq!(refused(late()), Ok(()));
        let error = refused(late().t_f(20)).unwrap_err();
        assert!(error.starts_with("window: none of the steps 20..1 that run lies in 40..25"), "{error}");
        let error = refused(late().mode(Mode::SgSf)).unwrap_err();
        assert!(error.starts_with("start: `t_f` starts from the noised distilled latent"), "{error}");
        let empty = || Knobs::builder().window(25, 25).window_ends(WindowEnds::High);
        assert!(refused(empty()).unwrap_err().contains("lies in 25..25 (window_ends `high`)"));
        for mode in [Mode::Raw, Mode::Si, Mode::Sg, Mode::SiSg] {
            assert_eq!(refused(empty().mode(mode)), Ok(()));
        }
        assert_eq!(refused(late().mode(Mode::Vae)), Ok(()));
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

//! Settings on their way to being valid.

use super::{Knobs, PAPER_STEPS};
use crate::method::family::Family;
use crate::method::flow_switches::{FlowStart, Grid, Mapping, Solver};
use crate::method::presets::Preset;
use crate::method::switches::{ChainKind, Gradient, Mode, Sigma, Start, WindowEnds};
use crate::options::check;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares [`KnobsBuilder`] with a method for each setting; those of the second list have one by hand.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        struct {
            $(
                $(#[doc = $doc:literal])+
                $(#[schemars $schemars:tt])?
                $(#[arg($($arg:tt)+)])?
                $knob:ident: $type:ty,
            )+
        }
        by hand {
            $( $(#[$other_meta:meta])+ $other:ident: $other_type:ty, )+
        }
    ) => {
        $(#[$meta])*
        pub struct KnobsBuilder {
            $(
                $(#[doc = $doc])+
                $(#[schemars $schemars])?
                #[cfg_attr(feature = "cli", arg(long, help_heading = "Method", $($($arg)+)?))]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $knob: Option<$type>,
            )+
            $(
                $(#[$other_meta])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $other: Option<$other_type>,
            )+
        }

        impl KnobsBuilder {
            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $knob(mut self, $knob: $type) -> Self {
                    self.$knob = Some($knob);
                    self
                }
            )+
        }
    };
}

settings! {
    /// Settings on their way to [`Knobs`]; what is not set takes the preset's value, which is the paper's unless
    /// [`Knobs::preset`] named another, and is left out in JSON.
    ///
    /// ```
    /// use diver_loaders::method::{Knobs, Mode};
    ///
    /// let knobs = Knobs::builder().mode(Mode::Si).refine_seed(7).build()?;
    /// assert_eq!(knobs.steps(), 50);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[cfg_attr(feature = "cli", derive(clap::Args))]
    #[serde(default, deny_unknown_fields)]
    struct {
        /// What runs: raw, si, sg, si_sg, full, sg_sf (rows of the paper's ablation), or vae (encode and decode only)
        /// [default: full]
        #[arg(value_name = "NAME")]
        mode: Mode,

        /// Number of denoising steps; `t_f` and `window` scale with it unless they are given [default: 50]
        #[schemars(range(min = 2))]
        #[arg(value_name = "N")]
        steps: usize,

        /// Step whose noise level the distilled latent is noised to, 1 to `steps` [default: half of the steps]
        #[schemars(range(min = 1))]
        #[arg(value_name = "K")]
        t_f: usize,

        /// Strength of the pull toward the distilled latent [default: 0.1]
        #[schemars(range(min = 0))]
        #[arg(value_name = "G")]
        gamma: f64,

        /// Scale of classifier-free guidance, 1 for none [default: 4.0; 7.5 for Stable Diffusion]
        #[schemars(range(min = 0))]
        #[arg(value_name = "S")]
        cfg_scale: f64,

        /// Latent channels under classifier-free guidance, 3 as in DiT's own code or 4 as in diffusers [default: 3; 4 for
        /// Stable Diffusion]
        #[schemars(range(min = 3, max = 4))]
        #[arg(value_name = "N")]
        cfg_channels: usize,

        /// Scale of the pull at each step [default: posterior]
        #[arg(value_name = "NAME")]
        sigma: Sigma,

        /// Which timesteps are visited [default: dit; sd_leading1 for Stable Diffusion]
        #[arg(value_name = "NAME")]
        chain: ChainKind,

        /// The first step: t_r (all run) or t_f (from the noised latent's own step) [default: t_r]
        #[arg(value_name = "NAME")]
        start: Start,

        /// Which ends of the window are guided [default: closed]
        #[arg(value_name = "NAME")]
        window_ends: WindowEnds,

        /// What is pulled: latent (before the step), after (the step) or x0 (the prediction) [default: latent]
        #[arg(value_name = "NAME")]
        gradient: Gradient,

        /// How a SiT is integrated [default: euler]
        #[arg(value_name = "NAME")]
        solver: Solver,

        /// Times that a SiT visits [default: that of the solver]
        #[arg(value_name = "NAME")]
        grid: Grid,

        /// How the window is found on a SiT's times: snr (steps of the same noise) or counter (of the same number)
        /// [default: snr]
        #[arg(value_name = "NAME")]
        mapping: Mapping,

        /// Latent that a SiT starts from: vp (of unit variance) or path (on its own line) [default: vp]
        #[arg(value_name = "NAME")]
        flow_start: FlowStart,

        /// Seed of the refinement noise; another seed makes other images [default: 0]
        #[arg(value_name = "N")]
        refine_seed: u64,
    }
    by hand {
        /// First and last guided step, counting down [default: 40,25 of 50]
        #[cfg_attr(feature = "cli", arg(long, value_name = "HIGH,LOW", value_parser = steps, help_heading = "Method"))]
        window: (usize, usize),

        /// Settings by name: those for sets of a distillation method, as in ncfm, or small_latents, for backbones with
        /// latents of about 8 x 8; options given beside it win [default: paper]
        #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", help_heading = "Method"))]
        preset: Preset,
    }
}

/// Two steps on a command line.
#[cfg(feature = "cli")]
fn steps(text: &str) -> Result<(usize, usize), &'static str> {
    let two = text
        .split_once(',')
        .and_then(|(high, low)| Some((high.trim().parse().ok()?, low.trim().parse().ok()?)));
    two.ok_or("two steps are expected, as in --window 40,25")
}

impl KnobsBuilder {
    /// Starts from a preset's values instead of the paper's.
    pub(in crate::method) fn preset(mut self, preset: Preset) -> Self {
        self.preset = Some(preset);
        self
    }

    /// First and last guided step, `1 <= low <= high <= steps`; counting down, 40 and 25 of 50 unless set.
    #[must_use]
    pub fn window(mut self, high: usize, low: usize) -> Self {
        self.window = Some((high, low));
        self
    }

    /// Names of the settings that were set and that their mode does not look at.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn without_effect(&self, family: Family) -> Result<Vec<String>> {
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
    /// [`Error::Config`] names the first one that has a value it cannot have, and what is allowed.
    pub fn build(self) -> Result<Knobs> {
        self.build_for(Family::Dit)
    }

    /// Checks the settings, for a family of models: classifier-free guidance and chain take its usual values unless
    /// they are set.
    ///
    /// ```
    /// use diver_loaders::method::{ChainKind, Family, Knobs};
    ///
    /// let knobs = Knobs::builder().build_for(Family::StableDiffusion)?;
    /// assert_eq!((knobs.cfg_scale(), knobs.chain()), (7.5, ChainKind::SdLeading1));
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_for(self, family: Family) -> Result<Knobs> {
        check(&self)?;
        let paper = Knobs::default();
        let steps = self.steps.unwrap_or(paper.steps);
        let preset = self.preset.unwrap_or_default();
        let scaled = |of_paper: usize| in_proportion(of_paper, steps);
        let t_f = self.t_f.unwrap_or_else(|| scaled(paper.t_f));
        if !(1..=steps).contains(&t_f) {
            return Err(Error::config("t_f", format!("{t_f} is not a step from 1 to {steps}")));
        }
        let (high, low) = self.window.unwrap_or_else(|| {
            let (high, low) = preset.window();
            (scaled(high), scaled(low))
        });
        if !(1 <= low && low <= high && high <= steps) {
            return Err(Error::config(
                "window",
                format!("{high}..{low} is not two steps from {steps} down to 1, the higher first"),
            ));
        }
        let solver = self.solver.unwrap_or_default();
        Ok(Knobs {
            mode: self.mode.unwrap_or_default(),
            steps,
            t_f,
            window: (high, low),
            gamma: finite("gamma", self.gamma.unwrap_or(preset.gamma()))?,
            cfg_scale: finite("cfg_scale", self.cfg_scale.unwrap_or(family.cfg_scale()))?,
            cfg_channels: self.cfg_channels.unwrap_or(family.cfg_channels()),
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

/// JSON, by which ranges are checked, has no word for numbers that are not.
fn finite(knob: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::config(knob, format!("{value} is not finite"))) }
}

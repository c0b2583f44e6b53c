//! The named choices among the [`Knobs`](super::Knobs): the rows of the paper's ablation table, and what its text
//! leaves open.

use crate::options::named_enum;

named_enum! {
    /// Which parts of the method run: the rows of the ablation table of DIVER (arXiv 2605.12649), and two more.
    ///
    /// ```
    /// use diver_loaders::method::Mode;
    ///
    /// let mode: Mode = "si_sg".parse()?;
    /// assert!(mode.inherits() && mode.guides() && !mode.fuses());
    /// assert!("sisg".parse::<Mode>().is_err());
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    Mode, "mode" {
        /// The bare diffusion model: starts from noise, ignores the image.
        Raw = "raw",
        /// Semantic inheritance only: starts from the noised distilled latent.
        Si = "si",
        /// Semantic guidance at every step, from noise.
        Sg = "sg",
        /// Inheritance, and guidance at every step.
        SiSg = "si_sg",
        /// The method: inheritance, and guidance fused in within the window.
        #[default]
        Full = "full",
        /// Guidance within the window, from noise.
        SgSf = "sg_sf",
        /// The autoencoder alone: encode and decode, no diffusion.
        Vae = "vae",
    }
}

impl Mode {
    /// Semantic inheritance: the chain starts from the noised distilled latent, not from noise.
    #[must_use]
    pub fn inherits(self) -> bool {
        matches!(self, Self::Si | Self::SiSg | Self::Full)
    }

    /// Semantic guidance: steps pull the latent toward the distilled one.
    #[must_use]
    pub fn guides(self) -> bool {
        matches!(self, Self::Sg | Self::SiSg | Self::Full | Self::SgSf)
    }

    /// Semantic fusion: guidance acts within the window only.
    #[must_use]
    pub fn fuses(self) -> bool {
        matches!(self, Self::Full | Self::SgSf)
    }
}

named_enum! {
    /// What the paper's `sigma_t`, the strength of a guided step, stands for.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::Sigma::default().to_string(), "posterior");
    /// ```
    #[derive(Default)]
    Sigma, "sigma" {
        /// `sqrt(beta~_t)`, the standard deviation of `q(z_{t-1} | z_t, z_0)` on the respaced chain: DDIM's own
        /// `sigma_t` at `eta = 1`.
        #[default]
        Posterior = "posterior",
        /// `sqrt(1 - abar_t)`, the standard deviation of the noise in `z_t`; about twice `posterior` in the window.
        Marginal = "marginal",
        /// `sqrt(beta_t)` of the respaced chain: the standard deviation of one step of the reverse process, which for
        /// a flow model is `sqrt(2 (1 - s) ds)`.
        Beta = "beta",
        /// The network's own standard deviation, where it has a variance head (DiT has).
        Learned = "learned",
        /// DDIM's `sigma_t` at `eta = 0`, which is 0: guidance off.
        DdimEta0 = "ddim_eta0",
    }
}

named_enum! {
    /// Which of the training timesteps the sampler visits. `N` is the number of steps, `T` that of training.
    ///
    /// ```
    /// assert_eq!("trailing".parse::<diver_loaders::method::ChainKind>()?, diver_loaders::method::ChainKind::Trailing);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    ChainKind, "chain" {
        /// Evenly from 0 to `T - 1`, both kept, rounded: `create_diffusion("N")` of the DiT repository.
        #[default]
        Dit = "dit",
        /// Every `s`-th timestep from 0, with the smallest `s` that gives `N`: `create_diffusion("ddimN")`.
        Ddim = "ddim",
        /// diffusers' `leading` spacing, offset 0.
        Leading0 = "leading0",
        /// diffusers' `leading` spacing, offset 1.
        Leading1 = "leading1",
        /// diffusers' `trailing` spacing.
        Trailing = "trailing",
        /// diffusers' `linspace` spacing: the timesteps of `dit`, but each step lands on `tau - T / N`, which is
        /// not the timestep visited next.
        LinspaceDiffusers = "linspace_diffusers",
        /// `leading1`, with the last step landing on `abar_0` instead of 1, as Stable Diffusion 1.5 is configured
        /// (`set_alpha_to_one = false`).
        SdLeading1 = "sd_leading1",
    }
}

named_enum! {
    /// Where the chain starts.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::Start::default().as_str(), "t_r");
    /// ```
    #[derive(Default)]
    Start, "start" {
        /// At its noisy end: all steps run, and the latent noised to step `t_f` is taken for the start.
        #[default]
        Tr = "t_r",
        /// At step `t_f` itself, as SDEdit does: only `t_f` steps run.
        Tf = "t_f",
    }
}

named_enum! {
    /// Which ends of the guidance window `(high, low)` belong to it; `k` counts steps down to 1.
    ///
    /// ```
    /// use diver_loaders::method::WindowEnds;
    ///
    /// assert!(WindowEnds::Closed.contains((40, 25), 25));
    /// assert!(!WindowEnds::High.contains((40, 25), 25));
    /// ```
    #[derive(Default)]
    WindowEnds, "window_ends" {
        /// Both: `low <= k <= high`.
        #[default]
        Closed = "closed",
        /// The upper one: `low < k <= high`.
        High = "high",
        /// Both, in a counter from 0: `low <= k - 1 <= high`.
        ZeroBased = "zero_based",
    }
}

impl WindowEnds {
    /// Whether step `k` lies in the window `(high, low)`.
    #[must_use]
    pub fn contains(self, (high, low): (usize, usize), k: usize) -> bool {
        match self {
            Self::Closed => low <= k && k <= high,
            Self::High => low < k && k <= high,
            Self::ZeroBased => low < k && k <= high + 1,
        }
    }
}

named_enum! {
    /// The vector along which guidance pulls, as a difference from the distilled latent `z0`.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::Gradient::default().to_string(), "latent");
    /// ```
    #[derive(Default)]
    Gradient, "gradient" {
        /// `z_k - z0`, with the latent before the step: the printed formula.
        #[default]
        Latent = "latent",
        /// `z'_{k-1} - z0`, with the latent after the DDIM step.
        After = "after",
        /// `x0 - z0`, with the clean latent that the step predicts.
        X0 = "x0",
    }
}

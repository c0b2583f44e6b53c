//! The named choices that only flow models know: SiT (Ma et al. 2024) moves from noise to data along straight lines.

use crate::options::named_enum;

named_enum! {
    /// How a flow model is integrated from noise to data.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::Solver::default().to_string(), "euler");
    /// ```
    #[derive(Default)]
    Solver, "solver" {
        /// Euler's method on the probability flow: one call of the network for each step.
        #[default]
        Euler = "euler",
        /// Heun's: two calls, second order.
        Heun = "heun",
        /// Euler and Maruyama's on the reverse SDE with diffusion `w = 1 - s`; the last step is free of noise.
        Sde = "sde",
    }
}

impl Solver {
    /// The grid that goes with it unless another is asked for: that of the SiT repository.
    pub(super) fn usual_grid(self) -> Grid {
        match self {
            Self::Euler | Self::Heun => Grid::Uniform,
            Self::Sde => Grid::OfficialSde,
        }
    }
}

named_enum! {
    /// The times that a flow model visits, from 0 (noise) to 1 (data). `N` is the number of steps.
    ///
    /// ```
    /// assert_eq!("snr".parse::<diver_loaders::method::Grid>()?, diver_loaders::method::Grid::Snr);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    Grid, "grid" {
        /// `N` equal steps: the SiT repository's `sample_ode` with `N + 1` points.
        #[default]
        Uniform = "uniform",
        /// `N - 1` equal steps to 0.96 and one of 0.04: the SiT repository's `sample_sde`.
        OfficialSde = "official_sde",
        /// The noise levels of the diffusion chain.
        Snr = "snr",
    }
}

named_enum! {
    /// How the guidance window, which counts the steps of a diffusion chain, is found on a flow model's grid.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::Mapping::default().as_str(), "snr");
    /// ```
    #[derive(Default)]
    Mapping, "mapping" {
        /// By noise: the steps that start at the signal-to-noise ratios of the chain's window.
        #[default]
        Snr = "snr",
        /// By number: the same step counters.
        Counter = "counter",
    }
}

named_enum! {
    /// The latent from which semantic inheritance starts a flow model.
    ///
    /// ```
    /// assert_eq!(diver_loaders::method::FlowStart::default().as_str(), "vp");
    /// ```
    #[derive(Default)]
    FlowStart, "flow_start" {
        /// That of a diffusion model, `sqrt(abar) z0 + sqrt(1 - abar) eps`: of unit variance, as the model expects of
        /// noise.
        #[default]
        Vp = "vp",
        /// The point on the flow's own line, `s z0 + (1 - s) eps`, whose variance is less.
        Path = "path",
    }
}

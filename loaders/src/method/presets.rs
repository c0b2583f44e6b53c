//! Settings that go together.

use super::{Knobs, KnobsBuilder};
use crate::Result;
use crate::options::named_enum;

named_enum! {
    /// What a builder starts from, for chains of 50 steps.
    #[derive(Default)]
    Preset, "preset" {
        /// The paper's common settings.
        Dc = "dc",
        /// The paper's common settings.
        Dsa = "dsa",
        /// The paper's common settings.
        Dm = "dm",
        /// The paper's common settings.
        Mtt = "mtt",
        /// The paper's common settings.
        Datm = "datm",
        /// The paper's common settings.
        Edf = "edf",
        /// The paper's common settings.
        Idc = "idc",
        /// The paper's common settings.
        Sre2l = "sre2l",
        /// The paper's common settings.
        GVbsm = "g_vbsm",
        /// The paper's common settings.
        #[default]
        Paper = "paper",
        /// The paper's for NCFM, whose images need a gentler pull.
        Ncfm = "ncfm",
        /// For latents of about 8 x 8.
        SmallLatents = "small_latents",
    }
}

impl Preset {
    /// First and last guided step of 50, counting down.
    pub(super) fn window(self) -> (usize, usize) {
        match self {
            Self::SmallLatents => (30, 12),
            _ => (40, 25),
        }
    }

    /// Strength of guidance.
    pub(super) fn gamma(self) -> f64 {
        match self {
            Self::Ncfm => 0.02,
            Self::SmallLatents => 0.2,
            _ => 0.1,
        }
    }
}

impl Knobs {
    /// Settings by name, ready to be changed. In whatever number of steps, the window stays in proportion.
    ///
    /// - `paper`, or a distillation method in lower case (`dc`, `dsa`, `dm`, `mtt`, `datm`, `edf`, `idc`, `sre2l`,
    ///   `g_vbsm`): the paper's common settings, window (40, 25) of 50 and `gamma` 0.1.
    /// - `ncfm`: the paper's for NCFM, whose images need a gentler pull: `gamma` 0.02.
    /// - `small_latents`: window (30, 12), `gamma` 0.2. The fewer places a latent has, the less noise it takes to hide what it shows:
    ///   equal content is left at a log-SNR that is higher by `2 ln(32 / side)` than in the latents of 32 x 32 that
    ///   the paper worked on ("simple diffusion", Hoogeboom et al., arXiv 2301.11093, section 3.1). For 8 x 8 this moves
    ///   the paper's window from steps 40..25 to 30..12. `gamma` was chosen on validation data (`examples/README.md`).
    ///
    /// ```
    /// use diver_loaders::method::Knobs;
    ///
    /// assert_eq!(Knobs::preset("mtt")?.build()?, Knobs::default());
    /// assert_eq!(Knobs::preset("ncfm")?.steps(20).build()?.gamma(), 0.02);
    /// assert_eq!(Knobs::preset("small_latents")?.steps(20).build()?.window(), (12, 5));
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there is no preset of that name.
    pub fn preset(name: &str) -> Result<KnobsBuilder> {
        Ok(Self::builder().preset(name.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Knobs, Preset};

    #[test]
    fn ncfm_differs_in_gamma_alone() {
        let ncfm = Knobs::preset("ncfm").unwrap();
        assert_eq!(ncfm.gamma(0.1).build().unwrap(), Knobs::preset("dm").unwrap().build().unwrap());
    }

    #[test]
    fn what_is_set_wins_over_a_preset_in_json_too() {
        let builder = Knobs::preset("small_latents").unwrap().steps(100);
        let json = serde_json::to_string(&builder).unwrap();
        assert_eq!(json, r#"{"steps":100,"preset":"small_latents"}"#);
        let knobs: Knobs = serde_json::from_str(&json).unwrap();
        assert_eq!((knobs.window(), knobs.gamma()), ((60, 24), 0.2));
        assert_eq!(builder.window(80, 70).build().unwrap().window(), (80, 70));
    }

    /// The paper's window on the log-SNR scale, moved by `2 ln(32 / 8)`, on the paper's schedule.
    #[test]
    fn the_window_for_small_latents_lies_where_theory_puts_it() {
        let betas = (0..1000).map(|t| 1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0);
        let mut alpha_bar = 1.0;
        let log_snr: Vec<f64> = betas
            .map(|beta| {
                alpha_bar *= 1.0 - beta;
                (alpha_bar / (1.0 - alpha_bar)).ln()
            })
            .collect();
        let of_step = |k: usize| log_snr[((k - 1) as f64 * 999.0 / 49.0).round() as usize];
        let moved = |k| {
            let target = of_step(k) + 2.0 * (32.0_f64 / 8.0).ln();
            (1..=50).min_by(|&a, &b| {
                let distance = |k| (of_step(k) - target).abs();
                distance(a).total_cmp(&distance(b))
            })
        };
        let (high, low) = Preset::Paper.window();
        let (moved_high, moved_low) = Preset::SmallLatents.window();
        assert_eq!((moved(high), moved(low)), (Some(moved_high), Some(moved_low)));
    }

    #[test]
    fn an_unknown_preset_lists_the_known() {
        let text = Knobs::preset("gan").unwrap_err().to_string();
        assert!(
            text.starts_with("preset: `gan` is not one of dc, dsa") && text.contains("small_latents"),
            "{text}"
        );
    }
}

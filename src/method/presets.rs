//! Settings that go together.

use super::knob_enum::knob_enum;
use super::{Knobs, KnobsBuilder};
use crate::{Error, Result};

/// Distillation methods with the paper's common settings.
const COMMON: [&str; 9] = ["dc", "dsa", "dm", "mtt", "datm", "edf", "idc", "sre2l", "g_vbsm"];

knob_enum! {
    /// What a builder starts from, for chains of 50 steps.
    Preset, "preset" {
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
            Self::Paper | Self::Ncfm => (40, 25),
            Self::SmallLatents => (30, 12),
        }
    }

    /// Strength of guidance.
    pub(super) fn gamma(self) -> f64 {
        match self {
            Self::Paper => 0.1,
            Self::Ncfm => 0.02,
            Self::SmallLatents => 0.2,
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
    /// use diver::Knobs;
    ///
    /// assert_eq!(Knobs::preset("mtt")?.build()?, Knobs::default());
    /// assert_eq!(Knobs::preset("ncfm")?.steps(20).build()?.gamma(), 0.02);
    /// assert_eq!(Knobs::preset("small_latents")?.steps(20).build()?.window(), (12, 5));
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Knob`] if there is no preset of that name.
    pub fn preset(name: &str) -> Result<KnobsBuilder> {
        if COMMON.contains(&name) {
            return Ok(Self::builder());
        }
        let preset = name.parse::<Preset>().map_err(|_| {
            let known: Vec<&str> = COMMON.into_iter().chain(Preset::ALL.iter().map(|p| p.as_str())).collect();
            Error::knob("preset", format!("`{name}` is none of {}", known.join(", ")))
        })?;
        Ok(Self::builder().preset(preset))
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
        assert_eq!(json, r#"{"preset":"small_latents","steps":100}"#);
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
            text.starts_with("preset: `gan` is none of dc, dsa") && text.ends_with("small_latents"),
            "{text}"
        );
    }
}

//! The paper's settings for each distillation method.

use super::{Knobs, KnobsBuilder};
use crate::{Error, Result};

/// Distillation methods with the paper's common settings.
const COMMON: [&str; 10] = ["paper", "dc", "dsa", "dm", "mtt", "datm", "edf", "idc", "sre2l", "g_vbsm"];

impl Knobs {
    /// The paper's settings for sets of a distillation method, by its name in lower case, ready to be changed. They
    /// differ for `ncfm` alone, whose images need a gentler pull (`gamma` 0.02 instead of 0.1); `paper` names the common ones.
    ///
    /// ```
    /// use diver::Knobs;
    ///
    /// assert_eq!(Knobs::preset("mtt")?.build()?, Knobs::default());
    /// assert_eq!(Knobs::preset("ncfm")?.steps(20).build()?.gamma(), 0.02);
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Knob`] if there is no preset of that name.
    pub fn preset(method: &str) -> Result<KnobsBuilder> {
        match method {
            "ncfm" => Ok(Self::builder().gamma(0.02)),
            _ if COMMON.contains(&method) => Ok(Self::builder()),
            _ => Err(Error::knob("preset", format!("`{method}` is none of {}, ncfm", COMMON.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Knobs;

    #[test]
    fn presets_differ_in_gamma_alone() {
        let ncfm = Knobs::preset("ncfm").unwrap();
        assert_eq!(ncfm.gamma(0.1).build().unwrap(), Knobs::preset("dm").unwrap().build().unwrap());
    }

    #[test]
    fn an_unknown_preset_lists_the_known() {
        let text = Knobs::preset("gan").unwrap_err().to_string();
        assert!(text.starts_with("preset: `gan` is none of paper, dc") && text.ends_with("ncfm"), "{text}");
    }
}

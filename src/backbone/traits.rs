//! What settings of the method have to suit.

use super::dit::check_guided_channels;
use crate::method::{Knobs, no_variance_head};
use crate::{Chain, Error, Family, Flow, NoiseSchedule, Result, Sigma};

/// What settings have to suit in a backbone; known before its weights are.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    pub(crate) family: Family,
    /// Channels of a latent.
    pub(crate) channels: i64,
    /// Whether the variance of a step was learned; `None` where only the weights tell.
    pub(crate) has_variance: Option<bool>,
    /// The noise levels of training.
    pub(crate) schedule: NoiseSchedule,
}

impl Traits {
    /// The chain that the knobs ask for.
    ///
    /// # Errors
    /// [`Error::Knob`] names one that does not suit.
    pub(crate) fn chain(&self, knobs: &Knobs) -> Result<Chain> {
        let channels = knobs.cfg_channels();
        check_guided_channels(channels, self.channels)?;
        if self.family == Family::StableDiffusion && channels as i64 != self.channels {
            let reason =
                format!("{channels} is not the {} that Stable Diffusion is guided on", self.channels);
            return Err(Error::knob("cfg_channels", reason));
        }
        let chain = Chain::new(knobs.chain(), knobs.steps(), &self.schedule)?;
        if self.family == Family::Sit {
            Flow::new(knobs, &chain)?;
        } else if let Some(knob) = knobs.for_flows_alone() {
            return Err(Error::knob(knob, format!("is for a SiT; this backbone is a {}", self.family)));
        } else if knobs.sigma() == Sigma::Learned && self.has_variance == Some(false) {
            return Err(no_variance_head());
        } else {
            knobs.check_for_chain()?;
        }
        Ok(chain)
    }
}

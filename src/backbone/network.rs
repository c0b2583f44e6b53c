//! The diffusion network of a backbone, of whichever family.

use super::dit::Dit;
use crate::method::{Denoiser, Velocity};
use crate::{Error, Family, Result};
use diver_loaders::Conditioning;

/// The diffusion network of a backbone.
#[derive(Debug)]
#[non_exhaustive]
pub enum Network {
    /// Predicts noise, for a class.
    Dit(Dit),
    /// Predicts velocities, for a class.
    Sit(Dit),
}

/// A network with what a batch shows, and classifier-free guidance.
pub(crate) enum GuidedNetwork<'a> {
    Noise(Box<dyn Denoiser + 'a>),
    Velocity(Box<dyn Velocity + 'a>),
}

impl Network {
    /// The network for a batch that shows this, with classifier-free guidance of `scale` on the first `channels` of a
    /// latent; a scale of 1 leaves the unconditional half out.
    pub(crate) fn guided(
        &self,
        conditions: &[Conditioning],
        scale: f64,
        channels: usize,
    ) -> Result<GuidedNetwork<'_>> {
        let of =
            |dit: &Dit| conditions.iter().map(|shown| dit.class_of(shown)).collect::<Result<Vec<usize>>>();
        Ok(match self {
            Self::Dit(dit) => GuidedNetwork::Noise(Box::new(dit.guided(&of(dit)?, scale, channels)?)),
            Self::Sit(dit) => GuidedNetwork::Velocity(Box::new(dit.guided(&of(dit)?, scale, channels)?)),
        })
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Dit(_) => Family::Dit,
            Self::Sit(_) => Family::Sit,
        }
    }

    /// Channels, rows and columns of its latents.
    #[must_use]
    pub fn latent(&self) -> [i64; 3] {
        match self {
            Self::Dit(dit) | Self::Sit(dit) => {
                let config = dit.config();
                [config.in_channels, config.sample_size, config.sample_size]
            }
        }
    }

    /// How many classes it knows, if it is conditioned on classes.
    #[must_use]
    pub fn num_classes(&self) -> Option<usize> {
        match self {
            Self::Dit(dit) | Self::Sit(dit) => Some(dit.num_classes()),
        }
    }

    /// Whether it learned the variance of a step, without which `sigma` cannot be `learned`.
    pub(crate) fn has_variance(&self) -> bool {
        match self {
            Self::Dit(dit) => dit.has_variance(),
            Self::Sit(_) => false,
        }
    }

    /// Refuses classifier-free guidance on more channels than a latent has.
    pub(crate) fn check_guided_channels(&self, channels: usize) -> Result<()> {
        let [latent, _, _] = self.latent();
        if channels as i64 <= latent {
            return Ok(());
        }
        Err(Error::knob("cfg_channels", format!("{channels} is more than the {latent} of a latent")))
    }

    /// Refuses what it cannot be conditioned on.
    ///
    /// # Errors
    /// [`Error::Conditioning`] says what it knows.
    pub fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        match self {
            Self::Dit(dit) | Self::Sit(dit) => dit.class_of(conditioning).map(drop),
        }
    }
}

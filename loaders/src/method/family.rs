//! The families of diffusion models, which differ in how they are sampled.

use super::switches::ChainKind;
use crate::options::named_enum;

named_enum! {
    /// What kind of diffusion model a backbone is.
    ///
    /// ```
    /// use diver_loaders::method::Family;
    ///
    /// assert_eq!("sit".parse::<Family>()?, Family::Sit);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    Family, "model" {
        /// DiT (Peebles and Xie 2023): a transformer that predicts noise, conditioned on a class.
        #[default]
        Dit = "dit",
        /// SiT (Ma et al. 2024): the same transformer, trained to predict velocities.
        Sit = "sit",
        /// Stable Diffusion 1 (Rombach et al. 2022): a UNet that predicts noise, conditioned on a text.
        StableDiffusion = "stable_diffusion",
    }
}

impl Family {
    /// The scale of classifier-free guidance that the family's own samplers use.
    pub(super) fn cfg_scale(self) -> f64 {
        match self {
            Self::Dit | Self::Sit => 4.0,
            Self::StableDiffusion => 7.5,
        }
    }

    /// The latent channels that they guide.
    pub(super) fn cfg_channels(self) -> usize {
        match self {
            Self::Dit | Self::Sit => 3,
            Self::StableDiffusion => 4,
        }
    }

    /// The timesteps that they visit.
    pub(super) fn chain(self) -> ChainKind {
        match self {
            Self::Dit | Self::Sit => ChainKind::Dit,
            Self::StableDiffusion => ChainKind::SdLeading1,
        }
    }
}

//! The diffusion network of a backbone, of whichever family.

use super::dit::{Dit, class_of};
use super::prompts::Prompts;
use super::stable_diffusion::StableDiffusion;
use crate::method::{Denoiser, Velocity};
use crate::{Family, Result};
use diver_loaders::Conditioning;

/// The diffusion network of a backbone.
///
/// ```
/// use diver::Family;
/// use diver::backbone::Backbone;
/// use tch::{Device, Kind};
///
/// let backbone = Backbone::builder("examples/digits/backbone").build(Device::Cpu, Kind::Float)?;
/// let network = backbone.network();
/// assert_eq!((network.family(), network.num_classes(), network.latent()), (Family::Dit, 10, [4, 8, 8]));
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Network {
    /// Predicts noise, for a class.
    Dit(Dit),
    /// Predicts velocities, for a class.
    Sit(Dit),
    /// Predicts noise, for a text.
    StableDiffusion(Box<TextToImage>),
}

/// Stable Diffusion with what it is asked for.
#[derive(Debug)]
pub struct TextToImage {
    networks: StableDiffusion,
    prompts: Prompts,
    side: i64,
}

impl TextToImage {
    /// `side` is the rows and columns of a latent.
    pub(super) fn new(networks: StableDiffusion, prompts: Prompts, side: i64) -> Self {
        Self { networks, prompts, side }
    }

    /// The networks.
    #[must_use]
    pub fn networks(&self) -> &StableDiffusion {
        &self.networks
    }

    /// The texts of the classes.
    #[must_use]
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }
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
        let of = |dit: &Dit| {
            conditions.iter().map(|shown| class_of(shown, dit.num_classes())).collect::<Result<Vec<usize>>>()
        };
        Ok(match self {
            Self::StableDiffusion(model) => {
                let texts = conditions.iter().map(|shown| model.prompts.text(shown));
                let texts: Vec<String> = texts.collect::<Result<_>>()?;
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                GuidedNetwork::Noise(Box::new(model.networks.guided(&texts, scale)?))
            }
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
            Self::StableDiffusion(_) => Family::StableDiffusion,
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
            Self::StableDiffusion(model) => {
                [model.networks.unet().config().in_channels, model.side, model.side]
            }
        }
    }

    /// Values of its first activation for one latent: a transformer's tokens, or what a UNet's first level works on.
    pub(crate) fn values(&self) -> i64 {
        match self {
            Self::Dit(dit) | Self::Sit(dit) => dit.config().tokens() * dit.config().hidden(),
            Self::StableDiffusion(model) => {
                let width = model.networks.unet().config().block_out_channels.first().copied();
                model.side * model.side * width.unwrap_or(1)
            }
        }
    }

    /// How many classes it knows.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Dit(dit) | Self::Sit(dit) => dit.num_classes(),
            Self::StableDiffusion(model) => model.prompts.names().len(),
        }
    }

    /// The texts by which it knows classes, if it is conditioned on texts.
    #[must_use]
    pub fn prompts(&self) -> Option<&Prompts> {
        match self {
            Self::Dit(_) | Self::Sit(_) => None,
            Self::StableDiffusion(model) => Some(&model.prompts),
        }
    }

    /// Whether it learned the variance of a step, without which `sigma` cannot be `learned`.
    pub(crate) fn has_variance(&self) -> bool {
        match self {
            Self::Dit(dit) => dit.config().has_variance(),
            Self::Sit(_) | Self::StableDiffusion(_) => false,
        }
    }
}

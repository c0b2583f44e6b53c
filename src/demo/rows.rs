//! The rows of the demonstration's tables: what networks are trained on.

use crate::{Knobs, Mode, Result};

/// What networks are trained on. Every row has as many images as the distilled set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The distilled images as the method stored them.
    Raw,
    /// Their values clipped to [0, 1], which is what a refiner sees.
    Clipped,
    /// Through the autoencoder alone.
    Autoencoder,
    /// What the diffusion model draws for their classes, without looking at them.
    Diffusion,
    /// Refined with the paper's settings.
    Paper,
    /// Refined with the preset for small latents.
    Preset,
    /// Real training images, chosen at random for every seed.
    Real,
    /// The same ones, refined with the preset.
    RealRefined,
}

impl Row {
    /// All of them, in the order of the tables.
    pub(super) const ALL: [Self; 8] = [
        Self::Raw,
        Self::Clipped,
        Self::Autoencoder,
        Self::Diffusion,
        Self::Paper,
        Self::Preset,
        Self::Real,
        Self::RealRefined,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Raw => "distilled, raw",
            Self::Clipped => "clipped to [0, 1]",
            Self::Autoencoder => "encoded and decoded",
            Self::Diffusion => "diffusion alone",
            Self::Paper => "DIVER, paper's window",
            Self::Preset => "DIVER, small_latents",
            Self::Real => "real images",
            Self::RealRefined => "real images, DIVER",
        }
    }

    /// Whether its images are real ones, and not the distilled set's.
    pub(super) fn is_real(self) -> bool {
        matches!(self, Self::Real | Self::RealRefined)
    }

    /// How its images are refined; `None` if they are not. Each `seed` draws noise of its own.
    pub(super) fn knobs(self, seed: u64) -> Result<Option<Knobs>> {
        let builder = match self {
            Self::Raw | Self::Clipped | Self::Real => return Ok(None),
            // No noise: the seed would only make copies.
            Self::Autoencoder => return Ok(Some(Knobs::builder().mode(Mode::Vae).build()?)),
            Self::Diffusion => Knobs::builder().mode(Mode::Raw),
            Self::Paper => Knobs::builder(),
            Self::Preset | Self::RealRefined => Knobs::preset("small_latents")?,
        };
        Ok(Some(builder.refine_seed(seed).build()?))
    }
}

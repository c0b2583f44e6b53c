//! Frozen networks: an autoencoder, a class-conditional diffusion transformer, and Stable Diffusion's UNet with its text
//! encoder, read from a diffusers folder.

mod clip;
mod config;
mod dit;
mod dit_layout;
mod embedding;
mod layers;
mod stable_diffusion;
mod tokenizer;
mod unet;
mod vae;
mod weights;

pub use clip::{ClipConfig, ClipText};
pub use config::{DitConfig, SchedulerConfig, VaeConfig};
#[doc(hidden)]
pub use dit::Convention;
pub use dit::{Dit, Guided};
pub use stable_diffusion::{GuidedPrompts, StableDiffusion};
pub use tokenizer::ClipTokenizer;
pub use unet::{PerLevel, Unet, UnetConfig, UnetContext};
pub use vae::{Posterior, Vae};
pub use weights::{Place, Weights};

use crate::{Error, NoiseSchedule, Result};
use config::read_json;
use diver_loaders::Digest;
use diver_loaders::cache::Fingerprint;
use std::path::Path;
use tch::{Device, Kind};

/// An autoencoder, a diffusion transformer that works on its latents, and the noise levels of its training.
///
/// ```no_run
/// use diver::backbone::Backbone;
/// use tch::{Device, Kind};
///
/// let backbone = Backbone::from_folder("DiT-XL-2-256".as_ref(), Device::Cpu, Kind::Float)?;
/// assert_eq!(backbone.resolution(), 256);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Backbone {
    dit: Dit,
    vae: Vae,
    schedule: NoiseSchedule,
    digest: Digest,
}

impl Backbone {
    /// Reads a diffusers folder: `transformer/`, `vae/` and `scheduler/`, each with its `config.json`
    /// (`scheduler_config.json`), the first two with safetensors weights of any floating-point dtype. The
    /// transformer computes in `kind`, the autoencoder in f32 (see [`Precision`](crate::Precision) for its
    /// convolutions on GPUs).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] names the file that is missing or damaged and, for weights, the keys that
    /// are missing, unknown or of another shape.
    pub fn from_folder(folder: &Path, device: Device, kind: Kind) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::file(folder, "there is no such folder"));
        }
        let (transformer, autoencoder) = (folder.join("transformer"), folder.join("vae"));
        let dit_config: DitConfig = read_json(&transformer.join("config.json"))?;
        let vae_config: VaeConfig = read_json(&autoencoder.join("config.json"))?;
        let scheduler_path = folder.join("scheduler/scheduler_config.json");
        let scheduler: SchedulerConfig = read_json(&scheduler_path)?;
        let schedule =
            scheduler.noise_schedule().map_err(|error| Error::file(&scheduler_path, error.to_string()))?;
        if dit_config.in_channels != vae_config.latent_channels {
            let reason = format!(
                "latents have {} channels in vae/config.json and {} in transformer/config.json",
                vae_config.latent_channels, dit_config.in_channels
            );
            return Err(Error::file(folder, reason));
        }

        let _no_grad = tch::no_grad_guard();
        let vae_weights = Weights::read_folder(&autoencoder)?;
        let dit_weights = Weights::read_folder(&transformer)?;
        let digest =
            digest_of((&dit_config, dit_weights.digest()), (&vae_config, vae_weights.digest()), &scheduler);
        Ok(Self {
            vae: Vae::new(vae_config, vae_weights, Place { device, kind: Kind::Float })?,
            dit: Dit::new(dit_config, dit_weights, Place { device, kind })?,
            schedule,
            digest,
        })
    }

    /// The diffusion transformer.
    #[must_use]
    pub fn dit(&self) -> &Dit {
        &self.dit
    }

    /// The autoencoder.
    #[must_use]
    pub fn vae(&self) -> &Vae {
        &self.vae
    }

    /// The noise levels of training.
    #[must_use]
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Hash of the weight files and of what is read from the configurations: equal for equal files and
    /// configurations.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Rows and columns of the images that it works on: the transformer's latents, times the autoencoder's factor.
    #[must_use]
    pub fn resolution(&self) -> i64 {
        self.dit.config().sample_size * self.vae.config().downscale()
    }
}

/// Hash of the canonical JSON of a backbone's parts; caches are found by it, so it must never change.
fn digest_of(
    (transformer, its_weights): (&DitConfig, Option<Digest>),
    (vae, vae_weights): (&VaeConfig, Option<Digest>),
    scheduler: &SchedulerConfig,
) -> Digest {
    let parts = serde_json::json!({
        "transformer": {"config": transformer, "weights": its_weights},
        "vae": {"config": vae, "weights": vae_weights},
        "scheduler": scheduler,
    });
    Fingerprint::new(&parts).digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_backbone_stays() {
        let dit: DitConfig = serde_json::from_str(
            r#"{"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
                "num_layers": 28, "sample_size": 32, "patch_size": 2, "num_embeds_ada_norm": 1000}"#,
        )
        .unwrap();
        let of = |dit_weights: &[u8], scheduler: &SchedulerConfig| {
            let weights = |bytes| Some(Digest::of(bytes));
            digest_of((&dit, weights(dit_weights)), (&VaeConfig::default(), weights(b"vae")), scheduler)
        };
        let digest = of(b"dit", &SchedulerConfig::default());
        assert_eq!(digest.to_string(), "44506230dd826fc1227e7e464d03fe14aad37e6122687e6d028e8595276349f5");
        assert_ne!(digest, of(b"another", &SchedulerConfig::default()));
        let other = SchedulerConfig { beta_end: 0.012, ..SchedulerConfig::default() };
        assert_ne!(digest, of(b"dit", &other));
    }
}

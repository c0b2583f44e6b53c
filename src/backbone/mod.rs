//! Frozen networks: an autoencoder and a diffusion model that works on its latents, read from a diffusers folder or
//! from the checkpoints of the DiT and SiT repositories.

mod clip;
mod config;
mod dit;
mod dit_layout;
mod embedding;
mod layers;
mod network;
mod official;
mod prompts;
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
pub(crate) use network::GuidedNetwork;
pub use network::{Network, TextToImage};
pub use prompts::Prompts;
pub use stable_diffusion::{GuidedPrompts, StableDiffusion};
pub use tokenizer::ClipTokenizer;
pub use unet::{PerLevel, Unet, UnetConfig, UnetContext};
pub use vae::{Posterior, Vae};
pub use weights::{Place, Weights};

use crate::hub::{self, Name};
use crate::{Error, Family, NoiseSchedule, Result};
use config::read_json;
use diver_loaders::cache::Fingerprint;
use diver_loaders::{CancelToken, Digest};
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// The largest images that Stable Diffusion can be asked for.
const LARGEST_RESOLUTION: i64 = 4096;

/// An autoencoder, a diffusion model that works on its latents, and the noise levels of its training.
///
/// ```no_run
/// use diver::backbone::Backbone;
/// use tch::{Device, Kind};
///
/// let backbone = Backbone::builder("DiT-XL-2-256").build(Device::Cpu, Kind::Float)?;
/// assert_eq!(backbone.resolution(), 256);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Backbone {
    network: Network,
    vae: Vae,
    schedule: NoiseSchedule,
    digest: Digest,
}

/// A [`Backbone`] in the making.
///
/// ```no_run
/// use diver::backbone::Backbone;
/// use tch::{Device, Kind};
///
/// let sit = Backbone::builder("SiT-XL-2-256x256.pt").vae("sd-vae-ft-mse").build(Device::Cpu, Kind::Float)?;
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BackboneBuilder {
    path: PathBuf,
    vae: Option<PathBuf>,
    family: Option<Family>,
    num_heads: Option<i64>,
    prompt: Option<String>,
    class_names: Option<Vec<String>>,
    resolution: Option<i64>,
    cancel: CancelToken,
}

impl BackboneBuilder {
    /// A folder with an autoencoder of diffusers (`config.json` and weights), or with one in `vae/`, or a repository of
    /// the [hub]. A checkpoint of the DiT or SiT repository holds none; a diffusers folder's own is passed over.
    pub fn vae(mut self, folder: impl Into<PathBuf>) -> Self {
        self.vae = Some(folder.into());
        self
    }

    /// Whether a checkpoint is of a DiT or a SiT, which its weights do not tell; by its file's name unless set.
    pub fn model(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    /// The attention heads of a checkpoint whose size is none of the published ones.
    pub fn num_heads(mut self, heads: i64) -> Self {
        self.num_heads = Some(heads);
        self
    }

    /// What Stable Diffusion is asked for, `{}` standing for the class's name; `a photo of a {}` unless set.
    pub fn prompt(mut self, template: impl Into<String>) -> Self {
        self.prompt = Some(template.into());
        self
    }

    /// The names by which Stable Diffusion knows classes, in their order; ImageNet-1K's unless set.
    pub fn class_names<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.class_names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Rows and columns of the images that Stable Diffusion works on; those of its training (512) unless set. A
    /// transformer works on its own alone.
    pub fn resolution(mut self, pixels: i64) -> Self {
        self.resolution = Some(pixels);
        self
    }

    /// A token that ends a download.
    pub fn cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Reads the weights, of a repository after it was downloaded. The diffusion network computes in `kind`, the
    /// autoencoder in f32 (see [`Precision`](crate::Precision) for its convolutions on GPUs).
    ///
    /// # Errors
    /// A file that is missing or damaged is named and, for weights, the keys that are missing, unknown or of another
    /// shape; [`Error::Knob`] names an option that does not suit what is there; [`Error::Hub`] says why a repository
    /// cannot be fetched, and [`Error::Cancelled`] that it was not to be.
    pub fn build(self, device: Device, kind: Kind) -> Result<Backbone> {
        let _no_grad = tch::no_grad_guard();
        let local = self.local()?;
        if local.path.is_file() { local.checkpoint(device, kind) } else { local.folder(device, kind) }
    }

    /// The same with every name read, and the files of repositories here.
    pub(crate) fn local(mut self) -> Result<Self> {
        // Both names are read before anything is fetched.
        let vae = self.vae.as_deref().map(Name::read).transpose()?;
        if let Some(Name::File(file)) = &vae {
            let reason =
                "is a file: a folder with an autoencoder's config.json and weights is expected as `vae`";
            return Err(Error::file(file, reason));
        }
        let path = Name::read(&self.path)?;
        self.vae = vae.map(|vae| self.fetched(vae)).transpose()?;
        self.path = self.fetched(path)?;
        Ok(self)
    }

    /// What it is read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same wherever the process goes, once it is [`local`](Self::local).
    pub(crate) fn absolute(self) -> Self {
        // Only an empty path has no absolute one, and names nothing.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self { path: absolute(self.path), vae: self.vae.map(absolute), ..self }
    }

    /// Where a name's files lie, once they are here.
    fn fetched(&self, name: Name) -> Result<PathBuf> {
        match name {
            Name::Folder(path) | Name::File(path) => Ok(path),
            Name::Repository(repository) => repository
                .snapshot(&hub::Options { cancel: self.cancel.clone(), ..hub::Options::from_env()? }),
        }
    }

    /// A diffusers folder.
    fn folder(self, device: Device, kind: Kind) -> Result<Backbone> {
        let folder = &self.path;
        let family = if folder.join("unet").is_dir() { Family::StableDiffusion } else { Family::Dit };
        if let Some(other) = self.family.filter(|other| *other != family) {
            let reason = format!("`{other}` was given, but the folder {} holds a {family}", folder.display());
            return Err(Error::knob("model", reason));
        }
        if self.num_heads.is_some() {
            return Err(Error::knob("num_heads", "a folder's config.json tells them"));
        }
        if family == Family::StableDiffusion {
            return self.text_to_image(device, kind);
        }
        self.check_no_text()?;
        let transformer = folder.join("transformer");
        let config: DitConfig = read_json(&transformer.join("config.json"))?;
        let (scheduler, schedule) = scheduler(folder)?;
        let vae = Autoencoder::open(self.vae.as_deref().unwrap_or(folder), config.in_channels)?;
        let weights = Weights::read_folder(&transformer)?;
        let digest = digest_of((&config, weights.digest()), vae.parts(), &scheduler, Family::Dit);
        Ok(Backbone {
            vae: vae.build(device)?,
            network: Network::Dit(Dit::new(config, weights, Place { device, kind })?),
            schedule,
            digest,
        })
    }

    /// A diffusers folder of Stable Diffusion.
    fn text_to_image(self, device: Device, kind: Kind) -> Result<Backbone> {
        let folder = &self.path;
        let prompts = Prompts::new(self.prompt.as_deref().unwrap_or(prompts::TEMPLATE), self.class_names)?;
        let (scheduler, schedule) = scheduler(folder)?;
        let networks = StableDiffusion::from_folder(folder, device, kind)?;
        let config = networks.unet().config();
        let vae = Autoencoder::open(self.vae.as_deref().unwrap_or(folder), config.in_channels)?;
        let downscale = vae.config.downscale();
        let side = match (self.resolution, config.sample_size) {
            (Some(pixels), _) => {
                // Each level of the UNet halves its latents.
                let least = downscale * config.downscale();
                if pixels < least || pixels % least != 0 || pixels > LARGEST_RESOLUTION {
                    let reason = format!("{pixels} is not a multiple of {least} up to {LARGEST_RESOLUTION}");
                    return Err(Error::knob("resolution", reason));
                }
                pixels / downscale
            }
            (None, Some(side)) => side,
            (None, None) => {
                let reason = "says no sample_size: set `resolution`";
                return Err(Error::file(&folder.join("unet/config.json"), reason));
            }
        };
        let (vae_config, vae_weights) = vae.parts();
        let parts = serde_json::json!({
            "family": Family::StableDiffusion.as_str(),
            "networks": networks.digest(),
            "vae": {"config": vae_config, "weights": vae_weights},
            "scheduler": scheduler,
        });
        let digest = Fingerprint::new(&parts).digest();
        let network = Network::StableDiffusion(Box::new(TextToImage::new(networks, prompts, side)));
        Ok(Backbone { vae: vae.build(device)?, network, schedule, digest })
    }

    /// Refuses what only a text-conditioned model of any size knows.
    fn check_no_text(&self) -> Result<()> {
        let reason = "is for Stable Diffusion; this backbone is conditioned on classes";
        if self.prompt.is_some() {
            return Err(Error::knob("prompt", reason));
        }
        if self.class_names.is_some() {
            return Err(Error::knob("class_names", reason));
        }
        if self.resolution.is_some() {
            return Err(Error::knob("resolution", "a transformer works on images of its own size alone"));
        }
        Ok(())
    }

    /// A checkpoint of the DiT or SiT repository.
    fn checkpoint(self, device: Device, kind: Kind) -> Result<Backbone> {
        let family = match self.family {
            None => official::family_of(&self.path)?,
            Some(Family::StableDiffusion) => {
                return Err(Error::knob("model", "`stable_diffusion` is read from a diffusers folder alone"));
            }
            Some(family) => family,
        };
        self.check_no_text()?;
        let Some(vae) = &self.vae else {
            let reason = "a checkpoint of one network holds no autoencoder: name the folder or repository of one as \
                          `vae`, stabilityai/sd-vae-ft-mse for the published models";
            return Err(Error::file(&self.path, reason));
        };
        let weights = Weights::read(&self.path)?;
        let config = official::config_of(&weights, self.num_heads)?;
        let vae = Autoencoder::open(vae, config.in_channels)?;
        // What both repositories train with; for a SiT, the chain whose noise its times are matched with.
        let scheduler = SchedulerConfig::default();
        let schedule = scheduler.noise_schedule()?;
        let digest = digest_of((&config, weights.digest()), vae.parts(), &scheduler, family);
        let vae = vae.build(device)?;
        let dit = Dit::new(config, weights, Place { device, kind })?;
        let network = if family == Family::Sit { Network::Sit(dit) } else { Network::Dit(dit) };
        Ok(Backbone { network, vae, schedule, digest })
    }
}

/// What a folder says of its training.
fn scheduler(folder: &Path) -> Result<(SchedulerConfig, NoiseSchedule)> {
    let path = folder.join("scheduler/scheduler_config.json");
    let config: SchedulerConfig = read_json(&path)?;
    let schedule = config.noise_schedule().map_err(|error| Error::file(&path, error.to_string()))?;
    Ok((config, schedule))
}

/// The files of an autoencoder, before it is built.
struct Autoencoder {
    config: VaeConfig,
    weights: Weights,
}

impl Autoencoder {
    /// The one in `folder`, or in its `vae/`, if its latents have so many channels.
    fn open(folder: &Path, channels: i64) -> Result<Self> {
        let inner = folder.join("vae");
        let folder = if inner.is_dir() || !folder.join("config.json").is_file() { &inner } else { folder };
        let config_path = folder.join("config.json");
        let config: VaeConfig = read_json(&config_path)?;
        if config.latent_channels != channels {
            let reason = format!(
                "latents have {} channels, and {channels} in the diffusion model",
                config.latent_channels
            );
            return Err(Error::file(&config_path, reason));
        }
        Ok(Self { config, weights: Weights::read_folder(folder)? })
    }

    /// What a backbone's digest is made from.
    fn parts(&self) -> (&VaeConfig, Option<Digest>) {
        (&self.config, self.weights.digest())
    }

    fn build(self, device: Device) -> Result<Vae> {
        Vae::new(self.config, self.weights, Place { device, kind: Kind::Float })
    }
}

impl Backbone {
    /// A repository of the [hub], a diffusers folder (`vae/`, `scheduler/`, and `transformer/` for a DiT or `unet/`,
    /// `text_encoder/` and `tokenizer/` for Stable Diffusion, with weights of any floating-point dtype), or a checkpoint
    /// of the DiT or SiT repository.
    pub fn builder(path: impl AsRef<Path>) -> BackboneBuilder {
        BackboneBuilder {
            path: path.as_ref().to_owned(),
            vae: None,
            family: None,
            num_heads: None,
            prompt: None,
            class_names: None,
            resolution: None,
            cancel: CancelToken::new(),
        }
    }

    /// The diffusion network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
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

    /// Rows and columns of the images that it works on: those of a latent, times the autoencoder's factor.
    #[must_use]
    pub fn resolution(&self) -> i64 {
        let [_, side, _] = self.network.latent();
        side * self.vae.config().downscale()
    }
}

/// Hash of the canonical JSON of a backbone's parts; caches are found by it, so it must never change.
fn digest_of(
    (transformer, its_weights): (&DitConfig, Option<Digest>),
    (vae, vae_weights): (&VaeConfig, Option<Digest>),
    scheduler: &SchedulerConfig,
    family: Family,
) -> Digest {
    let mut parts = serde_json::json!({
        "transformer": {"config": transformer, "weights": its_weights},
        "vae": {"config": vae, "weights": vae_weights},
        "scheduler": scheduler,
    });
    if family != Family::Dit {
        parts["family"] = family.as_str().into();
    }
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
        let weights = |bytes: &[u8]| Some(Digest::of(bytes));
        let of_family = |dit_weights: &[u8], scheduler: &SchedulerConfig, family| {
            let vae = (&VaeConfig::default(), weights(b"vae"));
            digest_of((&dit, weights(dit_weights)), vae, scheduler, family)
        };
        let of =
            |dit_weights: &[u8], scheduler: &SchedulerConfig| of_family(dit_weights, scheduler, Family::Dit);
        let digest = of(b"dit", &SchedulerConfig::default());
        assert_eq!(digest.to_string(), "44506230dd826fc1227e7e464d03fe14aad37e6122687e6d028e8595276349f5");
        assert_ne!(digest, of(b"another", &SchedulerConfig::default()));
        let other = SchedulerConfig { beta_end: 0.012, ..SchedulerConfig::default() };
        assert_ne!(digest, of(b"dit", &other));
        assert_ne!(digest, of_family(b"dit", &SchedulerConfig::default(), Family::Sit));
    }
}

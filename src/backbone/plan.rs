//! A backbone as its configurations describe it: what they show to be wrong is refused before weights, which are
//! gigabytes, are read or downloaded.

use super::config::read_json;
use super::dit::Dit;
use super::network::{Network, TextToImage};
use super::official;
use super::prompts::{self, Prompts};
use super::stable_diffusion::Unread;
use super::traits::Traits;
use super::weights::{Place, Weights};
use super::{Backbone, BackboneBuilder, DitConfig, SchedulerConfig, UnetConfig, Vae, VaeConfig};
use crate::{Error, Family, NoiseSchedule, Result};
use diver_loaders::Digest;
use diver_loaders::cache::Fingerprint;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// The class of autoencoders.
const AUTOENCODER: &str = "AutoencoderKL";

/// The largest images that Stable Diffusion can be asked for.
const LARGEST_RESOLUTION: i64 = 4096;

/// What a [`BackboneBuilder`] asks for, found to be possible by all that is said outside of weights.
pub(crate) enum Plan {
    /// A diffusers folder of a DiT.
    Dit { transformer: PathBuf, config: DitConfig, training: Training, vae: AutoencoderFiles },
    /// A diffusers folder of Stable Diffusion; `side` is the rows and columns of a latent.
    StableDiffusion {
        networks: Box<Unread>,
        prompts: Prompts,
        side: i64,
        training: Training,
        vae: AutoencoderFiles,
    },
    /// A checkpoint of the DiT or SiT repository. Its weights alone tell its sizes.
    Checkpoint { file: PathBuf, family: Family, num_heads: Option<i64>, vae: AutoencoderFiles },
}

impl Plan {
    /// Reads the small files, with both paths of `asked` on this machine.
    pub(super) fn new(asked: &BackboneBuilder) -> Result<Self> {
        if asked.path.is_file() { Self::checkpoint(asked) } else { Self::folder(asked) }
    }

    fn folder(asked: &BackboneBuilder) -> Result<Self> {
        let folder = &asked.path;
        let family = if folder.join("unet").is_dir() { Family::StableDiffusion } else { Family::Dit };
        if let Some(other) = asked.family.filter(|other| *other != family) {
            let reason = format!("`{other}` was given, but the folder {} holds a {family}", folder.display());
            return Err(Error::knob("model", reason));
        }
        if family == Family::Dit && !folder.join("transformer").is_dir() {
            let reason = match whole_folder(folder) {
                Some(whole) => format!("is a part of the diffusers folder {}: name that", whole.display()),
                None => "is no diffusers folder: transformer/ or unet/ is expected in it, beside vae/ and scheduler/".to_owned(),
            };
            return Err(Error::file(folder, reason));
        }
        if asked.num_heads.is_some() {
            return Err(Error::knob("num_heads", "a folder's config.json tells them"));
        }
        let vae = asked.vae.as_deref().unwrap_or(folder);
        if family == Family::StableDiffusion {
            let template = asked.prompt.as_deref().unwrap_or(prompts::TEMPLATE);
            let prompts = Prompts::new(template, asked.class_names.clone())?;
            let training = Training::read(folder)?;
            let networks = Box::new(Unread::open(folder)?);
            let unet = networks.unet();
            let vae = AutoencoderFiles::open(vae)?;
            vae.check_channels(unet.in_channels)?;
            let side = side(asked, unet, vae.config.downscale())?;
            return Ok(Self::StableDiffusion { networks, prompts, side, training, vae });
        }
        check_no_text(asked)?;
        let transformer = folder.join("transformer");
        let path = transformer.join("config.json");
        let config: DitConfig = read_json(&path)?;
        config.check(&path)?;
        let training = Training::read(folder)?;
        let vae = AutoencoderFiles::open(vae)?;
        vae.check_channels(config.in_channels)?;
        Ok(Self::Dit { transformer, config, training, vae })
    }

    fn checkpoint(asked: &BackboneBuilder) -> Result<Self> {
        let file = asked.path.clone();
        if let Some(whole) = file.parent().and_then(whole_folder) {
            let reason = format!("is a part of the diffusers folder {}: name that", whole.display());
            return Err(Error::file(&file, reason));
        }
        Weights::check_format(&file)?;
        let family = match asked.family {
            None => official::family_of(&file)?,
            Some(Family::StableDiffusion) => {
                return Err(Error::knob("model", "`stable_diffusion` is read from a diffusers folder alone"));
            }
            Some(family) => family,
        };
        check_no_text(asked)?;
        let Some(vae) = &asked.vae else {
            let reason = "a checkpoint of one network holds no autoencoder: name the folder or repository of one as \
                          `vae`, stabilityai/sd-vae-ft-mse for the published models";
            return Err(Error::file(&file, reason));
        };
        let vae = AutoencoderFiles::open(vae)?;
        Ok(Self::Checkpoint { file, family, num_heads: asked.num_heads, vae })
    }

    /// What is known of the backbone so far.
    pub(super) fn traits(&self) -> Result<Traits> {
        Ok(match self {
            Self::Dit { config, training, .. } => Traits {
                family: Family::Dit,
                channels: config.in_channels,
                has_variance: Some(config.has_variance()),
                schedule: training.schedule.clone(),
            },
            Self::StableDiffusion { networks, training, .. } => Traits {
                family: Family::StableDiffusion,
                channels: networks.unet().in_channels,
                has_variance: Some(false),
                schedule: training.schedule.clone(),
            },
            Self::Checkpoint { family, vae, .. } => Traits {
                family: *family,
                channels: vae.config.latent_channels,
                has_variance: None,
                schedule: SchedulerConfig::default().noise_schedule()?,
            },
        })
    }

    /// Reads the weights.
    pub(crate) fn build(self, device: Device, kind: Kind) -> Result<Backbone> {
        let _no_grad = tch::no_grad_guard();
        let place = Place { device, kind };
        match self {
            Self::Dit { transformer, config, training: Training { scheduler, schedule }, vae } => {
                let vae = vae.read()?;
                let weights = Weights::read_folder(&transformer)?;
                let digest = digest_of((&config, weights.digest()), vae.parts(), &scheduler, Family::Dit);
                let vae = vae.build(device)?;
                let network = Network::Dit(Dit::new(config, weights, place)?);
                Ok(Backbone { network, vae, schedule, digest })
            }
            Self::StableDiffusion {
                networks,
                prompts,
                side,
                training: Training { scheduler, schedule },
                vae,
            } => {
                let vae = vae.read()?;
                let networks = networks.read(device, kind)?;
                let (vae_config, vae_weights) = vae.parts();
                let parts = serde_json::json!({
                    "family": Family::StableDiffusion.as_str(),
                    "networks": networks.digest(),
                    "vae": {"config": vae_config, "weights": vae_weights},
                    "scheduler": scheduler,
                });
                let digest = Fingerprint::new(&parts).digest();
                let network = Network::StableDiffusion(Box::new(TextToImage::new(networks, prompts, side)));
                Ok(Backbone { network, vae: vae.build(device)?, schedule, digest })
            }
            Self::Checkpoint { file, family, num_heads, vae } => {
                let weights = Weights::read(&file)?;
                let config = official::config_of(&weights, num_heads)?;
                vae.check_channels(config.in_channels)?;
                let vae = vae.read()?;
                // What both repositories train with; for a SiT, the chain whose noise its times are matched with.
                let scheduler = SchedulerConfig::default();
                let schedule = scheduler.noise_schedule()?;
                let digest = digest_of((&config, weights.digest()), vae.parts(), &scheduler, family);
                let vae = vae.build(device)?;
                let dit = Dit::new(config, weights, place)?;
                let network = if family == Family::Sit { Network::Sit(dit) } else { Network::Dit(dit) };
                Ok(Backbone { network, vae, schedule, digest })
            }
        }
    }
}

/// The diffusers folder that a folder is a part of.
fn whole_folder(part: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(part).ok()?.parent()?.to_owned();
    let is_one = ["transformer", "unet"].iter().any(|network| whole.join(network).is_dir())
        && whole.join("scheduler").is_dir();
    is_one.then_some(whole)
}

/// What a folder says of its training.
pub(crate) struct Training {
    scheduler: SchedulerConfig,
    schedule: NoiseSchedule,
}

impl Training {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("scheduler/scheduler_config.json");
        let scheduler: SchedulerConfig = read_json(&path)?;
        let schedule = scheduler.noise_schedule().map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(Self { scheduler, schedule })
    }
}

/// The class of diffusers that a configuration is of, where it says so.
#[derive(serde::Deserialize)]
struct Class {
    #[serde(rename = "_class_name")]
    name: Option<String>,
}

/// An autoencoder whose weights are not read yet.
pub(crate) struct AutoencoderFiles {
    folder: PathBuf,
    config: VaeConfig,
}

impl AutoencoderFiles {
    /// The one in `folder`, or in its `vae/`.
    fn open(folder: &Path) -> Result<Self> {
        let inner = folder.join("vae");
        let is_inside = inner.is_dir() || !folder.join("config.json").is_file();
        let folder = if is_inside { inner } else { folder.to_owned() };
        let path = folder.join("config.json");
        // Every field of the configuration has a default: that of another network would do.
        let class: Class = read_json(&path)?;
        if let Some(other) = class.name.filter(|name| name != AUTOENCODER) {
            return Err(Error::file(&path, format!("_class_name is {other}, and {AUTOENCODER} is needed")));
        }
        let config: VaeConfig = read_json(&path)?;
        config.check(&path)?;
        Ok(Self { folder, config })
    }

    /// Refuses latents that are not the diffusion model's.
    fn check_channels(&self, channels: i64) -> Result<()> {
        let own = self.config.latent_channels;
        if own == channels {
            return Ok(());
        }
        let reason = format!("latents have {own} channels, and {channels} in the diffusion model");
        Err(Error::file(&self.folder.join("config.json"), reason))
    }

    fn read(self) -> Result<Autoencoder> {
        Ok(Autoencoder { weights: Weights::read_folder(&self.folder)?, config: self.config })
    }
}

/// The files of an autoencoder, before it is built.
struct Autoencoder {
    config: VaeConfig,
    weights: Weights,
}

impl Autoencoder {
    /// What a backbone's digest is made from.
    fn parts(&self) -> (&VaeConfig, Option<Digest>) {
        (&self.config, self.weights.digest())
    }

    fn build(self, device: Device) -> Result<Vae> {
        Vae::new(self.config, self.weights, Place { device, kind: Kind::Float })
    }
}

/// Rows and columns of Stable Diffusion's latents, each of which is `downscale` pixels.
fn side(asked: &BackboneBuilder, unet: &UnetConfig, downscale: i64) -> Result<i64> {
    match (asked.resolution, unet.sample_size) {
        (Some(pixels), _) => {
            // Each level of the UNet halves its latents.
            let least = downscale * unet.downscale();
            if pixels < least || pixels % least != 0 || pixels > LARGEST_RESOLUTION {
                let reason = format!("{pixels} is not a multiple of {least} up to {LARGEST_RESOLUTION}");
                return Err(Error::knob("resolution", reason));
            }
            Ok(pixels / downscale)
        }
        (None, Some(side)) => Ok(side),
        (None, None) => {
            let reason = "says no sample_size: set `resolution`";
            Err(Error::file(&asked.path.join("unet/config.json"), reason))
        }
    }
}

/// Refuses what only a text-conditioned model of any size knows.
fn check_no_text(asked: &BackboneBuilder) -> Result<()> {
    let reason = "is for Stable Diffusion; this backbone is conditioned on classes";
    if asked.prompt.is_some() {
        return Err(Error::knob("prompt", reason));
    }
    if asked.class_names.is_some() {
        return Err(Error::knob("class_names", reason));
    }
    if asked.resolution.is_some() {
        return Err(Error::knob("resolution", "a transformer works on images of its own size alone"));
    }
    Ok(())
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

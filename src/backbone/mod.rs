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
mod plan;
mod prompts;
mod stable_diffusion;
mod tokenizer;
mod traits;
mod unet;
mod vae;
mod weights;

pub use clip::{ClipConfig, ClipText};
pub use config::{DitConfig, SchedulerConfig, VaeConfig};
#[doc(hidden)]
pub use dit::Convention;
pub(crate) use dit::class_of;
pub use dit::{Dit, Guided};
pub(crate) use network::GuidedNetwork;
pub use network::{Network, TextToImage};
pub use prompts::Prompts;
pub use stable_diffusion::{GuidedPrompts, StableDiffusion};
pub use tokenizer::ClipTokenizer;
pub(crate) use traits::Traits;
pub use unet::{PerLevel, Unet, UnetConfig, UnetContext};
pub use vae::{Posterior, Vae};
pub use weights::{Place, Weights};

use crate::hub::{self, Name, Part, Snapshot};
use crate::{Error, Family, NoiseSchedule, Result};
use diver_loaders::paths::local;
use diver_loaders::{CancelToken, Digest};
use plan::Plan;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

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
    /// A folder with an autoencoder of diffusers (`config.json` and weights), or with one in `vae/`, or such a repository
    /// of the [hub], of which nothing else is fetched. A checkpoint of the DiT or SiT repository holds none; a diffusers
    /// folder's own is passed over.
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

    /// Reads the weights, of a repository after they were downloaded. The diffusion network computes in `kind`, the
    /// autoencoder in f32 (see [`Precision`](crate::Precision) for its convolutions on GPUs).
    ///
    /// # Errors
    /// A file that is missing or damaged is named and, for weights, the keys that are missing, unknown or of another
    /// shape; [`Error::Knob`] names an option that does not suit what is there; [`Error::Hub`] says why a repository
    /// cannot be fetched, or is none that can be run, and [`Error::Cancelled`] that it was not to be.
    pub fn build(self, device: Device, kind: Kind) -> Result<Backbone> {
        let (_, plan) = self.planned(|_| Ok(()))?;
        plan.build(device, kind)
    }

    /// The same with every name read, and how to build it, once all files are here. Weights are fetched last, when
    /// everything else is known to suit; `suits` has a say in that.
    pub(crate) fn planned(mut self, suits: impl FnOnce(&Traits) -> Result<()>) -> Result<(Self, Plan)> {
        // Both names are read before anything is fetched.
        let vae = self.vae.as_deref().map(|vae| Name::read(local("vae", vae)?)).transpose()?;
        if let Some(Name::File(file)) = &vae {
            let reason =
                "is a file: a folder with an autoencoder's config.json and weights is expected as `vae`";
            return Err(Error::file(file, reason));
        }
        let path = Name::read(&self.path)?;
        let part = if vae.is_some() { Part::DiffusionModel } else { Part::Backbone };
        let mut snapshots = Vec::new();
        self.vae = vae.map(|vae| self.found(vae, Part::Autoencoder, &mut snapshots)).transpose()?;
        self.path = self.found(path, part, &mut snapshots)?;
        let plan = Plan::new(&self).and_then(|plan| suits(&plan.traits()?).map(|()| plan));
        let plan = plan.map_err(|error| snapshots.iter().fold(error, |e, snapshot| snapshot.by_name(e)))?;
        for snapshot in snapshots {
            snapshot.complete()?;
        }
        Ok((self, plan))
    }

    /// What it is read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same wherever the process goes, once every name is [read](Self::planned).
    pub(crate) fn absolute(self) -> Self {
        // Only an empty path has no absolute one, and names nothing.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self { path: absolute(self.path), vae: self.vae.map(absolute), ..self }
    }

    /// Where a name's files lie. Those of a repository are not all there before its snapshot is complete.
    fn found(&self, name: Name, part: Part, snapshots: &mut Vec<Snapshot>) -> Result<PathBuf> {
        match name {
            Name::Folder(path) | Name::File(path) => Ok(path),
            Name::Repository(repository) => {
                let options = hub::Options { cancel: self.cancel.clone(), ..hub::Options::from_env()? };
                let snapshot = Snapshot::open(&repository, part, &options)?;
                let folder = snapshot.folder().to_owned();
                snapshots.push(snapshot);
                Ok(folder)
            }
        }
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

    /// What settings have to suit.
    pub(crate) fn traits(&self) -> Traits {
        let [channels, ..] = self.network.latent();
        Traits {
            family: self.network.family(),
            channels,
            has_variance: Some(self.network.has_variance()),
            schedule: self.schedule.clone(),
        }
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

//! How a refiner is made.

use super::{Facts, Refiner};
use crate::backbone::{BackboneBuilder, Traits};
use crate::method::KnobsBuilder;
use crate::{DeviceChoice, Error, Family, Precision, Result};
use diver_loaders::CancelToken;
use std::path::PathBuf;
use tch::Device;

/// Images refined at a time on a CPU unless the caller says otherwise.
const BATCH: usize = 32;

/// The fewest and the most on a GPU.
const GPU_BATCH: (usize, usize) = (8, 256);

/// Values of one activation with which a GPU has enough to do at a time: 32 images in a DiT-XL/2, 256 tokens of 1152
/// values each. With fewer it waits for launches, and more bring little (`benches/results`).
const FULL_LOAD: usize = 32 * 256 * 1152;

/// A [`Refiner`] in the making.
///
/// ```
/// use diver::{DeviceChoice, Refiner};
///
/// let error = Refiner::builder("no/such/folder").device(DeviceChoice::Cpu).build().unwrap_err();
/// assert!(error.to_string().starts_with("no/such/folder: there is no such folder"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefinerBuilder {
    pub(super) backbone: BackboneBuilder,
    pub(super) device: DeviceChoice,
    pub(super) dtype: Precision,
    pub(super) knobs: KnobsBuilder,
    pub(super) batch_size: Option<usize>,
}

impl RefinerBuilder {
    /// A folder with an autoencoder of diffusers, or with one in `vae/`, or a repository of the [hub](crate::hub):
    /// needed beside a checkpoint of the DiT or SiT repository, which holds none.
    pub fn vae(mut self, folder: impl Into<PathBuf>) -> Self {
        self.backbone = self.backbone.vae(folder);
        self
    }

    /// Whether a checkpoint is of a DiT or a SiT, which its weights do not tell; by its file's name unless set.
    pub fn model(mut self, family: Family) -> Self {
        self.backbone = self.backbone.model(family);
        self
    }

    /// The attention heads of a checkpoint whose size is none of the published ones (S, B, L and XL).
    pub fn num_heads(mut self, heads: i64) -> Self {
        self.backbone = self.backbone.num_heads(heads);
        self
    }

    /// What Stable Diffusion is asked for, `{}` standing for the class's name; `a photo of a {}` unless set.
    pub fn prompt(mut self, template: impl Into<String>) -> Self {
        self.backbone = self.backbone.prompt(template);
        self
    }

    /// The names by which Stable Diffusion knows classes, in their order; ImageNet-1K's unless set.
    pub fn class_names<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.backbone = self.backbone.class_names(names);
        self
    }

    /// Rows and columns of the images that Stable Diffusion works on; those of its training (512) unless set.
    pub fn resolution(mut self, pixels: i64) -> Self {
        self.backbone = self.backbone.resolution(pixels);
        self
    }

    /// Where to compute; on the best device there is unless set.
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// In which precision the diffusion network computes; unless set, in bf16 on CUDA, else in f32.
    pub fn dtype(mut self, dtype: Precision) -> Self {
        self.dtype = dtype;
        self
    }

    /// The settings of the method, [`Knobs`](crate::Knobs) or their builder. What is not set has the paper's value, or
    /// that of the backbone's [`Family`].
    pub fn knobs(mut self, knobs: impl Into<KnobsBuilder>) -> Self {
        self.knobs = knobs.into();
        self
    }

    /// A token that ends a download.
    pub fn cancel(mut self, cancel: CancelToken) -> Self {
        self.backbone = self.backbone.cancel(cancel);
        self
    }

    /// How many images go through the networks at a time; unless set, 32 on a CPU, and on a GPU 8 to 256, the more the
    /// smaller the diffusion network. Halved by itself when the device's memory runs out.
    pub fn batch_size(mut self, images: usize) -> Self {
        self.batch_size = Some(images);
        self
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// If an option is not one of those above, the device cannot be used, there is no whole backbone, or
    /// the knobs do not suit it: the chain that they ask for does not exist, they guide more channels than a latent
    /// has, or `sigma` is `learned` and there is no variance head.
    pub fn build(self) -> Result<Refiner> {
        if self.batch_size == Some(0) {
            return Err(Error::knob("batch_size", "0 must be at least 1"));
        }
        // Before anything is fetched or read.
        self.knobs.clone().build()?;
        let device = self.device.resolve()?;
        let kind = self.dtype.resolve(device);
        let suited = |traits: &Traits| {
            let knobs = self.knobs.clone().build_for(traits.family)?;
            let chain = traits.chain(&knobs)?;
            Ok((knobs, chain))
        };
        let (source, plan) = self.backbone.planned(|traits| suited(traits).map(drop))?;
        let backbone = plan.build(device, kind)?;
        let (network, traits) = (backbone.network(), backbone.traits());
        let (knobs, chain) = suited(&traits)?;
        let idle = self.knobs.without_effect(traits.family)?;
        if !idle.is_empty() {
            tracing::warn!("mode `{}` does not look at {}", knobs.mode(), idle.join(", "));
        }
        let batch_size = self.batch_size.unwrap_or_else(|| match device {
            Device::Cuda(_) => gpu_batch(network.values()),
            _ => BATCH,
        });
        let facts = Facts {
            traits,
            digest: backbone.digest(),
            resolution: backbone.resolution(),
            num_classes: network.num_classes(),
            prompts: network.prompts().cloned(),
        };
        Ok(Refiner {
            backbone: backbone.into(),
            source: source.absolute(),
            facts,
            knobs,
            chain,
            device,
            kind,
            batch_size,
        })
    }
}

/// Images at a time on a GPU, for a network with so many values in an activation.
fn gpu_batch(values: i64) -> usize {
    let (least, most) = GPU_BATCH;
    usize::try_from(values).map_or(least, |values| (FULL_LOAD / values.max(1)).clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_gets_about_as_much_of_any_network() {
        assert_eq!(gpu_batch(256 * 1152), 32, "DiT-XL/2");
        assert_eq!(gpu_batch(1024 * 1152), 8, "of 512 pixels");
        assert_eq!(gpu_batch(64 * 64 * 320), 8, "Stable Diffusion");
        assert_eq!(gpu_batch(16 * 128), 256, "tiny");
    }
}

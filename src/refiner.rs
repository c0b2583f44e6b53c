//! Pixels in, refined pixels out.

use crate::backbone::{Backbone, BackboneBuilder, GuidedNetwork, Traits};
use crate::memory;
use crate::method::{
    FlowSampler, Interpolation, Knobs, KnobsBuilder, Mode, from_network, latent_noise, sample_flow,
    sample_latents, step_noise, to_network,
};
use crate::{Chain, Conditions, DeviceChoice, Error, Family, Flow, Precision, Result, Solver};
use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::{CancelToken, Conditioning, Digest, Refine, RgbImage};
use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::{Device, Kind, Tensor};

/// Counts the changes to this code that change pixels by more than rounding does; part of every fingerprint.
const ALGORITHM: u32 = 1;

/// Images refined at a time on a CPU unless the caller says otherwise.
const BATCH: usize = 32;

/// The fewest and the most on a GPU.
const GPU_BATCH: (usize, usize) = (8, 256);

/// Values of one activation with which a GPU has enough to do at a time: 32 images in a DiT-XL/2, 256 tokens of 1152
/// values each. With fewer it waits for launches, and more bring little (`benches/results`).
const FULL_LOAD: usize = 32 * 256 * 1152;

/// DIVER on a frozen backbone: implements [`Refine`] for the engine, and shows its three stages, [`encode`],
/// [`sample_latents`] and [`decode`], to everyone else.
///
/// ```no_run
/// use diver::{CancelToken, Refiner};
/// use diver_loaders::refine::Silent;
/// use tch::{Device, Kind, Tensor};
///
/// let refiner = Refiner::from_pretrained("facebook/DiT-XL-2-256")?;
/// let images = Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu));
/// let z0 = refiner.encode(&images)?;
/// let noise = z0.randn_like();
/// let z = refiner.sample_latents(&z0, &[207, 388], &noise, &CancelToken::new(), &Silent)?;
/// assert_eq!(refiner.decode(&z)?.size(), [2, 3, 256, 256]);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// On a CUDA device, building one loads CUDA ([`load_cuda`](crate::load_cuda)); what asks libtorch about CUDA before
/// has to load it first.
///
/// In f32, a refined image depends on the batch that it is in by one grey level at most. In bf16 libtorch rounds
/// otherwise for batches of another size, and every step carries that on: with the tests' tiny networks on a CPU, an
/// RMS of 0.5 grey levels and 4 at most.
///
/// [`encode`]: Refiner::encode
/// [`sample_latents`]: Refiner::sample_latents
/// [`decode`]: Refiner::decode
#[derive(Debug)]
pub struct Refiner {
    /// None while it is [released](Self::release).
    backbone: OnceCell<Backbone>,
    /// Where it is read from, again after a release.
    source: BackboneBuilder,
    facts: Facts,
    knobs: Knobs,
    chain: Chain,
    device: Device,
    kind: Kind,
    batch_size: usize,
}

/// What is known of a backbone without its networks.
#[derive(Debug)]
struct Facts {
    traits: Traits,
    digest: Digest,
    resolution: i64,
    num_classes: usize,
    prompts: Option<serde_json::Value>,
}

/// A [`Refiner`] in the making.
///
/// ```
/// use diver::Refiner;
///
/// let error = Refiner::builder("no/such/folder").device("cpu").build().unwrap_err();
/// assert!(error.to_string().starts_with("no/such/folder: there is no such folder"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefinerBuilder {
    backbone: BackboneBuilder,
    device: String,
    dtype: String,
    knobs: KnobsBuilder,
    batch_size: Option<usize>,
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

    /// Where to compute: `auto` (the default), `cpu`, `cuda` or `cuda:N`.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// In which precision the diffusion network computes: `auto` (the default; bf16 on CUDA, else f32), `f32` or
    /// `bf16`; see [`Precision`].
    pub fn dtype(mut self, dtype: impl Into<String>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// The settings of the method, [`Knobs`] or their builder. What is not set has the paper's value, or that of the
    /// backbone's [`Family`].
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
            return Err(Error::knob("batch_size", "0 is not a number from 1 up"));
        }
        // Before anything is fetched or read.
        self.knobs.clone().build()?;
        let device: DeviceChoice = self.device.parse()?;
        let precision: Precision = self.dtype.parse()?;
        let device = device.resolve()?;
        let kind = precision.resolve(device);
        let suited = |traits: &Traits| {
            let knobs = self.knobs.clone().build_for(traits.family)?;
            let chain = traits.chain(&knobs)?;
            Ok((knobs, chain))
        };
        let (source, plan) = self.backbone.planned(|traits| suited(traits).map(drop))?;
        let backbone = plan.build(device, kind)?;
        let (network, traits) = (backbone.network(), backbone.traits());
        let (knobs, chain) = suited(&traits)?;
        let batch_size = self.batch_size.unwrap_or_else(|| match device {
            Device::Cuda(_) => gpu_batch(network.values()),
            _ => BATCH,
        });
        let facts = Facts {
            traits,
            digest: backbone.digest(),
            resolution: backbone.resolution(),
            num_classes: network.num_classes(),
            prompts: network.prompts().and_then(|prompts| serde_json::to_value(prompts).ok()),
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

/// Where the noise of a batch of latents comes from.
///
/// ```
/// use diver::Noise;
/// use tch::{Device, Kind, Tensor};
///
/// let own = Tensor::randn([1, 4, 8, 8], (Kind::Float, Device::Cpu));
/// assert!(matches!(Noise::from(&own), Noise::Given(_)));
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a> {
    /// The caller's own, `[B, C, h, w]`, f32.
    Given(&'a Tensor),
    /// Drawn for each sample from its key and the knobs' `refine_seed`
    /// ([`latent_noise`](crate::method::latent_noise)).
    Keyed(&'a [NoiseKey]),
}

impl<'a> From<&'a Tensor> for Noise<'a> {
    fn from(noise: &'a Tensor) -> Self {
        Self::Given(noise)
    }
}

impl<'a> From<&'a [NoiseKey]> for Noise<'a> {
    fn from(keys: &'a [NoiseKey]) -> Self {
        Self::Keyed(keys)
    }
}

impl Refiner {
    /// The backbone in a diffusers folder or a repository of the [hub](crate::hub), as in `facebook/DiT-XL-2-256`, with
    /// the paper's settings, on the best device there is.
    ///
    /// # Errors
    /// As for [`RefinerBuilder::build`].
    pub fn from_pretrained(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).build()
    }

    /// A refiner with other settings, or of a checkpoint of the DiT or SiT repository, with
    /// [`vae`](RefinerBuilder::vae).
    pub fn builder(path: impl AsRef<Path>) -> RefinerBuilder {
        RefinerBuilder {
            backbone: Backbone::builder(path),
            device: DeviceChoice::Auto.to_string(),
            dtype: Precision::Auto.to_string(),
            knobs: Knobs::builder(),
            batch_size: None,
        }
    }

    /// The frozen networks, read again if they were [released](Self::release).
    ///
    /// # Errors
    /// [`Error::Reload`] if they have to be, and their files are gone, damaged or others than before, or memory is not
    /// enough.
    pub fn backbone(&self) -> Result<&Backbone> {
        if let Some(backbone) = self.backbone.get() {
            return Ok(backbone);
        }
        tracing::info!("{}: reading the networks again, which were released", self.source.path().display());
        let backbone = self.source.clone().build(self.device, self.kind).map_err(|error| match error {
            Error::Cancelled => error,
            error => Error::Reload(error.into()),
        })?;
        if backbone.digest() != self.facts.digest {
            let reason = "is not the backbone, or `vae` not the autoencoder, that this refiner was made with";
            return Err(Error::Reload(Error::file(self.source.path(), reason).into()));
        }
        Ok(self.backbone.get_or_init(|| backbone))
    }

    /// Gives the networks' memory back; what needs them next reads them again. On a CUDA device the memory stays in
    /// libtorch's pool, for whatever this process computes there. A loader does this itself once its cache has every
    /// sample.
    pub fn release(&mut self) {
        drop(self.backbone.take());
        memory::trim();
    }

    /// The device they are on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The settings of the method.
    #[must_use]
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Changes the settings of the method, as [`RefinerBuilder::knobs`]; the networks stay as they are.
    ///
    /// # Errors
    /// If the knobs do not suit the backbone, as for [`RefinerBuilder::build`]; the old settings stay.
    pub fn set_knobs(&mut self, knobs: impl Into<KnobsBuilder>) -> Result<()> {
        let traits = &self.facts.traits;
        let knobs = knobs.into().build_for(traits.family)?;
        self.chain = traits.chain(&knobs)?;
        self.knobs = knobs;
        Ok(())
    }

    /// The scaled latents `z0` (`[B, C, h, w]`, f32, on the refiner's device) of images `[B, 3, H, W]` in [0, 1] of
    /// any floating-point dtype, device and size: resized to the backbone's size, then the mode of the
    /// autoencoder's posterior.
    ///
    /// # Errors
    /// If shape or dtype are others, or libtorch fails.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        if !images.is_floating_point() {
            // Bytes would be taken for values far above 1, and be white.
            let found = format!("{:?}", images.kind());
            return Err(Error::tensor("images", "a floating-point dtype with values in [0, 1]", found));
        }
        let backbone = self.backbone()?;
        let images = images.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let images = to_network(&images, backbone.resolution(), Interpolation::Bicubic)?;
        backbone.vae().encode(&images)
    }

    /// Runs the method on latents `z0` (`[B, C, h, w]`, f32, as from [`encode`](Self::encode)) that show what
    /// `conditions` say (classes or texts, as the backbone knows them): refined latents of the same shape. In mode
    /// `vae` these are `z0` itself.
    ///
    /// # Errors
    /// If a shape is another, the backbone does not know what is shown, or libtorch fails; [`Error::Cancelled`] soon
    /// after `cancel` is set.
    pub fn sample_latents<'a>(
        &self,
        z0: &Tensor,
        conditions: impl Into<Conditions>,
        noise: impl Into<Noise<'a>>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        if self.knobs.mode() == Mode::Vae {
            return Ok(z0.shallow_clone());
        }
        let (rows, channels, height, width) = z0.size4()?;
        let (conditions, count) = counted(conditions);
        if rows != count as i64 {
            return Err(Error::tensor(
                "z0",
                format!("one row for each of {count} classes"),
                format!("{rows}"),
            ));
        }
        let z0 = z0.f_to_device(self.device)?;
        let (knobs, shape) = (&self.knobs, [channels, height, width]);
        let source = noise.into();
        let noise = match source {
            Noise::Given(noise) => noise.f_to_device(self.device)?,
            Noise::Keyed(keys) => latent_noise(knobs.refine_seed(), keys, shape)?.f_to_device(self.device)?,
        };
        let (scale, guided) = (knobs.cfg_scale(), knobs.cfg_channels());
        match self.backbone()?.network().guided(conditions.as_slice(), scale, guided)? {
            GuidedNetwork::Noise(net) => {
                sample_latents(&*net, &self.chain, knobs, &z0, &noise, cancel, progress)
            }
            GuidedNetwork::Velocity(net) => {
                let draw = |k: usize| match source {
                    Noise::Keyed(keys) => {
                        let drawn = step_noise(knobs.refine_seed(), keys, shape, knobs.steps() + 1 - k)?;
                        Ok(drawn.f_to_device(self.device)?)
                    }
                    Noise::Given(_) => Err(Error::knob(
                        "solver",
                        format!("`{}` draws noise at every step: give keys instead of noise", Solver::Sde),
                    )),
                };
                let flow = Flow::new(knobs, &self.chain)?;
                let sampler = FlowSampler::new(&flow, knobs, &z0, &noise, &draw)?;
                sample_flow(&*net, sampler, cancel, progress)
            }
        }
    }

    /// Images `[B, 3, H, W]` in [0, 1], f32, from scaled latents `[B, C, h, w]`.
    ///
    /// # Errors
    /// If the shape is another, or libtorch fails.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let latents = latents.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        from_network(&self.backbone()?.vae().decode(&latents)?)
    }

    /// Refines images `[B, 3, H, W]` in [0, 1], of any floating-point dtype, device and size, that show what
    /// `conditions` say: [`encode`](Self::encode), [`sample_latents`](Self::sample_latents) and [`decode`](Self::decode), a batch of the
    /// refiner's own size at a time. The result is `[B, 3, R, R]` in [0, 1], f32, with `R` the backbone's resolution.
    ///
    /// # Errors
    /// As for the three, and if an image comes out with values that are not finite; [`Error::Cancelled`] soon after
    /// `cancel` is set.
    pub fn refine_images(
        &mut self,
        images: &Tensor,
        conditions: impl Into<Conditions>,
        keys: &[NoiseKey],
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Tensor> {
        let rows = images.size().first().copied().unwrap_or_default();
        let (conditions, count) = counted(conditions);
        if rows != count as i64 || count == 0 || keys.len() != count {
            let expected = format!("one or more, for each of {count} classes and {} keys", keys.len());
            return Err(Error::tensor("images", expected, rows.to_string()));
        }
        let refined = self.in_parts(
            conditions.as_slice(),
            keys,
            cancel,
            progress,
            |part| Ok(images.f_narrow(0, part.start as i64, part.len() as i64)?),
            |decoded| Ok(from_network(decoded)?.f_unbind(0)?),
        )?;
        Ok(Tensor::f_stack(&refined, 0)?)
    }

    /// Refines a batch, as many images at a time as memory lasts for: `pixels` gives those of a part, `finish` makes
    /// results of what the decoder gives for it.
    fn in_parts<T>(
        &mut self,
        conditions: &[Conditioning],
        keys: &[NoiseKey],
        cancel: &CancelToken,
        progress: &dyn Progress,
        pixels: impl Fn(Range<usize>) -> Result<Tensor>,
        finish: impl Fn(&Tensor) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let _no_grad = tch::no_grad_guard();
        // Not within a part: smaller parts make no room for the networks.
        self.backbone()?;
        let mut limit = self.batch_size;
        let furthest = AtomicUsize::new(0);
        let refined = in_parts(conditions.len(), &mut limit, |images| {
            let check = || cancel.check().map_err(|_| Error::Cancelled);
            let part = Part { images: images.clone(), of: conditions.len(), progress, furthest: &furthest };
            check()?;
            let z0 = self.encode(&pixels(images.clone())?)?;
            check()?;
            let (conditions, keys) = (&conditions[images.clone()], &keys[images.clone()]);
            let z = self.sample_latents(&z0, conditions, keys, cancel, &part)?;
            check()?;
            let decoded = self.backbone()?.vae().decode(&z)?;
            check_finite(&decoded, images.start)?;
            finish(&decoded)
        });
        self.batch_size = limit;
        refined
    }
}

impl Drop for Refiner {
    fn drop(&mut self) {
        self.release();
    }
}

impl Refine for Refiner {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        let mut knobs = serde_json::to_value(&self.knobs).ok()?;
        let refine_seed = knobs.as_object_mut()?.remove("refine_seed")?;
        let mut fingerprint = serde_json::json!({
            "refiner": "diver",
            "algorithm": ALGORITHM,
            "knobs": knobs,
            "refine_seed": refine_seed,
            "backbone": self.facts.digest,
            "dtype": if self.kind == Kind::BFloat16 { "bf16" } else { "f32" },
            "resolution": self.facts.resolution,
        });
        if let Some(prompts) = &self.facts.prompts {
            fingerprint["prompts"] = prompts.clone();
        }
        Some(fingerprint)
    }

    fn preferred_batch(&self) -> usize {
        self.batch_size
    }

    fn num_classes(&self) -> Option<usize> {
        Some(self.facts.num_classes)
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> diver_loaders::Result<()> {
        Ok(self.backbone()?.network().check_conditioning(conditioning)?)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> diver_loaders::Result<Vec<RgbImage>> {
        batch.conditioning.iter().try_for_each(|shown| self.check_conditioning(shown))?;
        let pixels = |part: Range<usize>| {
            let values = 3 * batch.height * batch.width;
            let shape = [part.len() as i64, 3, batch.height as i64, batch.width as i64];
            Ok(Tensor::f_from_slice(&batch.pixels[part.start * values..part.end * values])?.f_view(shape)?)
        };
        Ok(self.in_parts(batch.conditioning, batch.keys, cancel, progress, pixels, to_images)?)
    }

    fn release(&mut self) {
        Self::release(self);
    }
}

/// Conditions, and of how many images.
fn counted(conditions: impl Into<Conditions>) -> (Conditions, usize) {
    let conditions = conditions.into();
    let count = conditions.as_slice().len();
    (conditions, count)
}

/// Progress of a whole batch, heard from one of its parts. A step counts once for each image.
struct Part<'a> {
    images: Range<usize>,
    of: usize,
    progress: &'a dyn Progress,
    /// What was told last: a part that is tried again does not lead back.
    furthest: &'a AtomicUsize,
}

impl Progress for Part<'_> {
    fn step(&self, done: usize, total: usize) {
        let done = self.images.start * total + self.images.len() * done;
        let furthest = self.furthest.fetch_max(done, Ordering::Relaxed).max(done);
        self.progress.step(furthest, self.of * total);
    }
}

/// Calls `f` for consecutive ranges of at most `limit` until `count` is covered. Where memory runs out, the limit is
/// halved for good and the range tried again.
fn in_parts<T>(
    count: usize,
    limit: &mut usize,
    mut f: impl FnMut(Range<usize>) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut done = Vec::with_capacity(count);
    while done.len() < count {
        let part = done.len()..count.min(done.len() + *limit);
        let size = part.len();
        match f(part) {
            Ok(refined) => done.extend(refined),
            Err(error) if error.is_out_of_memory() && size > 1 => {
                *limit = size / 2;
                tracing::warn!(%error, "not enough memory for {size} images at a time; going on with {limit}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Refuses decoded images `[B, 3, H, W]` that are none; before the clamp, which makes an infinite value white or
/// black. `first` is the position of the first image in its batch.
fn check_finite(decoded: &Tensor, first: usize) -> Result<()> {
    let finite = Vec::<bool>::try_from(decoded.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)?)?;
    match finite.iter().position(|finite| !finite) {
        Some(image) => Err(Error::NotFinite { image: first + image }),
        None => Ok(()),
    }
}

/// What the decoder gives, `[B, 3, H, W]`, as bytes.
fn to_images(decoded: &Tensor) -> Result<Vec<RgbImage>> {
    let (count, channels, height, width) = decoded.size4()?;
    let bytes = from_network(decoded)?.f_mul_scalar(255.0)?.f_round()?.f_to_kind(Kind::Uint8)?;
    let bytes = bytes.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_to_device(Device::Cpu)?;
    let mut data = vec![0; (count * channels * height * width) as usize];
    let length = data.len();
    bytes.f_copy_data(&mut data, length)?;
    let to_image = |image: &[u8]| {
        RgbImage::new(width as usize, height as usize, image.to_vec())
            .map_err(|e| Error::tensor("refined images", "RGB images", e.to_string()))
    };
    data.chunks_exact((channels * height * width) as usize).map(to_image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Mutex;
    use tch::TchError;

    /// Stands for a device on which `most` images fit.
    fn fits(most: usize, images: &Range<usize>) -> Result<Vec<usize>> {
        if images.len() > most {
            return Err(TchError::Torch("CUDA out of memory.".to_owned()).into());
        }
        Ok(images.clone().collect())
    }

    #[test]
    fn a_full_device_halves_the_batch_for_good() {
        let (mut limit, sizes) = (32, RefCell::new(Vec::new()));
        let all = in_parts(20, &mut limit, |images| {
            sizes.borrow_mut().push(images.len());
            fits(6, &images)
        });
        assert_eq!(all.unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!((limit, sizes.into_inner()), (5, vec![20, 10, 5, 5, 5, 5]));
    }

    #[test]
    fn a_gpu_gets_about_as_much_of_any_network() {
        assert_eq!(gpu_batch(256 * 1152), 32, "DiT-XL/2");
        assert_eq!(gpu_batch(1024 * 1152), 8, "of 512 pixels");
        assert_eq!(gpu_batch(64 * 64 * 320), 8, "Stable Diffusion");
        assert_eq!(gpu_batch(16 * 128), 256, "tiny");
    }

    #[test]
    fn one_image_too_many_is_an_error() {
        let error = in_parts(4, &mut 4, |images| fits(0, &images)).unwrap_err();
        assert!(error.is_out_of_memory());
        let other = in_parts(4, &mut 4, |_| Err::<Vec<()>, _>(Error::Cancelled)).unwrap_err();
        assert!(matches!(other, Error::Cancelled));
    }

    #[test]
    fn progress_runs_through_all_parts() {
        struct Heard(Mutex<Vec<(usize, usize)>>);
        impl Progress for Heard {
            fn step(&self, done: usize, total: usize) {
                self.0.lock().unwrap().push((done, total));
            }
        }
        let heard = Heard(Mutex::new(Vec::new()));
        let furthest = AtomicUsize::new(0);
        // The first part is tried again in halves.
        for images in [0..2, 0..1, 1..2, 2..3] {
            let part = Part { images, of: 3, progress: &heard, furthest: &furthest };
            (1..=2).for_each(|step| part.step(step, 2));
        }
        let heard: Vec<_> = heard.0.into_inner().unwrap().into_iter().map(|(done, _)| done).collect();
        assert_eq!(heard, [2, 4, 4, 4, 4, 4, 5, 6]);
    }

    #[test]
    fn pixels_are_rounded_and_checked() {
        let one = Tensor::from_slice(&[-1.0_f32, 0.0, 1.5]).view([1, 3, 1, 1]);
        assert_eq!(to_images(&one).unwrap()[0].as_bytes(), [0, 128, 255]);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bad = Tensor::from_slice(&[0.0, value, 0.0]).view([1, 3, 1, 1]);
            let error = check_finite(&Tensor::cat(&[&one, &bad], 0), 4).unwrap_err().to_string();
            assert!(error.starts_with("image 5 of the batch has values that are not finite"), "{error}");
        }
    }
}

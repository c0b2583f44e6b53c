//! Pixels in, refined pixels out.

mod builder;
mod images;
mod part;

pub use builder::RefinerBuilder;

use self::images::{check_finite, check_values, to_images};
use self::part::Part;
use crate::backbone::{Backbone, BackboneBuilder, GuidedNetwork, Prompts, Traits, class_of};
use crate::method::{
    FlowSampler, Interpolation, Knobs, KnobsBuilder, Mode, from_network, latent_noise, sample_flow,
    sample_latents, step_noise, to_network,
};
use crate::{Chain, Conditions, DeviceChoice, Error, Flow, Precision, Result, Solver};
use crate::{halving, memory};
use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::{CancelToken, Conditioning, Digest, Refine, RgbImage};
use std::cell::OnceCell;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use tch::{Device, Kind, Tensor};

/// Counts the changes to this code that change pixels by more than rounding does; part of every fingerprint.
const ALGORITHM: u32 = 1;

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
    /// The texts by which it knows classes, if it is conditioned on texts.
    prompts: Option<Prompts>,
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
            device: DeviceChoice::Auto,
            dtype: Precision::Auto,
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
    /// If shape or dtype are others, a value is not finite, or libtorch fails.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        check_values(images)?;
        self.encoded(images)
    }

    /// [`encode`](Self::encode) for images that were checked.
    fn encoded(&self, images: &Tensor) -> Result<Tensor> {
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
                let sampler = FlowSampler::new(&flow, &z0, &noise, &draw)?;
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
            let found = format!("{rows} images, {count} classes and {} keys", keys.len());
            return Err(Error::tensor("images", "one or more, a class and a key for each", found));
        }
        // As a whole: an image is named by its place in the batch, not in a part of it.
        check_values(images)?;
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
        let refined = halving::in_parts(conditions.len(), &mut limit, "the refiner", |images| {
            let check = || cancel.check().map_err(|_| Error::Cancelled);
            let part = Part { images: images.clone(), of: conditions.len(), progress, furthest: &furthest };
            check()?;
            let z0 = self.encoded(&pixels(images.clone())?)?;
            check()?;
            let (conditions, keys) = (&conditions[images.clone()], &keys[images.clone()]);
            let z = self.sample_latents(&z0, conditions, keys, cancel, &part)?;
            check()?;
            let decoded = self.backbone()?.vae().decode(&z)?;
            check_finite(&decoded, images.start)?;
            finish(&decoded)
        });
        self.batch_size = limit;
        Ok(refined?.into_iter().flatten().collect())
    }
}

impl Drop for Refiner {
    fn drop(&mut self) {
        self.release();
    }
}

impl Refine for Refiner {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        let mut knobs = serde_json::to_value(self.knobs.effective(self.facts.traits.family).ok()?).ok()?;
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
            fingerprint["prompts"] = serde_json::to_value(prompts).ok()?;
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
        let facts = &self.facts;
        Ok(match &facts.prompts {
            Some(prompts) => prompts.text(conditioning).map(drop),
            None => class_of(conditioning, facts.num_classes).map(drop),
        }?)
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

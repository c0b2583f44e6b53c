//! What the thread of a refiner does: the stages of the method on tensors of Python's.

use crate::tensors::{Given, floats, torch};
use diver::{KnobsBuilder, Mode, Noise, Refiner};
use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::{
    CancelToken, Conditioning, Digest, Label, Refine, Result, RgbImage, Sample, StoredPixels,
};
use diver_python::tensor::Tensor as Output;
use tch::{Device, Tensor};

/// What Python says of the noise of a batch.
pub struct Keys {
    digests: Option<Vec<Digest>>,
    variants: Vec<u32>,
}

impl Keys {
    /// `digests` are 32 bytes each, one after the other; without them, those of the rows of a batch are taken.
    pub fn new(digests: Option<&[u8]>, variants: Vec<u32>) -> Self {
        let digests =
            digests.map(|bytes| bytes.as_chunks::<32>().0.iter().map(|d| Digest::from(*d)).collect());
        Self { digests, variants }
    }

    /// The keys of the rows of `batch`.
    fn of(self, batch: &Tensor) -> Result<Vec<NoiseKey>> {
        let digests = self.digests.map_or_else(|| digests(batch), Ok)?;
        let keys = digests.into_iter().zip(self.variants);
        Ok(keys.map(|(content, variant)| NoiseKey { content, variant }).collect())
    }
}

/// Digests of the rows of a batch `[B, C, H, W]`, each as the engine hashes a sample of f32.
fn digests(batch: &Tensor) -> Result<Vec<Digest>> {
    let (rows, channels, height, width) = torch(batch.size4())?;
    let batch = torch(batch.f_to_device(Device::Cpu))?;
    let digest = |row| {
        let mut values = vec![0.0_f32; (channels * height * width) as usize];
        let length = values.len();
        torch(batch.f_get(row).and_then(|row| row.f_copy_data(&mut values, length)))?;
        let shape = [channels, height, width].map(|side| side as usize);
        // The label is no part of the digest.
        let sample = Sample { pixels: StoredPixels::F32(values), shape, label: Label::Hard(0) };
        Ok(sample.digest())
    };
    (0..rows).map(digest).collect()
}

/// Images to latents.
pub fn encode(refiner: &Refiner, images: &Given, cancel: &CancelToken) -> Result<Output> {
    cancel.check()?;
    floats(&refiner.encode(&*images.view()?)?)
}

/// Latents to images.
pub fn decode(refiner: &Refiner, latents: &Given, cancel: &CancelToken) -> Result<Output> {
    cancel.check()?;
    floats(&refiner.decode(&*latents.view()?)?)
}

/// Latents to refined ones; where no noise is given, with that of the keys.
#[allow(clippy::too_many_arguments)] // A stage with all that it depends on.
pub fn sample_latents(
    refiner: &mut Refiner,
    knobs: KnobsBuilder,
    z0: &Given,
    classes: &[usize],
    noise: Option<&Given>,
    keys: Keys,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Output> {
    cancel.check()?;
    refiner.set_knobs(knobs)?;
    let z0 = z0.view()?;
    if refiner.knobs().mode() == Mode::Vae {
        // The latents come back as they are; the caller's memory stays the caller's.
        return floats(&torch(z0.f_detach_copy())?);
    }
    let run = |noise: Noise<'_>| refiner.sample_latents(&z0, classes, noise, cancel, progress);
    let z = match noise {
        Some(noise) => run(Noise::Given(&*noise.view()?)),
        None => run(Noise::Keyed(&keys.of(&z0)?)),
    };
    floats(&z?)
}

/// Images to refined images, in parts as large as the refiner takes at a time.
pub fn refine(
    refiner: &mut Refiner,
    knobs: KnobsBuilder,
    images: &Given,
    classes: &[usize],
    keys: Keys,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Output> {
    cancel.check()?;
    refiner.set_knobs(knobs)?;
    let images = images.view()?;
    floats(&refiner.refine_images(&images, classes, &keys.of(&images)?, cancel, progress)?)
}

/// Images to refined images in bytes, as the engine has them refined: `[B, 3, R, R]` and its planar values.
pub fn refine_bytes(
    refiner: &mut Refiner,
    knobs: KnobsBuilder,
    images: &Given,
    classes: &[usize],
    keys: Keys,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Output> {
    cancel.check()?;
    refiner.set_knobs(knobs)?;
    let keys = keys.of(&*images.view()?)?;
    let (pixels, height, width) = images.images()?;
    let conditioning: Vec<Conditioning> = classes.iter().copied().map(Conditioning::Class).collect();
    let batch = RawBatch::new(pixels, height, width, &conditioning, &keys)?;
    Ok(planar(&Refine::refine(refiner, &batch, cancel, progress)?))
}

fn planar(images: &[RgbImage]) -> Output {
    let (height, width) = images.first().map_or((0, 0), |image| (image.height(), image.width()));
    let mut values: Vec<u8> = Vec::with_capacity(images.len() * 3 * height * width);
    for image in images {
        for channel in 0..3 {
            values.extend(image.as_bytes().iter().skip(channel).step_by(3));
        }
    }
    Output::from_vec(values, [images.len(), 3, height, width].map(|side| side as i64).to_vec())
}

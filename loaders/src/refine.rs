//! The seam between the engine and whatever refines images.

mod bulk;
mod dataset;
mod keeper;
mod meter;
mod micro_batch;
mod missing;
mod pace;
mod refinery;

pub use bulk::Summary;
pub(crate) use dataset::{Dataset, Refinement};
pub(crate) use keeper::{Keeper, Keeping, Rows};
pub use meter::{Meter, Refining};
pub(crate) use micro_batch::{Finder, MicroBatch, Refined};
pub(crate) use missing::Missing;
pub(crate) use pace::Pace;
pub use refinery::Refinery;
pub(crate) use refinery::{Pause, partition};

use crate::{Digest, Error, Result, RgbImage};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a sample shows, as its refiner wants to hear it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Conditioning {
    /// Index into the refiner's own class table.
    Class(usize),
    /// A text prompt.
    Prompt(String),
}

impl fmt::Display for Conditioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(index) => write!(f, "class {index}"),
            Self::Prompt(prompt) => write!(f, "prompt {prompt:?}"),
        }
    }
}

/// What the noise of one sample depends on, and nothing else: neither its batch nor its place in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoiseKey {
    /// Hash of the sample as stored ([`crate::Sample::digest`]).
    pub content: Digest,
    /// Which of several refinements of the same sample; 0 unless asked for.
    pub variant: u32,
}

/// A batch of `B` raw samples on their way to a refiner.
#[derive(Clone, Copy, Debug)]
pub struct RawBatch<'a> {
    /// `[B, 3, height, width]`, in [0, 1].
    pub pixels: &'a [f32],
    /// Rows of every image.
    pub height: usize,
    /// Columns of every image.
    pub width: usize,
    /// `B` conditionings.
    pub conditioning: &'a [Conditioning],
    /// `B` noise keys.
    pub keys: &'a [NoiseKey],
}

impl<'a> RawBatch<'a> {
    /// A batch whose parts agree in length.
    ///
    /// # Errors
    /// If they do not, if the batch is empty, or if a pixel lies outside [0, 1] or is NaN.
    pub fn new(
        pixels: &'a [f32],
        height: usize,
        width: usize,
        conditioning: &'a [Conditioning],
        keys: &'a [NoiseKey],
    ) -> Result<Self> {
        let images = conditioning.len();
        if images == 0 || keys.len() != images || pixels.len() != images * 3 * height * width {
            return Err(Error::config(
                "batch",
                format!(
                    "{} pixel values, {images} conditionings and {} keys do not make a batch of {height} x {width} images",
                    pixels.len(),
                    keys.len()
                ),
            ));
        }
        if let Some(at) = pixels.iter().position(|p| !(0.0..=1.0).contains(p)) {
            let image = at / (3 * height * width);
            let reason = format!("image {image} has a pixel value {}, outside [0, 1]", pixels[at]);
            return Err(Error::config("batch", reason));
        }
        Ok(Self { pixels, height, width, conditioning, keys })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.conditioning.len()
    }

    /// Never true of a batch from [`RawBatch::new`].
    pub fn is_empty(&self) -> bool {
        self.conditioning.is_empty()
    }
}

/// A flag that asks running work to stop. Clones share the flag.
///
/// ```
/// use diver_loaders::CancelToken;
///
/// let token = CancelToken::new();
/// let part = token.child();
/// assert!(token.check().is_ok());
/// part.cancel();
/// assert!(part.check().is_err() && token.check().is_ok());
/// token.clone().cancel();
/// assert!(token.check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    is_set: AtomicBool,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token for a part of the work: cancelled with this one, or by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(Arc::new(Flag { parent: Some(self.clone()), ..Flag::default() }))
    }

    /// Asks everything that holds this token, or a child of it, to stop.
    pub fn cancel(&self) {
        self.0.is_set.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called on this token or one that it is a child of.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire) || self.0.parent.as_ref().is_some_and(Self::is_cancelled)
    }

    /// `Err(`[`Error::Cancelled`]`)` once cancelled; to be called between steps of long work.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Hears how far a refinement has come. Called from the refining thread; must return quickly.
pub trait Progress: Send + Sync {
    /// So many images are refined next, at once. Called by whoever calls the refiner.
    fn start(&self, _images: usize) {}

    /// `done` of `total` denoising steps of the current batch are done. Called by the refiner.
    fn step(&self, done: usize, total: usize);

    /// The batch is over, and succeeded or failed. Called by whoever calls the refiner.
    fn end(&self, _is_done: bool) {}

    /// `done` of `total` images are there, refined or found in the cache. Called by whoever refines a whole set.
    fn images(&self, _done: usize, _total: usize) {}
}

/// A [`Progress`] that hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _done: usize, _total: usize) {}
}

/// Turns raw samples into refined images. The engine owns its refiner and calls it from one thread.
///
/// [`conformance::check`] is the suite that every implementation passes.
pub trait Refine: Send {
    /// Everything that decides the refined pixels besides the batch itself (weights, knobs, seed, precision),
    /// as a JSON object. Refinements with equal fingerprints share a cache on disk; with `None` they are kept
    /// in memory only.
    fn fingerprint(&self) -> Option<serde_json::Value>;

    /// How many images a call should bring for best speed.
    fn preferred_batch(&self) -> usize {
        32
    }

    /// How many classes the refiner knows, if it is conditioned on classes and has a table of them.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// Refuses a conditioning that the refiner does not know.
    ///
    /// # Errors
    /// If a call with this conditioning would fail; says what the refiner does know.
    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()>;

    /// Refines a batch: `B` images come back, in order, all of one size. An image depends on its own pixels,
    /// conditioning and key only. Noise must depend on both parts of the key: otherwise all variants of a sample are
    /// the same image. Its batch may move a byte of an image by one grey level in single precision; arithmetic of lower
    /// precision may move more.
    ///
    /// # Errors
    /// [`Error::Cancelled`] soon after `cancel` is set; [`Error::Refine`] for everything else.
    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>>;

    /// Gives back what it can have again: memory, above all a device's. The engine calls this once nothing is left to
    /// refine. A later call refines as before, and may take longer to begin.
    fn release(&mut self) {}
}

impl<R: Refine + ?Sized> Refine for Box<R> {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        (**self).fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        (**self).preferred_batch()
    }

    fn num_classes(&self) -> Option<usize> {
        (**self).num_classes()
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        (**self).check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        (**self).refine(batch, cancel, progress)
    }

    fn release(&mut self) {
        (**self).release();
    }
}

/// The refiner that changes nothing but the precision: pixels rounded to 8 bits. For tests, and for streaming
/// a raw set exactly as refinement would see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Refine for Identity {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "refiner": "identity" }))
    }

    fn check_conditioning(&self, _conditioning: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        cancel.check()?;
        let images = batch
            .pixels
            .chunks_exact(3 * batch.height * batch.width)
            .map(|planar| RgbImage::from_planar(batch.width, batch.height, planar))
            .collect();
        progress.step(1, 1);
        images
    }
}

pub mod conformance;

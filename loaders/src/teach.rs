//! The seam between the engine and a teacher, the network that labels images.
//!
//! Refinement changes the pixels of a sample, so the soft label stored with it describes an image that is no longer
//! there. A [`Teach`] implementation gives the logits of the new image.

mod bank;
mod batch;
pub mod conformance;
mod logits;

pub(crate) use bank::Bank;
pub use batch::TeachBatch;
pub use logits::Logits;

use crate::{CancelToken, Result};
use std::fmt;
use std::num::NonZero;

/// The number of images that a teacher is given at a time unless it asks for another.
const BATCH: usize = 32;

/// Gives the logits of images. Whoever owns a teacher calls it from one thread at a time.
///
/// Callers go through [`Logits::of`], which checks what the teacher returns. [`conformance::check`] is the suite that
/// every implementation passes. [`from_fn`] makes a teacher of a closure.
pub trait Teach: Send {
    /// Everything that decides the logits besides the images (architecture, weights, precision), as a JSON object.
    /// Logits of teachers with equal fingerprints share a cache on disk; with `None` they are never written to disk.
    fn fingerprint(&self) -> Option<serde_json::Value>;

    /// The number of images in a call that gives the best speed, at least 1 (default: 32).
    fn preferred_batch(&self) -> usize {
        BATCH
    }

    /// The number of classes that the teacher knows, where it is known before the first call (default: `None`). Once
    /// it is known it does not change.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// The logits of a batch of `B` images: `B * C` finite values, row-major `[B, C]`, rows in the order of the images,
    /// with the same `C` in every call. A row depends on its own image only: batch norms use their running statistics,
    /// and dropout is off. An empty batch gives no values.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) soon after `cancel` is set; [`Error::Config`](crate::Error::Config)
    /// or [`Error::Format`](crate::Error::Format) where the images do not suit the teacher;
    /// [`Error::Teach`](crate::Error::Teach) for everything else.
    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>>;

    /// Frees what the teacher can get again, above all a device's memory. A later call gives the same logits, and may
    /// take longer to begin.
    fn release(&mut self) {}
}

impl<T: Teach + ?Sized> Teach for Box<T> {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        (**self).fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        (**self).preferred_batch()
    }

    fn num_classes(&self) -> Option<usize> {
        (**self).num_classes()
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
        (**self).teach(images, cancel)
    }

    fn release(&mut self) {
        (**self).release();
    }
}

/// A teacher made of a closure that returns the logits of a batch, row-major `[B, C]`. The closure is not called for
/// an empty batch, nor after cancellation.
///
/// ```
/// use diver_loaders::CancelToken;
/// use diver_loaders::teach::{self, Logits, TeachBatch};
///
/// // Two classes, dark and bright, told apart by the sum of an image's values.
/// let mut teacher = teach::from_fn(|images: &TeachBatch<'_>| {
///     Ok(images.images().flat_map(|image| { let sum: f32 = image.iter().sum(); [-sum, sum] }).collect())
/// })
/// .with_num_classes(2);
///
/// let pixels = [-1.0, -1.0, 0.5, 1.0];
/// let images = TeachBatch::new(&pixels, [2, 1, 1, 2])?;
/// let logits = Logits::of(&mut teacher, &images, 2, &CancelToken::new())?;
/// assert_eq!(logits.row(0), Some(&[2.0, -2.0][..]));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub fn from_fn<F>(f: F) -> FromFn<F>
where
    F: FnMut(&TeachBatch<'_>) -> Result<Vec<f32>> + Send,
{
    FromFn { f, fingerprint: None, preferred_batch: BATCH, num_classes: None }
}

/// The teacher that [`from_fn`] makes.
///
/// ```
/// use diver_loaders::teach::{self, Teach, TeachBatch};
/// use serde_json::json;
///
/// let teacher = teach::from_fn(|images: &TeachBatch<'_>| Ok(vec![0.0; 10 * images.len()]))
///     .with_num_classes(10)
///     .with_fingerprint(json!({ "teacher": "zeros" }));
/// assert_eq!(teacher.fingerprint(), Some(json!({ "teacher": "zeros" })));
/// assert_eq!((teacher.num_classes(), teacher.preferred_batch()), (Some(10), 32));
/// ```
pub struct FromFn<F> {
    f: F,
    fingerprint: Option<serde_json::Value>,
    preferred_batch: usize,
    num_classes: Option<usize>,
}

impl<F> FromFn<F> {
    /// Sets the [fingerprint](Teach::fingerprint), a JSON object (default: none, so logits stay in memory).
    #[must_use]
    pub fn with_fingerprint(self, fingerprint: serde_json::Value) -> Self {
        Self { fingerprint: Some(fingerprint), ..self }
    }

    /// Sets the [number of images in a call](Teach::preferred_batch) (default: 32).
    #[must_use]
    pub fn with_preferred_batch(self, images: NonZero<usize>) -> Self {
        Self { preferred_batch: images.get(), ..self }
    }

    /// Sets the [number of classes](Teach::num_classes) (default: unknown).
    #[must_use]
    pub fn with_num_classes(self, classes: usize) -> Self {
        Self { num_classes: Some(classes), ..self }
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn")
            .field("fingerprint", &self.fingerprint)
            .field("preferred_batch", &self.preferred_batch)
            .field("num_classes", &self.num_classes)
            .finish_non_exhaustive()
    }
}

impl<F> Teach for FromFn<F>
where
    F: FnMut(&TeachBatch<'_>) -> Result<Vec<f32>> + Send,
{
    fn fingerprint(&self) -> Option<serde_json::Value> {
        self.fingerprint.clone()
    }

    fn preferred_batch(&self) -> usize {
        self.preferred_batch
    }

    fn num_classes(&self) -> Option<usize> {
        self.num_classes
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
        cancel.check()?;
        if images.is_empty() { Ok(Vec::new()) } else { (self.f)(images) }
    }
}

//! What leaves a loader.

use super::pool::Buffer;

/// `B` samples, raw and refined mixed, all in the normalised space that the network is trained in.
#[derive(Debug)]
pub struct Batch {
    pub(super) images: Buffer,
    pub(super) shape: [usize; 4],
    pub(super) targets: Vec<f32>,
    pub(super) classes: usize,
    pub(super) labels: Vec<usize>,
    pub(super) indices: Vec<usize>,
    pub(super) refined: Vec<bool>,
}

impl Batch {
    /// Normalised images, `[B, C, H, W]` in row-major order.
    pub fn images(&self) -> &[f32] {
        &self.images
    }

    /// The same values, to be changed in place.
    pub fn images_mut(&mut self) -> &mut [f32] {
        &mut self.images
    }

    /// `[B, C, H, W]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Number of samples, at least 1.
    #[allow(clippy::len_without_is_empty)] // A batch is never empty.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Target distributions, `[B, classes]` in row-major order; every row sums to 1. One-hot for hard labels,
    /// the softmax of logits at the loader's temperature otherwise.
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// The same values, to be changed in place.
    pub fn targets_mut(&mut self) -> &mut [f32] {
        &mut self.targets
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class of each sample: its hard label, or the position of its largest logit.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The position of each sample in its dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Whether each sample came refined.
    pub fn refined(&self) -> &[bool] {
        &self.refined
    }
}

//! Mirrored images.

use super::probability;
use crate::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Mirrors images left to right, each with probability `p`: torchvision's `RandomHorizontalFlip`.
///
/// ```
/// use diver_loaders::augment::HorizontalFlip;
///
/// assert_eq!(HorizontalFlip::default(), HorizontalFlip::new(0.5)?);
/// assert!(HorizontalFlip::new(1.5).is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HorizontalFlip {
    /// Probability that an image is mirrored.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) p: f64,
}

impl Default for HorizontalFlip {
    fn default() -> Self {
        Self { p: 0.5 }
    }
}

impl HorizontalFlip {
    /// Mirrors with probability `p` (default: 0.5).
    ///
    /// # Errors
    /// If `p` is not in [0, 1].
    pub fn new(p: f64) -> Result<Self> {
        let flip = Self { p };
        flip.check()?;
        Ok(flip)
    }

    pub(super) fn check(&self) -> Result<()> {
        probability(self.p)
    }
}

/// Mirrors an image of rows of `width` values left to right.
pub(crate) fn mirror(image: &mut [f32], width: usize) {
    for row in image.chunks_exact_mut(width) {
        row.reverse();
    }
}

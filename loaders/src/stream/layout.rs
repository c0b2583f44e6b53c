//! How a batch's images lie in memory.

use super::dtype::Dtype;
use crate::options::named_enum;

named_enum! {
    /// In which order a batch's images lie in memory; their shape is `[B, C, H, W]` in both. The names are torch's.
    ///
    /// ```
    /// use diver_loaders::{Loader, MemoryFormat, MemorySource};
    ///
    /// let planes = vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    /// let set = MemorySource::unit(1, [3, 1, 2], planes, vec![0])?;
    /// let mut loader = Loader::builder(set).memory_format(MemoryFormat::ChannelsLast).build()?;
    /// let batch = loader.iter().next().unwrap()?;
    /// assert_eq!((batch.shape(), batch.strides()), ([1, 3, 1, 2], [6, 1, 6, 3]));
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    MemoryFormat, "memory_format" {
        /// Channel after channel, NCHW: strides `[C H W, H W, W, 1]`.
        #[default]
        Contiguous = "contiguous",
        /// The channels of a pixel beside each other, NHWC: strides `[C H W, 1, C W, C]`.
        ChannelsLast = "channels_last",
    }
}

/// What a batch's images are, and how they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// `[B, C, H, W]`.
    pub(super) shape: [usize; 4],
    pub(super) dtype: Dtype,
    pub(super) memory_format: MemoryFormat,
}

impl Layout {
    /// Number of values; as many as there can be at most, for a shape that is beyond that.
    pub(super) fn values(&self) -> usize {
        self.shape.into_iter().fold(1, usize::saturating_mul)
    }

    /// Number of bytes, likewise.
    pub(super) fn bytes(&self) -> usize {
        self.values().saturating_mul(self.dtype.size())
    }

    /// From one image, channel, row and column to the next, in values.
    pub(super) fn strides(&self) -> [usize; 4] {
        let [_, channels, height, width] = self.shape;
        let image = channels * height * width;
        match self.memory_format {
            MemoryFormat::Contiguous => [image, height * width, width, 1],
            MemoryFormat::ChannelsLast => [image, 1, channels * width, channels],
        }
    }

    /// Whether the pipeline's own planes of float32 are already what is asked for.
    pub(super) fn is_plain(&self) -> bool {
        let is_planar = self.memory_format == MemoryFormat::Contiguous || self.shape[1] == 1;
        self.dtype == Dtype::Float32 && is_planar
    }
}

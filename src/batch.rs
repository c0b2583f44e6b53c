//! Batches as tensors.

use crate::{Error, Result, load_cuda};
use diver_loaders::{Batch, Dtype, MemoryFormat};
use tch::{Device, Kind, Tensor};

/// Hands a [`Batch`] over to libtorch.
///
/// ```
/// use diver::{BatchExt, Loader, MemorySource};
/// use tch::Device;
///
/// let set = MemorySource::unit(2, [3, 8, 8], vec![0.5; 2 * 192], vec![0, 4])?;
/// let mut loader = Loader::builder(set).build()?;
/// for batch in loader.epoch(0) {
///     let (images, targets) = batch?.to_tch(Device::Cpu)?;
///     assert_eq!((images.size(), targets.size()), (vec![2, 3, 8, 8], vec![2, 5]));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BatchExt {
    /// Copies the batch to `device`: images `[B, C, H, W]` of the loader's [`Dtype`] and [`MemoryFormat`], and target
    /// distributions `[B, classes]`, f32. Images of bytes are not normalised. For a CUDA device it calls [`load_cuda`];
    /// to ask libtorch for one (`Device::cuda_if_available()`), call that first.
    ///
    /// # Errors
    /// If the device is not there or has no memory left; if the batch comes without images ([`Batch::is_held`]).
    fn to_tch(&self, device: Device) -> Result<(Tensor, Tensor)>;
}

impl BatchExt for Batch {
    fn to_tch(&self, device: Device) -> Result<(Tensor, Tensor)> {
        if device.is_cuda() {
            load_cuda()?;
        }
        let [batch, channels, height, width] = self.shape().map(|n| n as i64);
        let kind = match self.dtype() {
            Dtype::Float32 => Kind::Float,
            Dtype::Float16 => Kind::Half,
            Dtype::Bfloat16 => Kind::BFloat16,
            Dtype::Uint8 => Kind::Uint8,
        };
        let bytes = self.image_bytes();
        // libtorch reads as many as the shape says.
        if bytes.len() != self.shape().iter().product::<usize>() * self.dtype().size() {
            return Err(Error::Engine(diver_loaders::Error::config(
                "resident",
                "this batch comes without images",
            )));
        }
        let of_bytes = |shape: [i64; 4]| Tensor::f_from_data_size(bytes, &shape, kind);
        let images = match self.memory_format() {
            MemoryFormat::Contiguous => of_bytes([batch, channels, height, width])?,
            MemoryFormat::ChannelsLast => {
                of_bytes([batch, height, width, channels])?.f_permute([0, 3, 1, 2])?
            }
        };
        let targets = Tensor::f_from_slice(self.targets())?.f_view([batch, self.classes() as i64])?;
        Ok((images.f_to_device(device)?, targets.f_to_device(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Loader, MemorySource};

    /// What torch makes of the batch of float32 is what the loader makes, to the bit.
    #[test]
    fn every_dtype_and_memory_format_becomes_a_tensor() {
        let values: Vec<f32> = (0..4 * 3 * 5 * 6).map(|at| at as f32 / 360.0).collect();
        let images = |dtype, format| {
            let set = MemorySource::unit(4, [3, 5, 6], values.clone(), vec![0, 1, 2, 0]).unwrap();
            let mut loader = Loader::builder(set).dtype(dtype).memory_format(format).build().unwrap();
            let normalize = loader.info().normalize;
            let (images, targets) = loader.iter().next().unwrap().unwrap().to_tch(Device::Cpu).unwrap();
            assert_eq!((images.size(), targets.size()), (vec![4, 3, 5, 6], vec![4, 3]));
            (images, normalize)
        };
        let (plain, normalize) = images(Dtype::Float32, MemoryFormat::Contiguous);
        let constants = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        let pixels = &plain * constants(normalize.std) + constants(normalize.mean);
        let bytes = (pixels * 255.0).round().clamp(0.0, 255.0);
        for (dtype, kind) in [
            (Dtype::Float32, Kind::Float),
            (Dtype::Float16, Kind::Half),
            (Dtype::Bfloat16, Kind::BFloat16),
            (Dtype::Uint8, Kind::Uint8),
        ] {
            let expected = if kind == Kind::Uint8 { &bytes } else { &plain };
            let expected = expected.to_kind(kind);
            let [contiguous, channels_last] = MemoryFormat::ALL.try_into().unwrap();
            let (made, _) = images(dtype, contiguous);
            assert!(made.equal(&expected) && made.kind() == kind, "{dtype}");
            assert_eq!(made.stride(), [90, 30, 6, 1]);
            let (made, _) = images(dtype, channels_last);
            assert!(made.equal(&expected) && made.kind() == kind, "{dtype}");
            assert_eq!(made.stride(), [90, 1, 18, 3]);
        }
    }
}

//! Batches as tensors.

use crate::{Result, load_cuda};
use diver_loaders::Batch;
use tch::{Device, Tensor};

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
    /// Copies the batch to `device`: images `[B, C, H, W]` and target distributions `[B, classes]`, both f32. For a
    /// CUDA device it calls [`load_cuda`]; to ask libtorch for one (`Device::cuda_if_available()`), call that first.
    ///
    /// # Errors
    /// If the device is not there or has no memory left.
    fn to_tch(&self, device: Device) -> Result<(Tensor, Tensor)>;
}

impl BatchExt for Batch {
    fn to_tch(&self, device: Device) -> Result<(Tensor, Tensor)> {
        if device.is_cuda() {
            load_cuda()?;
        }
        let tensor = |values: &[f32], shape: &[usize]| -> Result<Tensor> {
            let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
            Ok(Tensor::f_from_slice(values)?.f_view(&shape[..])?.f_to_device(device)?)
        };
        let images = tensor(self.images(), &self.shape())?;
        let targets = tensor(self.targets(), &[self.len(), self.classes()])?;
        Ok((images, targets))
    }
}

//! Tensors of Python's torch as tensors of tch, and back; both are the same libtorch's.

use diver_loaders::{Error, Result};
use diver_python::tensor::{Input, Tensor as Output};
use dlpark::ffi::{DLDataType, DLDevice, DLDeviceType};
use pyo3::prelude::*;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use tch::{Cuda, Device, Kind, TchError, Tensor};

/// A tensor of the caller's, f32 and row-major, for a job on another thread.
///
/// On a GPU, the caller has waited for the device to finish it.
pub struct Given {
    input: Input,
    device: Device,
}

// SAFETY: the package makes a copy with torch for every call, which nothing else refers to. torch lets go of a tensor on
// any thread.
unsafe impl Send for Given {}

impl Given {
    /// Takes over `object`; `what` names it in errors.
    pub fn new(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Self> {
        let input = Input::new(object, what)?;
        let device = input.device();
        let device = match usize::try_from(device.device_id) {
            Ok(index) if device.device_type == DLDeviceType::CUDA => Device::Cuda(index),
            _ => Device::Cpu,
        };
        Ok(Self { input, device })
    }

    /// The tensor itself, without a copy.
    pub fn view(&self) -> Result<View<'_>> {
        let shape: Vec<i64> = self.input.shape().iter().map(|side| *side as i64).collect();
        // SAFETY: the memory holds the values of that shape, row-major and f32 (`Input::new`), on that device, and
        // stays as long as `self`. Nothing here writes to it.
        let tensor =
            unsafe { Tensor::f_from_blob(self.input.as_ptr().cast(), &shape, &[], Kind::Float, self.device) };
        Ok(View { tensor: torch(tensor)?, of: PhantomData })
    }

    /// The values, `[B, 3, H, W]` of a tensor on the CPU, with `H` and `W`.
    pub fn images(&self) -> Result<(&[f32], usize, usize)> {
        let shape = self.input.shape();
        match (shape, self.device) {
            (&[_, _, height, width], Device::Cpu) => {
                // SAFETY: as in `view`, and the memory is the CPU's.
                let values =
                    unsafe { std::slice::from_raw_parts(self.input.as_ptr(), shape.iter().product()) };
                Ok((values, height, width))
            }
            _ => Err(Error::config(
                "images",
                format!("{shape:?} on {:?} is not a batch on the CPU", self.device),
            )),
        }
    }
}

/// A tensor on memory of Python's.
pub struct View<'a> {
    tensor: Tensor,
    of: PhantomData<&'a Given>,
}

impl Deref for View<'_> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        let _ = self.of;
        &self.tensor
    }
}

/// What libtorch returned, with the engine's error.
pub fn torch<T>(result: std::result::Result<T, TchError>) -> Result<T> {
    Ok(result.map_err(diver::Error::from)?)
}

/// A result for Python, once the device has finished it. Nothing else may refer to its memory.
pub fn floats(tensor: &Tensor) -> Result<Output> {
    let tensor = torch(tensor.f_to_kind(Kind::Float).and_then(|tensor| tensor.f_contiguous()))?;
    let device = match tensor.device() {
        Device::Cuda(index) => {
            Cuda::synchronize(index as i64);
            DLDevice::cuda(i32::try_from(index).unwrap_or(i32::MAX))
        }
        _ => DLDevice::CPU,
    };
    let (data, shape) = (tensor.data_ptr(), tensor.size());
    // SAFETY: the memory is the tensor's, which is row-major and f32; it moves along as the owner.
    Ok(unsafe { Output::new(data, DLDataType::of::<f32>(), device, shape, Arc::new(Mutex::new(tensor))) })
}

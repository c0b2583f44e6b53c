//! Tensors on their way out of Rust and into it, by DLPack and without a copy.

use crate::errors::Class;
use dlpark::ffi::{DLDataType, DLDevice, DLManagedTensor, DLManagedTensorVersioned};
use dlpark::metadata::Dynamic;
use dlpark::python::{DlpackExporter, ExportRequest, ImportedDlpack, export_dlpack, from_dlpack};
use dlpark::{DlpackElement, DlpackFlags, Managed, ManagedTensorBase};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

/// Whatever owns a tensor's memory.
pub type Owner = Arc<dyn Any + Send + Sync>;

/// A tensor that Python libraries take over by DLPack (`torch.from_dlpack`, `numpy.from_dlpack`). The memory lives
/// as long as the last tensor on it.
#[pyclass(frozen, module = "diver._engine")]
pub struct Tensor {
    data: *mut c_void,
    dtype: DLDataType,
    device: DLDevice,
    shape: Vec<i64>,
    /// From one place to the next in each dimension, in values; of row-major order where there are none.
    strides: Option<Vec<i64>>,
    owner: Owner,
}

// SAFETY: the memory belongs to `owner`, which may be dropped on any thread; the pointer itself is only handed out.
unsafe impl Send for Tensor {}
// SAFETY: nothing is read or written through the pointer here.
unsafe impl Sync for Tensor {}

impl Tensor {
    /// A tensor of row-major layout.
    ///
    /// # Safety
    /// `data` points to as many values of `dtype` on `device` as `shape` says. As long as `owner` is not dropped,
    /// they stay there, may be read and written from any thread, and nothing in Rust refers to them.
    pub unsafe fn new(
        data: *mut c_void,
        dtype: DLDataType,
        device: DLDevice,
        shape: Vec<i64>,
        owner: Owner,
    ) -> Self {
        Self { data, dtype, device, shape, strides: None, owner }
    }

    /// The same memory with the values of each dimension so far apart, in values.
    ///
    /// # Safety
    /// `strides` has one for each dimension, none of them below 0, and leads to none but the values of [`new`](Self::new).
    pub unsafe fn with_strides(self, strides: Vec<i64>) -> Self {
        Self { strides: Some(strides), ..self }
    }

    /// A tensor on the CPU with the values of a vector, in row-major order.
    ///
    /// # Panics
    /// If there are fewer or more values than `shape` says.
    pub fn from_vec<T>(mut values: Vec<T>, shape: Vec<i64>) -> Self
    where
        T: DlpackElement + Send + Sync + 'static,
    {
        assert_eq!(values.len() as i64, shape.iter().product::<i64>(), "the values make the shape {shape:?}");
        let data = values.as_mut_ptr().cast();
        // SAFETY: as many values as the shape says, on the heap, which do not move when the vector does; nothing else
        // refers to them.
        unsafe { Self::new(data, DLDataType::of::<T>(), DLDevice::CPU, shape, Arc::new(values)) }
    }

    fn managed<M: ManagedTensorBase>(&self) -> PyResult<Managed<M>> {
        let owner = Box::new(Arc::clone(&self.owner));
        let shape = self.shape.as_slice();
        let tensor = match &self.strides {
            Some(strides) => Dynamic::new(shape, strides.as_slice()).initialize_as::<M>(owner),
            None => Dynamic::compact(shape).initialize_as::<M>(owner),
        };
        let mut tensor = tensor.map_err(|error| PyBufferError::new_err(error.to_string()))?;
        tensor.set_data(self.data).set_dtype(self.dtype).set_device(self.device);
        // SAFETY: data, dtype, device, shape and strides go together (`new`, `with_strides`), and the context keeps the memory alive.
        Ok(unsafe { tensor.finish() })
    }
}

impl DlpackExporter for Tensor {
    fn device(&self) -> DLDevice {
        self.device
    }

    fn flags(&self) -> DlpackFlags {
        DlpackFlags::empty()
    }

    fn prepare_export(&self, _py: Python<'_>, _request: &ExportRequest<'_>) -> PyResult<()> {
        // Whoever made the tensor waited for the device to finish it.
        Ok(())
    }

    fn export_legacy(&self, _py: Python<'_>) -> PyResult<Managed<DLManagedTensor>> {
        self.managed()
    }

    fn export_versioned(&self, _py: Python<'_>) -> PyResult<Managed<DLManagedTensorVersioned>> {
        self.managed()
    }
}

#[pymethods]
impl Tensor {
    /// The shape, outermost dimension first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// The DLPack capsule of this tensor, as the array API standard has it.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        export_dlpack(self, py, ExportRequest::parse(stream.as_ref(), max_version, dl_device, copy)?)
    }

    /// `(device type, device id)`, as DLPack numbers them.
    fn __dlpack_device__(&self) -> (u32, i32) {
        (self.device.device_type.0, self.device.device_id)
    }

    fn __repr__(&self) -> String {
        format!("<diver tensor of shape {:?}>", self.shape)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// A dense f32 tensor that came from Python.
pub struct Input {
    data: *const f32,
    device: DLDevice,
    shape: Vec<usize>,
    /// Keeps the memory.
    _tensor: ImportedDlpack,
}

impl Input {
    /// Takes over `object`, which must be row-major and f32. `what` names it in errors.
    ///
    /// # Errors
    /// If it is not, or has no DLPack.
    pub fn new(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Self> {
        let py = object.py();
        let refused = |reason: String| Class::Option.error(py, format!("{what}: {reason}"));
        let tensor = from_dlpack(object.as_borrowed(), None, None).map_err(|error| {
            let exception = refused("it cannot be handed over by DLPack".to_owned());
            exception.set_cause(py, Some(error));
            exception
        })?;
        let view = tensor.validate().map_err(|error| refused(error.to_string()))?;
        if view.dtype() != DLDataType::of::<f32>() {
            return Err(refused("float32 is expected".to_owned()));
        }
        if !view.is_compact().map_err(|error| refused(error.to_string()))? {
            return Err(refused("a contiguous tensor is expected".to_owned()));
        }
        let shape = view.shape().iter().map(|n| usize::try_from(*n));
        let shape = shape.collect::<Result<_, _>>().map_err(|error| refused(error.to_string()))?;
        // SAFETY: a producer's offset lies within its allocation.
        let data = unsafe { view.offset_data_ptr::<f32>() }.map_err(|error| refused(error.to_string()))?;
        Ok(Self { data, device: view.device(), shape, _tensor: tensor })
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The device that the values are on.
    pub fn device(&self) -> DLDevice {
        self.device
    }

    /// The first of the values, aligned. They stay as long as `self`, and may be on another device.
    pub fn as_ptr(&self) -> *const f32 {
        self.data
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("shape", &self.shape).finish_non_exhaustive()
    }
}

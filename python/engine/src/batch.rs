//! What leaves a loader.

use crate::sink::PyBuffer;
use diver_loaders::{Batch as Engine, Dtype};
use diver_python::tensor::{Owner, Tensor};
use dlpark::ffi::{DLDataType, DLDevice};
use pyo3::prelude::*;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// A batch. Its tensors stand on the engine's own buffers, which go back to the engine when the last of them is gone;
/// or its images are in an object of Python's ([`PySink`](crate::sink::PySink)).
#[pyclass(frozen, module = "diver._engine")]
pub struct Batch {
    images: Images,
    targets: Py<Tensor>,
    shape: [usize; 4],
    pub owner: Arc<Engine>,
}

enum Images {
    /// Not here: the program keeps them.
    Held,
    Engine(Py<Tensor>),
    /// None once it was taken.
    Python(Mutex<Option<Py<PyAny>>>),
}

impl Batch {
    pub fn new(py: Python<'_>, mut batch: Engine) -> PyResult<Self> {
        let shape = batch.shape();
        let targets_shape = vec![batch.len() as i64, batch.classes() as i64];
        let dtype = match batch.dtype() {
            Dtype::Float32 => DLDataType::F32,
            Dtype::Float16 => DLDataType::F16,
            Dtype::Bfloat16 => DLDataType::BF16,
            Dtype::Uint8 => DLDataType::U8,
        };
        let strides = batch.strides().map(|n| n as i64).to_vec();
        let buffer: &mut dyn Any = batch.buffer_mut();
        let handed = buffer.downcast_mut::<PyBuffer>().and_then(PyBuffer::hand_over);
        let images = batch.image_bytes_mut().as_mut_ptr();
        let targets = batch.targets_mut().as_mut_ptr();
        let owner = Arc::new(batch);
        let images = match handed {
            Some(object) => Images::Python(Mutex::new(Some(object))),
            None if owner.is_held() => Images::Held,
            None => {
                let (shape, owner): (_, Owner) = (shape.map(|n| n as i64).to_vec(), owner.clone());
                // SAFETY: the values lie in a buffer of the engine's own pool, on the heap, and stay there as long as
                // the batch, which nothing changes or reads again: what is asked of it below are its labels, indices
                // and flags. The strides are those that they were written with.
                let tensor = unsafe {
                    Tensor::new(images.cast(), dtype, DLDevice::CPU, shape, owner).with_strides(strides)
                };
                Images::Engine(Py::new(py, tensor)?)
            }
        };
        let targets = {
            let owner: Owner = owner.clone();
            // SAFETY: as above.
            unsafe { Tensor::new(targets.cast(), DLDataType::F32, DLDevice::CPU, targets_shape, owner) }
        };
        Ok(Self { images, targets: Py::new(py, targets)?, shape, owner })
    }
}

#[pymethods]
impl Batch {
    /// The images, `[B, C, H, W]`; none where they are in an object of Python's.
    #[getter]
    fn images(&self, py: Python<'_>) -> Option<Py<Tensor>> {
        match &self.images {
            Images::Engine(tensor) => Some(tensor.clone_ref(py)),
            Images::Python(_) | Images::Held => None,
        }
    }

    /// The object that the images were written to, from its first byte on: once, for the batch does not keep it.
    fn take_memory(&self) -> Option<Py<PyAny>> {
        match &self.images {
            Images::Engine(_) | Images::Held => None,
            Images::Python(object) => object.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }

    /// `(B, C, H, W)`.
    #[getter]
    fn shape(&self) -> (usize, usize, usize, usize) {
        self.shape.into()
    }

    /// A number for the image of each sample, `[B]`, i64: equal slots have equal images.
    #[getter]
    fn slots(&self) -> Tensor {
        let slots: Vec<i64> = self.owner.slots().iter().map(|slot| *slot as i64).collect();
        let shape = vec![slots.len() as i64];
        Tensor::from_vec(slots, shape)
    }

    /// Whether the images are not here, because the program keeps all of them.
    #[getter]
    fn is_held(&self) -> bool {
        self.owner.is_held()
    }

    /// Target distributions, `[B, classes]`, f32.
    #[getter]
    fn targets(&self, py: Python<'_>) -> Py<Tensor> {
        self.targets.clone_ref(py)
    }

    /// The class of each sample.
    #[getter]
    fn labels(&self) -> Vec<usize> {
        self.owner.labels().to_vec()
    }

    /// The position of each sample in its dataset.
    #[getter]
    fn indices(&self) -> Vec<usize> {
        self.owner.indices().to_vec()
    }

    /// Whether each sample came refined.
    #[getter]
    fn refined(&self) -> Vec<bool> {
        self.owner.refined().to_vec()
    }
}

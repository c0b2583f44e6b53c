//! What leaves a loader.

use diver_loaders::Batch as Engine;
use diver_python::tensor::{Owner, Tensor};
use dlpark::ffi::{DLDataType, DLDevice};
use pyo3::prelude::*;
use std::sync::Arc;

/// A batch. Its tensors stand on the engine's own buffers, which go back to the engine when the last of them is gone.
#[pyclass(frozen, module = "diver._engine")]
pub struct Batch {
    images: Py<Tensor>,
    targets: Py<Tensor>,
    owner: Arc<Engine>,
}

impl Batch {
    pub fn new(py: Python<'_>, mut batch: Engine) -> PyResult<Self> {
        let images = batch.images_mut().as_mut_ptr();
        let targets = batch.targets_mut().as_mut_ptr();
        let images_shape = batch.shape().map(|n| n as i64).to_vec();
        let targets_shape = vec![batch.len() as i64, batch.classes() as i64];
        let owner = Arc::new(batch);
        let tensor = |data: *mut f32, shape| {
            let owner: Owner = owner.clone();
            // SAFETY: the values lie on the heap and stay there as long as the batch, which nothing changes or reads
            // again: what is asked of it below are its labels, indices and flags.
            let tensor =
                unsafe { Tensor::new(data.cast(), DLDataType::of::<f32>(), DLDevice::CPU, shape, owner) };
            Py::new(py, tensor)
        };
        Ok(Self { images: tensor(images, images_shape)?, targets: tensor(targets, targets_shape)?, owner })
    }
}

#[pymethods]
impl Batch {
    /// Normalised images, `[B, C, H, W]`, f32.
    #[getter]
    fn images(&self, py: Python<'_>) -> Py<Tensor> {
        self.images.clone_ref(py)
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

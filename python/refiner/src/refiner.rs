//! The refiner as a Python object.

use crate::handle::{self, Handle};
use crate::knobs;
use crate::stages::{self, Keys};
use crate::tensors::Given;
use crate::waiting::{self, Deaf, Listener};
use diver::Knobs;
use diver_loaders::cli::RefinerArgs;
use diver_loaders::options::from_json;
use diver_loaders::refine::Progress;
use diver_loaders::{CancelToken, Error, Refine, Result};
use diver_python::errors::to_python;
use diver_python::tensor::Tensor;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::Device;

/// A refiner on a thread of its own. Its methods wait for that thread without the interpreter, and answer Ctrl-C.
#[pyclass(frozen, module = "diver_refiner._refiner")]
pub struct Refiner {
    handle: Handle,
    knobs: Knobs,
    description: String,
    preferred_batch: Arc<AtomicUsize>,
}

/// What is said of a refiner once it is there.
struct Loaded {
    knobs: Knobs,
    description: String,
    preferred_batch: usize,
}

impl Loaded {
    fn of(refiner: &diver::Refiner) -> Result<Self> {
        let backbone = refiner.backbone()?;
        let network = backbone.network();
        let device = match refiner.device() {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        };
        let description = serde_json::json!({
            "fingerprint": refiner.fingerprint(),
            "knobs": knobs::every(refiner.knobs()),
            "model": network.family().as_str(),
            "num_classes": network.num_classes(),
            "device": device,
            "resolution": backbone.resolution(),
            "latent": network.latent(),
        });
        Ok(Self {
            knobs: refiner.knobs().clone(),
            description: description.to_string(),
            preferred_batch: refiner.preferred_batch(),
        })
    }
}

#[pymethods]
impl Refiner {
    /// The refiner that `args` asks for: `diver_loaders::cli::RefinerArgs` as JSON.
    #[staticmethod]
    #[pyo3(signature = (args, cancel=None))]
    fn load(py: Python<'_>, args: &str, cancel: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let args: RefinerArgs = from_json(args).map_err(|error| to_python(py, &error))?;
        let handle = Handle::start(py)?;
        let loaded = handle.run(py, &Engine { cancel, progress: None }, move |slot, cancel, _| {
            Loaded::of(slot.insert(diver::Refiner::from_args(&args, cancel)?))
        })?;
        Ok(Self {
            handle,
            knobs: loaded.knobs,
            description: loaded.description,
            preferred_batch: Arc::new(AtomicUsize::new(loaded.preferred_batch)),
        })
    }

    /// What does not change, as JSON.
    #[getter]
    fn description(&self) -> &str {
        &self.description
    }

    /// How many images go through the networks at a time.
    #[getter]
    fn preferred_batch(&self) -> usize {
        self.preferred_batch.load(Ordering::Relaxed)
    }

    /// Refuses a refiner that was closed or belongs to another process.
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.check_open(py)
    }

    /// Images to latents.
    fn encode(&self, py: Python<'_>, images: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let images = Given::new(images, "images")?;
        self.run(py, &Deaf, move |refiner, cancel, _| stages::encode(refiner, &images, cancel))
    }

    /// Latents to refined ones. Where no noise is given, with that of `keys` (without them, of the rows' digests) and
    /// `variants`, one for each row.
    #[allow(clippy::too_many_arguments)] // A stage with all that it depends on.
    fn sample_latents(
        &self,
        py: Python<'_>,
        z0: &Bound<'_, PyAny>,
        labels: Vec<usize>,
        noise: Option<&Bound<'_, PyAny>>,
        keys: Option<&[u8]>,
        variants: Vec<u32>,
        knobs: &str,
    ) -> PyResult<Tensor> {
        let knobs = from_json(knobs).map_err(|error| to_python(py, &error))?;
        let z0 = Given::new(z0, "z0")?;
        let noise = noise.map(|noise| Given::new(noise, "noise")).transpose()?;
        let keys = Keys::new(keys, variants);
        self.run(py, &Deaf, move |refiner, cancel, progress| {
            stages::sample_latents(refiner, knobs, &z0, &labels, noise.as_ref(), keys, cancel, progress)
        })
    }

    /// Latents to images.
    fn decode(&self, py: Python<'_>, z: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let z = Given::new(z, "z")?;
        self.run(py, &Deaf, move |refiner, cancel, _| stages::decode(refiner, &z, cancel))
    }

    /// Images to refined ones. `keys` are digests of 32 bytes, one after the other.
    fn refine(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        labels: Vec<usize>,
        keys: Option<&[u8]>,
        variants: Vec<u32>,
        knobs: &str,
    ) -> PyResult<Tensor> {
        let knobs = from_json(knobs).map_err(|error| to_python(py, &error))?;
        let images = Given::new(images, "images")?;
        let keys = Keys::new(keys, variants);
        self.run(py, &Deaf, move |refiner, cancel, progress| {
            stages::refine(refiner, knobs, &images, &labels, keys, cancel, progress)
        })
    }

    /// Images on the CPU to the bytes of refined ones, as the engine has them made.
    #[allow(clippy::too_many_arguments)] // A stage with all that it depends on.
    fn refine_bytes(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        labels: Vec<usize>,
        keys: &[u8],
        variants: Vec<u32>,
        cancel: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Tensor> {
        let images = Given::new(images, "images")?;
        let (knobs, keys) = (self.knobs.clone().into(), Keys::new(Some(keys), variants));
        let preferred_batch = Arc::clone(&self.preferred_batch);
        self.run(py, &Engine { cancel, progress }, move |refiner, cancel, progress| {
            let bytes = stages::refine_bytes(refiner, knobs, &images, &labels, keys, cancel, progress);
            // Smaller from now on if memory ran out.
            preferred_batch.store(refiner.preferred_batch(), Ordering::Relaxed);
            bytes
        })
    }

    /// Gives the networks' memory back until they are needed again; whether it did. A refiner that is at work is left
    /// alone: what waits for it here could not be closed meanwhile.
    fn release(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.handle.is_idle() {
            return Ok(false);
        }
        self.run(py, &Deaf, |refiner, _, _| {
            refiner.release();
            Ok(true)
        })
    }

    /// Ends the thread: cancels what runs, and waits for it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.close(py)
    }
}

impl Refiner {
    fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        listener: &impl Listener,
        work: impl FnOnce(&mut diver::Refiner, &CancelToken, &dyn Progress) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        self.handle.run(py, listener, |slot, cancel, progress| match slot {
            Some(refiner) => work(refiner, cancel, progress),
            None => Err(Error::config("refiner", "it was not read")),
        })
    }
}

/// The engine, which may cancel and wants to hear of steps.
struct Engine<'a, 'py> {
    cancel: Option<&'a Bound<'py, PyAny>>,
    progress: Option<&'a Bound<'py, PyAny>>,
}

impl Listener for Engine<'_, '_> {
    fn step(&self, _py: Python<'_>, done: usize, total: usize) -> PyResult<()> {
        self.progress.map_or(Ok(()), |progress| progress.call1((done, total)).map(drop))
    }

    fn slice(&self, _py: Python<'_>) -> PyResult<()> {
        self.cancel.map_or(Ok(()), waiting::check)
    }
}

/// Ends the threads of all refiners of this process, those included whose callers were interrupted.
#[pyfunction]
pub fn close_all(py: Python<'_>) -> PyResult<()> {
    handle::close_all(py)
}

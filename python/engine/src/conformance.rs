//! The engine's conformance suites, for refiners and teachers written in Python.

use crate::refiner::PyRefine;
use crate::teacher::PyTeach;
use diver_loaders::refine::{self, Progress, RawBatch};
use diver_loaders::teach::{self, TeachBatch};
use diver_loaders::{CancelToken, Conditioning, Refine, Result, RgbImage, Teach};
use diver_python::wait::{self, AtExit};
use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;

/// Runs every check of the suite against `adapter` with images of `side` x `side` and the given known classes.
#[pyfunction]
pub fn check_refiner(
    py: Python<'_>,
    adapter: &Bound<'_, PyAny>,
    side: usize,
    classes: Vec<usize>,
) -> PyResult<()> {
    let conditionings: Vec<_> = classes.into_iter().map(Conditioning::Class).collect();
    checked(py, PyRefine::new(adapter)?, move |refiner| {
        refine::conformance::try_check(refiner, side, &conditionings)
    })
}

/// Runs every check of the suite against `adapter` with images of `shape`, `[C, H, W]`. Logits that must agree may lie
/// apart by `tolerance` times the largest one.
#[pyfunction]
pub fn check_teacher(
    py: Python<'_>,
    adapter: &Bound<'_, PyAny>,
    shape: [usize; 3],
    tolerance: f32,
) -> PyResult<()> {
    checked(py, PyTeach::new(adapter)?, move |teacher| {
        teach::conformance::try_check(teacher, shape, tolerance)
    })
}

/// Runs a suite on a thread of its own, so that Ctrl-C is answered.
fn checked<T: Send + 'static>(
    py: Python<'_>,
    callee: T,
    suite: impl FnOnce(&mut Stoppable<T>) -> Result<(), String> + Send + 'static,
) -> PyResult<()> {
    let stop = CancelToken::new();
    let mut callee = Stoppable { callee, stop: stop.clone() };
    let check = move || suite(&mut callee);
    wait::on_thread(py, "diver-check", AtExit::Wait, &stop, check)?.map_err(PyAssertionError::new_err)
}

/// Refuses calls once it was stopped, which ends the suite. Its fingerprint is the one that the object has now: the
/// suites ask whether it changes.
struct Stoppable<T> {
    callee: T,
    stop: CancelToken,
}

impl Refine for Stoppable<PyRefine> {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        self.callee.read_fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        self.callee.preferred_batch()
    }

    fn num_classes(&self) -> Option<usize> {
        self.callee.num_classes()
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        self.callee.check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        self.stop.check()?;
        self.callee.refine(batch, cancel, progress)
    }

    fn release(&mut self) {
        self.callee.release();
    }
}

impl Teach for Stoppable<PyTeach> {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        self.callee.read_fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        self.callee.preferred_batch()
    }

    fn num_classes(&self) -> Option<usize> {
        self.callee.num_classes()
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
        self.stop.check()?;
        self.callee.teach(images, cancel)
    }

    fn release(&mut self) {
        self.callee.release();
    }
}

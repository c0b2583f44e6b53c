//! The engine's conformance suite, for refiners written in Python.

use crate::refiner::PyRefine;
use diver_loaders::refine::{Progress, RawBatch, conformance};
use diver_loaders::{CancelToken, Conditioning, Refine, Result, RgbImage};
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
    let stop = CancelToken::new();
    let mut refiner = Stoppable { refiner: PyRefine::new(adapter)?, stop: stop.clone() };
    let conditionings: Vec<_> = classes.into_iter().map(Conditioning::Class).collect();
    let check = move || conformance::try_check(&mut refiner, side, &conditionings);
    wait::on_thread(py, "diver-check", AtExit::Wait, &stop, check)?.map_err(PyAssertionError::new_err)
}

/// Refuses calls once it was stopped, which ends the suite.
struct Stoppable {
    refiner: PyRefine,
    stop: CancelToken,
}

impl Refine for Stoppable {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        // As it is now: the suite asks whether it changes.
        self.refiner.read_fingerprint().ok().flatten()
    }

    fn preferred_batch(&self) -> usize {
        self.refiner.preferred_batch()
    }

    fn num_classes(&self) -> Option<usize> {
        self.refiner.num_classes()
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        self.refiner.check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        self.stop.check()?;
        self.refiner.refine(batch, cancel, progress)
    }

    fn release(&mut self) {
        self.refiner.release();
    }
}

//! Samples as a refiner sees them.

use crate::source::Source;
use diver_loaders::{CancelToken, Error, Result};
use diver_python::errors::to_python;
use diver_python::tensor::Tensor;
use diver_python::wait::{self, AtExit};
use pyo3::prelude::*;
use std::sync::Arc;

/// The pixels of some samples of `source`, `[N, 3, H, W]`, in [0, 1].
#[pyfunction]
pub fn source_pixels(py: Python<'_>, source: &Source, indices: Vec<usize>) -> PyResult<Tensor> {
    let set = Arc::clone(&source.0);
    let [_, height, width] = set.info().shape;
    let shape = [indices.len(), 3, height, width];
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let read = move || pixels(&*set, &indices, shape, &token);
    let pixels = wait::on_thread(py, "diver-pixels", AtExit::Abandon, &cancel, read)?;
    let pixels = pixels.map_err(|error| to_python(py, &error))?;
    Ok(Tensor::from_vec(pixels, shape.map(|side| side as i64).to_vec()))
}

fn pixels(
    set: &dyn diver_loaders::Source,
    indices: &[usize],
    shape: [usize; 4],
    cancel: &CancelToken,
) -> Result<Vec<f32>> {
    let mut pixels = Vec::new();
    let values = shape.into_iter().try_fold(1_usize, usize::checked_mul);
    if values.is_none_or(|values| pixels.try_reserve_exact(values).is_err()) {
        let reason = format!("there is no memory for the pixels of {} samples: take fewer", indices.len());
        return Err(Error::config("indices", reason));
    }
    for index in indices {
        cancel.check()?;
        pixels.extend(set.sample(*index)?.to_pixels(&set.value_space(*index))?);
    }
    Ok(pixels)
}

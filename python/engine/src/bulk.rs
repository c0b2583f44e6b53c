//! Whole sets at once: refined into a cache, looked at, exported.

use crate::cache::Cache;
use crate::refiner::PyRefine;
use crate::source::Source;
use diver_loaders::export::{ExportFormat, export_raw, export_refined};
use diver_loaders::refine::{Meter, Refining};
use diver_loaders::{CancelToken, Preview, Refinery, Result, RgbImage};
use diver_python::errors::to_python;
use diver_python::wait::{AtExit, Task};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

/// Refines what the cache lacks of a share of a set, `share` of so many. Returns how many images it had, how many were
/// refined, and how many seconds the refiner worked.
#[pyfunction]
#[pyo3(signature = (source, refiner, cache, variants, share, progress))]
pub fn refine(
    py: Python<'_>,
    source: &Source,
    refiner: &Bound<'_, PyAny>,
    cache: &Cache,
    variants: NonZero<u32>,
    share: (usize, NonZero<usize>),
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, usize, f64)> {
    let (source, refiner, cache) = (Arc::clone(&source.0), PyRefine::new(refiner)?, cache.0.clone());
    let summary = metered(py, progress, move |cancel, meter| {
        let mut refinery = Refinery::with_variants(source, refiner, Some(&cache), variants)?;
        let indices = (share.0..refinery.num_samples()).step_by(share.1.get());
        refinery.run(indices, cancel, meter)
    })?;
    Ok((summary.cached, summary.refined, summary.refine_seconds))
}

/// The first images of each class, raw above refined where there is a refiner: a picture's height, width and bytes
/// `[height, width, 3]`.
#[pyfunction]
#[pyo3(signature = (source, refiner, cache, per_class, scale, progress))]
pub fn preview<'py>(
    py: Python<'py>,
    source: &Source,
    refiner: Option<&Bound<'_, PyAny>>,
    cache: Option<&Cache>,
    per_class: usize,
    scale: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, usize, Bound<'py, PyBytes>)> {
    let (source, cache) = (Arc::clone(&source.0), cache.map(|cache| cache.0.clone()));
    let refiner = refiner.map(PyRefine::new).transpose()?;
    let image: RgbImage = metered(py, progress, move |cancel, meter| {
        let preview = Preview::of(source, per_class)?;
        match refiner {
            Some(refiner) => preview.refined(refiner, cache.as_ref(), scale, cancel, meter),
            None => preview.raw(scale),
        }
    })?;
    Ok((image.height(), image.width(), PyBytes::new(py, image.as_bytes())))
}

/// Exports a set, raw or refined. Returns how many samples there were, and what the format does not hold.
#[pyfunction]
#[pyo3(signature = (source, to, folder, refiner, cache, progress))]
pub fn export(
    py: Python<'_>,
    source: &Source,
    to: &str,
    folder: PathBuf,
    refiner: Option<&Bound<'_, PyAny>>,
    cache: Option<&Cache>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, Vec<String>)> {
    let to: ExportFormat = to.parse().map_err(|error| to_python(py, &error))?;
    let (source, cache) = (Arc::clone(&source.0), cache.map(|cache| cache.0.clone()));
    let refiner = refiner.map(PyRefine::new).transpose()?;
    let exported = metered(py, progress, move |cancel, meter| match refiner {
        Some(refiner) => export_refined(source, refiner, cache.as_ref(), to, &folder, cancel, meter),
        None => export_raw(&source, to, &folder, cancel),
    })?;
    Ok((exported.samples, exported.notes))
}

/// Does `work` on a thread of its own, so that Ctrl-C ends it, and calls `progress` meanwhile with how far it is: what is
/// done, how much is done, of how much, and the seconds that are left.
fn metered<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&CancelToken, &Meter) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (cancel, meter) = (CancelToken::new(), Arc::new(Meter::default()));
    let (token, hears) = (cancel.clone(), Arc::clone(&meter));
    let task = Task::start(py, "diver-bulk", AtExit::Wait, cancel, move || work(&token, &hears))?;
    let mut told = None;
    let result = task.result_while(py, &mut || match (progress, meter.read()) {
        (Some(progress), now @ Some(Refining { done, total, eta_seconds })) if now != told => {
            told = now;
            progress.call1(("refining", done, total, eta_seconds)).map(drop)
        }
        _ => Ok(()),
    })?;
    let result = result.map_err(|error| to_python(py, &error))?;
    // What came of it between two looks.
    if let (Some(progress), now @ Some(Refining { done, total, eta_seconds })) = (progress, meter.read())
        && now != told
    {
        progress.call1(("refining", done, total, eta_seconds))?;
    }
    Ok(result)
}

//! Refined images on disk.

use crate::refiner::PyRefine;
use crate::source::Source;
use diver_loaders::cache::Rules;
use diver_loaders::options::{Amount, Span};
use diver_loaders::{CancelToken, Error, Refinery};
use diver_python::errors::{Class, to_python};
use diver_python::wait::{self, AtExit};
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A folder of refined images.
#[pyclass(frozen, module = "diver._engine")]
pub struct Cache(pub diver_loaders::Cache);

#[pymethods]
impl Cache {
    /// `options` are `diver_loaders::cache::CacheOptions` as JSON.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, options: &str) -> PyResult<Self> {
        let options = diver_loaders::options::from_json(options).map_err(|error| to_python(py, &error))?;
        let open = move || diver_loaders::Cache::open(&folder)?.with_options(options);
        // A bucket may take a while to say that it is not there.
        let opened = wait::on_thread(py, "diver-cache", AtExit::Abandon, &CancelToken::new(), open)?;
        opened.map(Self).map_err(|error| to_python(py, &error))
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.root()
    }

    /// What the cache holds: a JSON list of `diver_loaders::cache::Listing`.
    #[pyo3(signature = (source=None))]
    fn ls(&self, py: Python<'_>, source: Option<&Source>) -> PyResult<String> {
        let source = source.map(|source| Arc::clone(&source.0));
        self.told(py, |cache, cancel| match source {
            Some(source) => Ok(json!(cache.list_for(source, cancel)?)),
            None => Ok(json!(cache.list()?)),
        })
    }

    /// What the cache has of a set as a refiner would refine it: JSON of `diver_loaders::cache::Explanation`.
    fn explain(&self, py: Python<'_>, source: &Source, refiner: &Bound<'_, PyAny>) -> PyResult<String> {
        let (source, refiner) = (Arc::clone(&source.0), PyRefine::new(refiner)?);
        self.told(py, move |cache, cancel| {
            Ok(json!(Refinery::new(source, refiner, None)?.explain(cache, cancel)?))
        })
    }

    /// Decodes everything: JSON of `diver_loaders::cache::Verified`.
    fn verify(&self, py: Python<'_>) -> PyResult<String> {
        self.told(py, |cache, cancel| Ok(json!(cache.verify(cancel, &|_, _| ())?)))
    }

    /// Gathers small parts: JSON of `diver_loaders::cache::Compacted`.
    fn compact(&self, py: Python<'_>) -> PyResult<String> {
        self.told(py, |cache, cancel| Ok(json!(cache.compact(cancel)?)))
    }

    /// Makes room: a JSON list of `diver_loaders::cache::Evicted`. `keep` is in bytes, `older` in seconds.
    fn gc(
        &self,
        py: Python<'_>,
        keep: Option<u64>,
        older: Option<f64>,
        fingerprints: Vec<String>,
        apply: bool,
    ) -> PyResult<String> {
        let unused_for = older.map(|seconds| duration(py, "older", seconds)).transpose()?;
        let rules = Rules { keep_bytes: keep, unused_for, fingerprints };
        self.told(py, move |cache, cancel| Ok(json!(cache.gc(&rules, apply, cancel)?)))
    }
}

impl Cache {
    /// Does `work` on a thread of its own, so that Ctrl-C ends it, and returns the result as JSON.
    fn told(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&diver_loaders::Cache, &CancelToken) -> Result<Value, Error> + Send + 'static,
    ) -> PyResult<String> {
        let (cache, cancel) = (self.0.clone(), CancelToken::new());
        let token = cancel.clone();
        let told =
            wait::on_thread(py, "diver-cache", AtExit::Abandon, &cancel, move || work(&cache, &token))?;
        told.map(|json| json.to_string()).map_err(|error| to_python(py, &error))
    }
}

fn duration(py: Python<'_>, name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| Class::Option.error(py, format!("{name}: {seconds} s: {error}")))
}

/// The number of bytes in a text such as "20GB", for the option `name`.
#[pyfunction]
pub fn parse_size(py: Python<'_>, name: &str, text: &str) -> PyResult<u64> {
    let parsed = text.parse().map(|Amount(bytes)| bytes);
    parsed.map_err(|reason| Class::Option.error(py, format!("{name}: {reason}")))
}

/// The number of seconds in a text such as "30d", for the option `name`.
#[pyfunction]
pub fn parse_duration(py: Python<'_>, name: &str, text: &str) -> PyResult<f64> {
    let parsed = text.parse().map(|Span(time)| time.as_secs_f64());
    parsed.map_err(|reason| Class::Option.error(py, format!("{name}: {reason}")))
}

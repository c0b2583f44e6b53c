//! The loader.

use crate::augment::Augment;
use crate::batch::Batch;
use crate::cache::Cache;
use crate::labels::Targets;
use crate::mix::Mix;
use crate::refiner::PyRefine;
use crate::sink::PySink;
use crate::source::Source;
use crate::teacher::PyTeach;
use diver_loaders::cache::LogitForm;
use diver_loaders::options::from_json;
use diver_loaders::{CancelToken, Loader as Engine, Per, Refining, Stats};
use diver_python::errors::{Class, to_python};
use diver_python::wait::{self, AtExit, SLICE};
use pyo3::prelude::*;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::thread::ThreadId;
use std::time::Duration;

/// A teacher's adapter, whether it labels views, and how its logits are stored: whether in float16, and how many.
type Asked<'py> = (Bound<'py, PyAny>, bool, bool, Option<NonZero<usize>>);

/// A loader with its threads. It belongs to the process that made it.
#[pyclass(frozen, module = "diver._engine")]
pub struct Loader {
    engine: Mutex<Option<Engine>>,
    /// Set before the engine is taken away, so that a `next` that waits for a batch gives up.
    closed: AtomicBool,
    process: u32,
    threads: Vec<ThreadId>,
    /// Batches of an epoch, as it was asked last: known in a forked child and once the loader is closed, too.
    batches: AtomicUsize,
    class_map: Option<Vec<usize>>,
    /// Where images are written, if that is memory from Python.
    sink: Option<PySink>,
    /// What it had done when it was closed.
    last: Mutex<Option<Stats>>,
}

#[pymethods]
impl Loader {
    /// `shard` is this process's rank and the number of ranks; `options` the JSON object of `diver_loaders::LoaderOptions`;
    /// `allocate` the function of a `PySink`.
    #[new]
    #[pyo3(signature = (source, options, *, refiner, cache, mix, targets, teacher, augment, allocate, is_resident, shard))]
    #[allow(clippy::too_many_arguments)] // In Python most are keywords.
    fn new(
        py: Python<'_>,
        source: &Source,
        options: &str,
        refiner: Option<Bound<'_, PyAny>>,
        cache: Option<&Cache>,
        mix: Option<&Mix>,
        targets: &Targets,
        teacher: Option<Asked<'_>>,
        augment: &Augment,
        allocate: Option<Py<PyAny>>,
        is_resident: bool,
        shard: (usize, usize),
    ) -> PyResult<Self> {
        let options = from_json(options).map_err(|error| to_python(py, &error))?;
        let mut builder = Engine::builder(Arc::clone(&source.0)).options(options).shard(shard.0, shard.1);
        builder = builder.labels(targets.0).augment(augment.0.clone()).resident(is_resident);
        if let Some(refiner) = refiner {
            builder = builder.refiner(PyRefine::new(&refiner)?);
        }
        if let Some(cache) = cache {
            builder = builder.cache(cache.0.clone());
        }
        if let Some(mix) = mix {
            builder = builder.mix(mix.0.clone());
        }
        if let Some((teacher, is_view, half, top_k)) = teacher {
            let per = if is_view { Per::View } else { Per::Image };
            let form = LogitForm { half, top_k };
            builder = builder.teacher(PyTeach::new(&teacher)?, per).logit_form(form);
        }
        let sink = allocate.map(PySink::new);
        if let Some(sink) = &sink {
            builder = builder.sink(sink.clone());
        }
        // A cache with many parts takes a while to open.
        let engine = wait::on_thread(py, "diver-build", AtExit::Abandon, &CancelToken::new(), move || {
            builder.build()
        })?
        .map_err(|error| to_python(py, &error))?;
        Ok(Self {
            batches: AtomicUsize::new(engine.len()),
            class_map: engine.info().class_map.as_indices().map(<[usize]>::to_vec),
            threads: engine.threads(),
            engine: Mutex::new(Some(engine)),
            last: Mutex::default(),
            closed: AtomicBool::new(false),
            process: std::process::id(),
            sink,
        })
    }

    /// Batches of the epoch that comes next or is under way.
    fn __len__(&self, py: Python<'_>) -> usize {
        if let Ok(batches) = self.with(py, |engine| engine.len()) {
            self.batches.store(batches, Ordering::Release);
        }
        self.batches.load(Ordering::Acquire)
    }

    /// The refiner's class for each label; none if they are the same.
    #[getter]
    fn class_map(&self) -> Option<Vec<usize>> {
        self.class_map.clone()
    }

    /// Goes to the next epoch and returns its number.
    fn start_epoch(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, Engine::start_epoch)
    }

    /// Goes to the first batch of `epoch`, or stays where a saved state stands in it.
    fn set_epoch(&self, py: Python<'_>, epoch: u64) -> PyResult<()> {
        self.with(py, |engine| {
            engine.epoch(epoch);
        })
    }

    /// The next batch of `epoch`; none once the loader stands in another. While it is waited for, `progress` is called
    /// with how far the work is: its stage, how much is done, of how much, and the seconds that are left.
    #[pyo3(signature = (epoch, progress))]
    fn next_batch(
        &self,
        py: Python<'_>,
        epoch: u64,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Batch>> {
        self.check(py)?;
        self.check_thread(py)?;
        let mut polled = self.poll_at_once(epoch);
        let mut told = None;
        loop {
            if let (Some(progress), Poll::Pending) = (progress, &polled)
                && let Some(stats) = py.detach(|| self.lock().as_ref().map(Engine::stats))
            {
                told = tell(progress, &stats, told)?;
            }
            match polled {
                Poll::Ready(Some(Ok(batch))) => {
                    if let Some(sink) = self.sink.as_ref().filter(|_| !batch.is_held()) {
                        sink.refill(py);
                    }
                    return Batch::new(py, batch).map(Some);
                }
                Poll::Ready(Some(Err(error))) => return Err(to_python(py, &error)),
                Poll::Ready(None) => return Ok(None),
                Poll::Pending => {}
            }
            py.check_signals()?;
            self.check(py)?;
            polled = py.detach(|| match self.lock().as_mut() {
                Some(engine) => engine.poll_batch(epoch, SLICE),
                None => Poll::Pending,
            });
        }
    }

    /// Takes note that the program keeps the images of a batch.
    fn hold(&self, py: Python<'_>, batch: &Batch) -> PyResult<()> {
        self.with(py, |engine| engine.hold(&batch.owner))
    }

    /// Where the loader stands, as JSON.
    fn state(&self, py: Python<'_>) -> PyResult<String> {
        let state = self.with(py, |engine| engine.state())?;
        serde_json::to_string(&state).map_err(|error| Class::Internal.error(py, error.to_string()))
    }

    /// Goes to where the loader stood that `state`, JSON, was taken from.
    fn load_state(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        // By way of a value, whose errors do not speak of lines and columns.
        let state = serde_json::from_str::<serde_json::Value>(state)
            .and_then(serde_json::from_value)
            .map_err(|error| Class::State.error(py, format!("not a loader state: {error}")))?;
        self.with(py, |engine| engine.load_state(&state))?.map_err(|error| to_python(py, &error))
    }

    /// What the loader has done so far, as JSON.
    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        let last = *self.last();
        let stats = match last {
            Some(stats) => stats,
            None => self.with(py, |engine| engine.stats())?,
        };
        serde_json::to_string(&stats).map_err(|error| Class::Internal.error(py, error.to_string()))
    }

    /// Ends the loader's threads and waits for them. Nothing happens if it is closed already, or in a forked child.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_foreign() {
            return Ok(());
        }
        self.check_thread(py)?;
        self.closed.store(true, Ordering::Release);
        let Some(engine) = py.detach(|| self.lock().take()) else { return Ok(()) };
        *self.last() = Some(engine.stats());
        // Its refiner or teacher may be in the middle of a call, which may be a long one if it is written in Python.
        wait::on_thread(py, "diver-close", AtExit::Wait, &CancelToken::new(), move || drop(engine))?;
        self.sink.iter().for_each(PySink::release);
        Ok(())
    }

    /// As `close`, and says what the loader did, as JSON; an error if the cache has not taken all that was made.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        self.check(py)?;
        self.check_thread(py)?;
        self.closed.store(true, Ordering::Release);
        let Some(engine) = py.detach(|| self.lock().take()) else {
            return Err(Class::Closed.error(py, "the loader is closed: make a new one"));
        };
        let stats =
            wait::on_thread(py, "diver-close", AtExit::Wait, &CancelToken::new(), move || engine.finish())?
                .map_err(|error| to_python(py, &error))?;
        serde_json::to_string(&stats).map_err(|error| Class::Internal.error(py, error.to_string()))
    }

    /// Whether the loader was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// How far a work was when it was told of: its stage, how much was done, and in which hundredth of the time it was.
type Told = (&'static str, usize, i64);

/// Calls `progress` if there is something to wait for, and something new to say of it.
fn tell(progress: &Bound<'_, PyAny>, stats: &Stats, told: Option<Told>) -> PyResult<Option<Told>> {
    let teaching = stats.queues.teaching;
    let (stage, done, total, eta) = match stats.refining {
        Some(Refining { done, total, eta_seconds }) if done < total => ("refining", done, total, eta_seconds),
        _ if teaching > 0 => {
            let done = usize::try_from(stats.taught).unwrap_or(usize::MAX);
            ("labelling", done, done.saturating_add(teaching), None)
        }
        _ => return Ok(told),
    };
    let now = (stage, done, eta.map_or(-1, |eta| eta.ceil() as i64));
    if told != Some(now) {
        progress.call1((stage, done, total, eta))?;
    }
    Ok(Some(now))
}

impl Loader {
    /// The engine does not panic while it is locked, and stays whole if it did.
    fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Stats>> {
        // Every update leaves it whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_foreign(&self) -> bool {
        std::process::id() != self.process
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_foreign() {
            let message = format!(
                "this loader was made by process {} and cannot be used in its child {}, which has none of its \
                 threads: make a loader there (diver needs no worker processes of its own)",
                self.process,
                std::process::id()
            );
            return Err(Class::Closed.error(py, message));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Class::Closed.error(py, "the loader is closed: make a new one"));
        }
        Ok(())
    }

    /// A refiner or a teacher that waits for the loader that waits for it would wait forever.
    fn check_thread(&self, py: Python<'_>) -> PyResult<()> {
        if self.threads.contains(&std::thread::current().id()) {
            return Err(Class::Closed
                .error(py, "a refiner or a teacher cannot use or close the loader that waits for it"));
        }
        Ok(())
    }

    /// What a batch that is ready costs must be little: it is looked for without letting the interpreter go.
    fn poll_at_once(&self, epoch: u64) -> Poll<Option<diver_loaders::Result<diver_loaders::Batch>>> {
        let mut engine = match self.engine.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Poll::Pending,
        };
        match engine.as_mut() {
            Some(engine) => engine.poll_batch(epoch, Duration::ZERO),
            None => Poll::Pending,
        }
    }

    fn with<T: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut Engine) -> T + Send) -> PyResult<T> {
        self.check(py)?;
        let done = py.detach(|| self.lock().as_mut().map(f));
        done.ok_or_else(|| Class::Closed.error(py, "the loader is closed: make a new one"))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let engine = self.engine.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.is_foreign() {
            // The threads to wait for are the parent's.
            std::mem::forget(engine);
        } else if let Some(engine) = engine {
            // Not here: a refiner or a teacher may be in the middle of a call, and garbage is collected on any thread,
            // theirs too. Without an interpreter the process ends, and its threads with it.
            let mut engine = Some(engine);
            Python::try_attach(|py| {
                let engine = engine.take();
                // Where no thread can be started, the engine has been dropped.
                wait::in_background(py, "diver-close", move || drop(engine))
            });
            std::mem::forget(engine);
        }
    }
}

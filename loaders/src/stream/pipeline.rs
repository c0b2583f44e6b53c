//! The threads of a loader: a few that assemble batches, and three around the refiner.

use super::batch::Batch;
use super::shared::Shared;
use super::stages::{Fetch, Labeller, Lesson, LookAhead, Order, Refining, Request, Signs, Teaching};
use super::want::Position;
use super::worker::Worker;
use crate::refine::{Finder, Keeper, Keeping};
use crate::stats::{Queues, Stats};
use crate::{CancelToken, Error, Refine, Result, Teach};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, ThreadId};

/// A batch to be assembled.
struct Job {
    position: Position,
    /// Jobs of a round before the pipeline's current one are forgotten.
    round: u64,
    reply: Sender<Result<Batch>>,
}

/// Threads made once for a loader, joined when it is dropped.
pub(super) struct Pipeline {
    jobs: Option<Sender<Job>>,
    /// Wakes the thread that looks ahead, where there is one.
    requests: Option<Sender<Vec<Request>>>,
    /// To the teacher's thread, where there is one.
    lessons: Option<Sender<Vec<Lesson>>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    cancel: CancelToken,
    /// How often the consumer has turned elsewhere.
    current: Arc<AtomicU64>,
}

impl Pipeline {
    pub(super) fn start(
        shared: Shared,
        refiner: Option<Box<dyn Refine>>,
        teacher: Option<Box<dyn Teach>>,
        workers: usize,
    ) -> Result<Self> {
        let shared = Arc::new(shared);
        let (jobs, job_queue) = unbounded();
        let current = Arc::<AtomicU64>::default();
        // When the last sender ends, so do the threads around the refiner.
        let (requests, request_queue) = unbounded();
        let mut pipeline = Self {
            jobs: Some(jobs),
            requests: Some(requests),
            lessons: None,
            cancel: shared.cancel.clone(),
            shared,
            threads: Vec::new(),
            current,
        };
        if let Some(refiner) = refiner {
            pipeline.start_refining(refiner, request_queue)?;
        }
        if let Some(teacher) = teacher {
            let (lessons, queue) = unbounded();
            let teaching = Teaching { shared: Arc::clone(&pipeline.shared), teacher, lessons: queue };
            pipeline.spawn("diver-teach".into(), move || teaching.run())?;
            pipeline.lessons = Some(lessons);
        }
        for worker in 0..workers {
            pipeline.start_worker(worker, job_queue.clone())?;
        }
        Ok(pipeline)
    }

    fn start_refining(&mut self, refiner: Box<dyn Refine>, requests: Receiver<Vec<Request>>) -> Result<()> {
        let shared = &self.shared;
        let (dataset, store) = (Arc::clone(&shared.dataset), Arc::clone(&shared.store));
        let class_names = dataset.info().names();
        let finder = Finder { dataset, store: Arc::clone(&store), counters: Arc::clone(&shared.counters) };
        // One that is ready waits in the hands of whoever made it.
        let (orders, order_queue) = bounded::<Order>(0);
        let (keeper, keeping) = Keeper::new();
        let counters = Arc::clone(&shared.counters);
        let signs = Arc::new(Signs::new(&*refiner));
        let look_ahead = LookAhead {
            shared: Arc::clone(shared),
            finder: finder.clone(),
            requests,
            orders,
            signs: Arc::clone(&signs),
        };
        let refining = Refining { shared: Arc::clone(shared), finder, refiner, keeper, signs };
        self.spawn("diver-keep".into(), move || {
            keeping.run(&store, &class_names, &counters);
            Keeping::finish(&store, &class_names);
        })?;
        self.spawn("diver-refine".into(), move || refining.run(&order_queue))?;
        self.spawn("diver-ahead".into(), move || look_ahead.run())
    }

    fn start_worker(&mut self, number: usize, jobs: Receiver<Job>) -> Result<()> {
        let Some(requests) = self.requests.clone() else { return Ok(()) };
        let name = format!("diver-prefetch-{number}");
        let fetch = Fetch { shared: Arc::clone(&self.shared), requests };
        let labeller = Labeller { shared: Arc::clone(&self.shared), lessons: self.lessons.clone() };
        let worker = Worker { shared: Arc::clone(&self.shared), fetch, labeller, name: name.clone() };
        let current = Arc::clone(&self.current);
        self.spawn(name, move || {
            let mut scratch = Vec::new();
            for job in jobs {
                if job.round == current.load(Ordering::Acquire) {
                    // The consumer may have turned to another epoch meanwhile and dropped its end.
                    let _ = job.reply.send(worker.assemble_guarded(job.position, &mut scratch));
                }
            }
        })
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(body)
            .map_err(Error::io(std::path::Path::new("loader"), "cannot start a thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The threads, while they run.
    pub(super) fn threads(&self) -> Vec<ThreadId> {
        self.threads.iter().map(|thread| thread.thread().id()).collect()
    }

    /// Why the cache takes nothing, while it does not.
    pub(super) fn cache_failure(&self) -> Option<Arc<Error>> {
        let taught = self.shared.labelling.taught.as_ref();
        self.shared.store.failure().or_else(|| taught.and_then(|taught| taught.bank.failure()))
    }

    /// Ends the threads, and waits for them.
    fn stop(&mut self) {
        self.cancel.cancel();
        (self.jobs, self.requests, self.lessons) = (None, None, None);
        for thread in self.threads.drain(..) {
            // A panic was caught and reported where it happened.
            let _ = thread.join();
        }
    }

    /// Ends the threads; says what they did.
    ///
    /// # Errors
    /// Why the cache has not taken all that was made.
    pub(super) fn finish(mut self) -> Result<Stats> {
        self.stop();
        self.cache_failure().map_or_else(|| Ok(self.stats()), |error| Err(error.into()))
    }

    /// What the threads have done, and what waits for them.
    pub(super) fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let queues = Queues {
            batches: self.jobs.as_ref().map_or(0, Sender::len),
            refining: shared.flying.len(),
            teaching: shared.teaching.load(Ordering::Relaxed),
            ready: 0,
        };
        Stats {
            queues,
            refining: shared.watch.read(),
            skipped: shared.skipping.count() as u64,
            ..shared.counters.snapshot()
        }
    }

    /// Forgets the batches that were asked for and are not begun yet.
    pub(super) fn abandon(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes note of images that the program keeps itself.
    pub(super) fn hold(&self, slots: &[usize]) {
        if let Some(held) = &self.shared.held {
            held.hold(slots);
        }
    }

    /// Takes note of where the consumer stands.
    pub(super) fn stand_at(&self, position: Position) {
        let round = self.current.load(Ordering::Acquire);
        if self.shared.standing.set(round, position)
            && let Some(requests) = &self.requests
        {
            // There is more to do than before. Without a refiner nobody listens.
            let _ = requests.send(Vec::new());
        }
    }

    /// Asks for a batch; it arrives on the returned channel.
    pub(super) fn submit(&self, position: Position) -> Receiver<Result<Batch>> {
        let (reply, result) = bounded(1);
        if let Some(jobs) = &self.jobs {
            // Fails only if every worker is gone; then the reply's sender is gone too, and the receiver says so.
            let _ = jobs.send(Job { position, round: self.current.load(Ordering::Acquire), reply });
        }
        result
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

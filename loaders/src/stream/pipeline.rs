//! The threads of a loader: a few that assemble batches, and three around the refiner.

use super::background::Background;
use super::batch::Batch;
use super::convert;
use super::dtype::{Dtype, bytes::AsBytes as _};
use super::held::{Held, NoImages, slot};
use super::layout::{Layout, MemoryFormat};
use super::options::OnMiss;
use super::plan::Plan;
use super::sink::{self, Buffer, Sink};
use super::stages::{
    Draft, Fetch, Flying, Labeller, Labelling, Lesson, LookAhead, Order, Refining, Request, Signs, Standing,
    Teaching,
};
use super::want::{Form, Position, Want};
use crate::cache::Resident;
use crate::planes::Scale;
use crate::refine::{Dataset, Finder, Keeper, Keeping, Refinement};
use crate::stats::Counters;
use crate::{CancelToken, Error, Label, Refine, Result, Teach};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, ThreadId};

/// What the threads share.
pub(super) struct Shared {
    pub(super) dataset: Arc<Dataset>,
    pub(super) store: Arc<Resident>,
    pub(super) counters: Arc<Counters>,
    pub(super) plan: Plan,
    pub(super) on_miss: OnMiss,
    pub(super) labelling: Labelling,
    /// Which images the program keeps itself, where it may.
    pub(super) held: Option<Held>,
    pub(super) dtype: Dtype,
    pub(super) memory_format: MemoryFormat,
    pub(super) sink: Box<dyn Sink>,
    pub(super) cancel: CancelToken,
    pub(super) background: Background,
    pub(super) standing: Standing,
    pub(super) flying: Flying,
    pub(super) scale: Scale,
}

impl Shared {
    /// A number for each refinement, from 0 on.
    pub(super) fn number(&self, Refinement { index, variant }: Refinement) -> usize {
        index * self.plan.variants as usize + variant as usize
    }
}

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
            keeping.run(&store, &class_names);
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
        self.cancel.cancel();
        (self.jobs, self.requests, self.lessons) = (None, None, None);
        for thread in self.threads.drain(..) {
            // A panic was caught and reported where it happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    fetch: Fetch,
    labeller: Labeller,
    name: String,
}

impl Worker {
    fn assemble_guarded(&self, position: Position, scratch: &mut Vec<f32>) -> Result<Batch> {
        self.shared.cancel.check()?;
        catch_unwind(AssertUnwindSafe(|| self.assemble(position, scratch)))
            .unwrap_or_else(|panic| Err(Error::panicked(&self.name, panic.as_ref())))
    }

    /// `scratch` is where images are made that are not written as they are.
    fn assemble(&self, position: Position, scratch: &mut Vec<f32>) -> Result<Batch> {
        let shared = &*self.shared;
        let wants = shared.plan.wants(position);
        let info = shared.dataset.info();
        let (height, width) = shared.dataset.size();
        let shape = [wants.len(), info.shape[0], height, width];
        let layout = Layout { shape, dtype: shared.dtype, memory_format: shared.memory_format };
        let mut targets = vec![0.0; wants.len() * info.num_classes];
        let labels: Vec<Label> =
            wants.iter().map(|want| shared.dataset.label(want.index)).collect::<Result<_>>()?;
        let is_held = shared.held.as_ref().is_some_and(|held| held.has_all(&wants));
        let (buffer, came): (Box<dyn Buffer>, _) = if is_held {
            for (label, target) in labels.iter().zip(targets.chunks_exact_mut(info.num_classes)) {
                shared.labelling.targets.write(label, None, target)?;
            }
            (Box::new(NoImages), wants.iter().map(|want| want.form).collect())
        } else {
            self.images(position, &wants, &labels, &mut targets, &layout, scratch)?
        };
        Counters::add(&shared.counters.batches, 1);
        Counters::add(&shared.counters.samples, wants.len());
        let indices = wants.iter().map(|want| want.index).collect();
        let labels = labels.iter().map(Label::class).collect();
        let refined = came.iter().map(|form| *form != Form::Raw).collect();
        let variants = shared.plan.variants;
        let slots = wants.iter().zip(&came).map(|(want, form)| slot(variants, want.index, *form)).collect();
        let classes = info.num_classes;
        Ok(Batch { buffer, layout, targets, classes, labels, indices, refined, slots, is_held })
    }

    /// Writes images and targets, and says what each image came as.
    fn images(
        &self,
        position: Position,
        wants: &[Want],
        labels: &[Label],
        targets: &mut [f32],
        layout: &Layout,
        scratch: &mut Vec<f32>,
    ) -> Result<(Box<dyn Buffer>, Vec<Form>)> {
        let shared = &*self.shared;
        let mut buffer = sink::take(&*shared.sink, layout.bytes())?;
        let images =
            if layout.is_plain() { f32::of_mut(buffer.bytes_mut()) } else { room(scratch, layout.values())? };
        let came = self.fetch.run(position, wants, images)?;
        self.labeller.run(Draft {
            position,
            wants,
            came: &came,
            labels,
            shape: layout.shape,
            images,
            targets,
        })?;
        if !layout.is_plain() {
            convert::write(scratch, layout, shared.dataset.normalize(), buffer.bytes_mut());
        }
        Ok((buffer, came))
    }
}

/// Room for so many values, which may hold anything.
fn room(scratch: &mut Vec<f32>, values: usize) -> Result<&mut [f32]> {
    scratch.try_reserve(values.saturating_sub(scratch.len())).map_err(|_| {
        let reason = format!("there is no memory for the {values} values of a batch: make it smaller");
        Error::config("batch_size", reason)
    })?;
    scratch.resize(values, 0.0);
    Ok(scratch)
}

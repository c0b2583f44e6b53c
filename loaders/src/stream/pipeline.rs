//! The threads of a loader: a few that assemble batches, one that refines.

use super::ahead::{Call, Request, Standing, Work};
use super::batch::Batch;
use super::options::OnMiss;
use super::plan::{Item, Plan, Position};
use super::pool::Pool;
use crate::cache::Resident;
use crate::refine::{Dataset, Missing, Refined, Refinery, Silent};
use crate::stats::Counters;
use crate::{CancelToken, Error, Result, RgbImage};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

/// How long nothing is asked of the refiner before it may have to give back its memory. While the cache lacks images,
/// it is asked again after twice as long each time, up to `LONGEST_IDLE`.
const IDLE: Duration = Duration::from_secs(1);
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// What the threads share.
pub(super) struct Shared {
    pub(super) dataset: Arc<Dataset>,
    pub(super) store: Arc<Resident>,
    pub(super) counters: Arc<Counters>,
    pub(super) plan: Plan,
    pub(super) on_miss: OnMiss,
    pub(super) temperature: f32,
    pub(super) pool: Pool,
    pub(super) cancel: CancelToken,
    pub(super) background: Background,
    pub(super) standing: Standing,
    /// Normalised value of each byte, per channel.
    pub(super) table: [[f32; 256]; 3],
}

/// Samples that are refined while they are served raw: on their way, or failed, which the batch that meets them
/// next reports.
#[derive(Default)]
pub(super) struct Background(Mutex<HashMap<usize, Option<Arc<Error>>>>);

impl Background {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Option<Arc<Error>>>> {
        // Every update leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether sample `index` should be asked for now.
    fn start(&self, index: usize) -> Result<bool> {
        match self.lock().entry(index) {
            Entry::Vacant(entry) => {
                entry.insert(None);
                Ok(true)
            }
            Entry::Occupied(entry) if entry.get().is_none() => Ok(false),
            // Reported once; the batch after asks anew.
            Entry::Occupied(entry) => entry.remove().map_or(Ok(true), |error| Err(error.into())),
        }
    }

    /// Takes note that a sample is refined, or why it could not be.
    pub(super) fn finish(&self, index: usize, failure: Option<Arc<Error>>) {
        match failure {
            None => self.lock().remove(&index),
            failure => self.lock().insert(index, failure),
        };
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
    /// Wakes the refining thread, where there is one.
    requests: Option<Sender<Vec<Request>>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    cancel: CancelToken,
    /// How often the consumer has turned elsewhere.
    current: Arc<AtomicU64>,
}

impl Pipeline {
    pub(super) fn start(shared: Shared, refinery: Option<Refinery>, workers: usize) -> Result<Self> {
        let shared = Arc::new(shared);
        let cancel = shared.cancel.clone();
        let (jobs, job_queue) = unbounded();
        let current = Arc::<AtomicU64>::default();
        // When the last sender ends, so does the refining thread.
        let (requests, request_queue) = unbounded();
        let mut pipeline = Self {
            jobs: Some(jobs),
            requests: Some(requests.clone()),
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            cancel,
            current: Arc::clone(&current),
        };
        // The workers' goes first should a thread fail to start: the pipeline waits for its threads.
        let requests = requests;
        if let Some(mut refinery) = refinery {
            let shared = Arc::clone(&shared);
            pipeline.spawn("diver-refine".into(), move || {
                refine_loop(&mut refinery, &shared, &request_queue);
                refinery.write_pending();
                refinery.tidy();
            })?;
        }
        for worker in 0..workers {
            let worker = Worker {
                shared: Arc::clone(&shared),
                requests: requests.clone(),
                current: Arc::clone(&current),
                name: format!("diver-prefetch-{worker}"),
            };
            let jobs: Receiver<Job> = job_queue.clone();
            pipeline.spawn(worker.name.clone(), move || {
                for job in jobs {
                    if job.round == worker.current.load(Ordering::Acquire) {
                        // The consumer may have turned to another epoch meanwhile and dropped its end.
                        let _ = job.reply.send(worker.assemble_guarded(job.position));
                    }
                }
            })?;
        }
        Ok(pipeline)
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
        (self.jobs, self.requests) = (None, None);
        for thread in self.threads.drain(..) {
            // A panic was caught and reported where it happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    requests: Sender<Vec<Request>>,
    current: Arc<AtomicU64>,
    name: String,
}

impl Worker {
    fn assemble_guarded(&self, position: Position) -> Result<Batch> {
        self.shared.cancel.check()?;
        catch_unwind(AssertUnwindSafe(|| self.assemble(position)))
            .unwrap_or_else(|panic| Err(Error::panicked(&self.name, panic.as_ref())))
    }

    fn assemble(&self, place: Position) -> Result<Batch> {
        let shared = &*self.shared;
        let items = shared.plan.items(place.epoch, place.batch);
        let info = shared.dataset.info();
        let (height, width) = shared.dataset.size();
        let shape = [items.len(), info.shape[0], height, width];
        let image_size: usize = shape[1..].iter().product();
        let mut images = shared.pool.take(items.len().saturating_mul(image_size))?;
        let mut targets = vec![0.0; items.len() * info.num_classes];
        let mut labels = vec![0; items.len()];
        let mut refined = vec![false; items.len()];

        let (reply, replies) = unbounded();
        let mut requests = Vec::new();
        let mut outstanding = 0;
        let filled: Result<()> = items.iter().enumerate().try_for_each(|(slot, item)| {
            let label = shared.dataset.label(item.index)?;
            labels[slot] = label.class();
            label.write_target(
                &mut targets[slot * info.num_classes..][..info.num_classes],
                shared.temperature,
            );
            let out = &mut images[slot * image_size..][..image_size];
            match self.look_up(item, (place, slot), &reply, &mut requests)? {
                Found::Image(image) => {
                    write_refined(out, &image, &shared.table);
                    refined[slot] = true;
                }
                Found::Awaited => {
                    outstanding += 1;
                    refined[slot] = true;
                }
                Found::Raw => out.copy_from_slice(&shared.dataset.normalized(item.index)?),
            }
            Ok(())
        });
        drop(reply);
        if !requests.is_empty() {
            // All at once: the refiner is to get full batches, not the first sample on its own. And even if a
            // sample failed: the others are noted as on their way.
            self.requests.send(requests).map_err(|_| Error::Cancelled)?;
        }
        filled?;
        for _ in 0..outstanding {
            // The refining thread answers every request unless it is being shut down.
            let (slot, image) = replies.recv().map_err(|_| Error::Cancelled)?;
            write_refined(&mut images[slot * image_size..][..image_size], &*image?, &shared.table);
        }
        Counters::add(&shared.counters.batches, 1);
        Counters::add(&shared.counters.samples, items.len());
        let indices = items.iter().map(|item| item.index).collect();
        Ok(Batch { images, shape, targets, classes: info.num_classes, labels, indices, refined })
    }

    fn look_up(
        &self,
        item: &Item,
        (place, slot): (Position, usize),
        reply: &Sender<(usize, Refined)>,
        requests: &mut Vec<Request>,
    ) -> Result<Found> {
        let shared = &*self.shared;
        if !item.refined {
            return Ok(Found::Raw);
        }
        let key = shared.dataset.identity(item.index)?.row;
        if let Some(image) = shared.store.find(&key, &shared.counters)? {
            return Ok(Found::Image(image));
        }
        let (found, reply) = match shared.on_miss {
            OnMiss::Wait => (Found::Awaited, Some((slot, reply.clone()))),
            OnMiss::Raw => {
                Counters::add(&shared.counters.raw_fallbacks, 1);
                if !shared.background.start(item.index)? {
                    return Ok(Found::Raw);
                }
                (Found::Raw, None)
            }
        };
        requests.push(Request { index: item.index, place, reply });
        Ok(found)
    }
}

enum Found {
    Image(Arc<RgbImage>),
    Awaited,
    Raw,
}

/// Has the refiner do what batches wait for, and what the plan asks for next.
fn refine_loop(refinery: &mut Refinery, shared: &Shared, requests: &Receiver<Vec<Request>>) {
    let ever = shared.plan.refined_ever();
    let mut work = Work::new(shared, &ever);
    let mut missing = Missing::new(ever);
    let mut is_released = false;
    let mut idle = IDLE;
    loop {
        work.add(requests.try_iter().flatten());
        if shared.cancel.is_cancelled() {
            return; // Whoever still waits for a reply sees its sender go.
        }
        let call = work.next_call(refinery.preferred_batch());
        if !call.is_empty() {
            (is_released, idle) = (false, IDLE);
            if !carry_out(call, refinery, shared) {
                work.hold();
            }
            continue;
        }
        let may_be_released = !is_released && (missing.is_empty() || refinery.keeps_on_disk());
        let first = match may_be_released {
            true => requests.recv_timeout(idle),
            false => requests.recv().map_err(RecvTimeoutError::from),
        };
        match first {
            Ok(first) => work.add(first),
            Err(RecvTimeoutError::Timeout) => {
                refinery.write_pending_if_due();
                let go_on = || requests.is_empty() && !shared.cancel.is_cancelled();
                // Training may need the memory that the refiner most likely does not need any more.
                is_released = refinery.has_all(&mut missing, go_on);
                idle = LONGEST_IDLE.min(2 * idle);
                if is_released && catch_unwind(AssertUnwindSafe(|| refinery.release())).is_err() {
                    tracing::warn!("the refiner panicked when it was to give back its memory");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Refines the samples of a call, and answers its requests; says whether all went well.
fn carry_out(call: Call, refinery: &mut Refinery, shared: &Shared) -> bool {
    let mut refine = |indices: &[usize], ahead: usize| {
        let refine = || refinery.refine_batch(indices, ahead, &shared.cancel, &Silent);
        catch_unwind(AssertUnwindSafe(refine)).unwrap_or_else(|panic| {
            let error = Arc::new(Error::panicked("diver-refine", panic.as_ref()));
            vec![Some(Err(error)); indices.len()]
        })
    };
    let is_bad = |result: &Option<Refined>| matches!(result, Some(Err(_)));
    let mut results = refine(&call.indices(), call.ahead.len());
    let is_well = !results.iter().any(is_bad);
    if !is_well && !shared.cancel.is_cancelled() {
        // What one sample did to the call must not end the batches of others.
        let mut from = 0;
        for batch in call.batches() {
            let range = from..from + batch.len();
            if batch.len() < results.len() && results[range.clone()].iter().any(is_bad) {
                let indices: Vec<usize> = batch.iter().map(|request| request.index).collect();
                results.splice(range.clone(), refine(&indices, 0));
            }
            from = range.end;
        }
    }
    for (request, result) in call.requests.into_iter().zip(results) {
        // Only a loader that is dropped leaves a request without a result.
        let result = result.unwrap_or_else(|| Err(Arc::new(Error::Cancelled)));
        match request.reply {
            // A worker that gave up on its batch listens no more.
            Some((slot, reply)) => drop(reply.send((slot, result))),
            None => shared.background.finish(request.index, result.err()),
        }
    }
    is_well
}

/// Interleaved bytes to planar normalised values; a one-channel set gets the mean of the three channels.
fn write_refined(out: &mut [f32], image: &RgbImage, table: &[[f32; 256]; 3]) {
    let pixels = image.as_bytes().chunks_exact(3);
    let area = pixels.len();
    if out.len() == area {
        for (value, pixel) in out.iter_mut().zip(pixels) {
            *value = pixel.iter().map(|byte| table[0][usize::from(*byte)]).sum::<f32>() / 3.0;
        }
        return;
    }
    for (channel, plane) in out.chunks_exact_mut(area).enumerate() {
        let table = &table[channel];
        for (value, pixel) in plane.iter_mut().zip(pixels.clone()) {
            *value = table[usize::from(pixel[channel])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Label;

    #[test]
    fn targets_are_distributions() {
        let mut target = [0.0; 3];
        Label::Hard(1).write_target(&mut target, 1.0);
        assert_eq!(target, [0.0, 1.0, 0.0]);
        Label::Logits(vec![2.0, 2.0 + 2.0 * 3.0_f32.ln(), -1e30]).write_target(&mut target, 2.0);
        assert!((target[0] - 0.25).abs() < 1e-6 && (target[1] - 0.75).abs() < 1e-6 && target[2] == 0.0);
    }

    #[test]
    fn refined_bytes_become_planes() {
        let image = RgbImage::new(2, 1, vec![0, 1, 2, 255, 254, 253]).unwrap();
        let table: [[f32; 256]; 3] =
            std::array::from_fn(|c| std::array::from_fn(|byte| byte as f32 + 1000.0 * c as f32));
        let mut out = [0.0; 6];
        write_refined(&mut out, &image, &table);
        assert_eq!(out, [0.0, 255.0, 1001.0, 1254.0, 2002.0, 2253.0]);
        let mut grey = [0.0; 2];
        write_refined(&mut grey, &image, &table);
        assert_eq!(grey, [1.0, 254.0]);
    }
}

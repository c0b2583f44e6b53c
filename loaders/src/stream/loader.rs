//! The loader: what a training loop holds.

use super::Batch;
use super::builder::LoaderBuilder;
use super::pipeline::Pipeline;
use super::plan::Plan;
use super::state::LoaderState;
use super::want::Position;
use crate::stats::{Counters, Queues, Stats};
use crate::{Error, Result, Source, SourceInfo};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Streams a dataset in batches, epoch after epoch. See the [crate] for an example.
///
/// Equal datasets, seeds and options give the same samples in the same order, whatever the number of threads and
/// whatever the cache holds; once refined, an image stays as it is. (Where two runs refine it apart, in different
/// micro-batches, a byte may differ by as much as the refiner's own arithmetic does: [`Refine::refine`](crate::Refine::refine).) Dropping
/// the loader stops its threads; a refinement that is under way ends within one step.
#[derive(Debug)]
pub struct Loader {
    pipeline: Pipeline,
    plan: Plan,
    info: SourceInfo,
    counters: Arc<Counters>,
    prefetch: usize,
    /// The batch that comes next.
    next: Position,
    /// Batches on their way, from `next` on.
    queue: VecDeque<(Position, Receiver<Result<Batch>>)>,
    /// Whether `next` came from a saved state that no iterator has gone on from yet.
    resumed: bool,
    /// How long the consumer has waited for the next batch.
    waited: Duration,
    pace: Option<Pace>,
}

/// When the consumer asked for its first batch of an epoch.
#[derive(Clone, Copy, Debug)]
struct Pace {
    epoch: u64,
    first: usize,
    since: Instant,
}

impl Loader {
    /// The most refinements of a sample ([`LoaderBuilder::variants`]).
    pub const MOST_VARIANTS: u32 = 1024;

    /// Starts to describe a loader of `source`.
    pub fn builder(source: impl Source + 'static) -> LoaderBuilder {
        LoaderBuilder::new(Box::new(source))
    }

    pub(super) fn new(
        pipeline: Pipeline,
        plan: Plan,
        info: SourceInfo,
        counters: Arc<Counters>,
        prefetch: usize,
    ) -> Self {
        let (next, queue) = (Position::default(), VecDeque::new());
        let (resumed, waited, pace) = (false, Duration::ZERO, None);
        Self { pipeline, plan, info, counters, prefetch, next, queue, resumed, waited, pace }
    }

    /// Number of batches in the epoch that comes next or is being iterated; in every epoch, unless raw and refined
    /// samples come beside each other ([`MixMode::Both`](super::MixMode::Both)) in shares that change, or the loader went on in
    /// the middle of one with another number of ranks or samples of a batch.
    #[allow(clippy::len_without_is_empty)] // An epoch is never empty.
    pub fn len(&self) -> usize {
        self.plan.batches(self.next.epoch, self.next.first)
    }

    /// What is streamed, with the class map that is used.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// The batches of epoch `epoch` from its first on, or, if a state was loaded that stands in this epoch, from
    /// there on.
    pub fn epoch(&mut self, epoch: u64) -> Epoch<'_> {
        if !self.resumed || self.next.epoch != epoch {
            self.next = Position::start(epoch);
        }
        Epoch { epoch, loader: self }
    }

    /// The batches of the next epoch: the first for a new loader, the rest of an epoch after
    /// [`load_state`](Self::load_state), else the one after that which was iterated last, to its end or not.
    pub fn iter(&mut self) -> Epoch<'_> {
        Epoch { epoch: self.start_epoch(), loader: self }
    }

    /// Goes to the epoch that [`iter`](Self::iter) would iterate, and returns its number: for callers that cannot
    /// hold a borrow and take batches with [`poll_batch`](Self::poll_batch).
    pub fn start_epoch(&mut self) -> u64 {
        if !self.resumed && self.next.batch > 0 {
            self.next = Position::start(self.next.epoch.saturating_add(1));
        }
        self.next.epoch
    }

    /// The next batch of epoch `epoch`, waited for no longer than `timeout`: `Ready(None)` once the loader stands in
    /// another epoch. Between two calls the caller can look after something else, as a Python interpreter has to
    /// after signals.
    ///
    /// ```
    /// use diver_loaders::{Loader, MemorySource};
    /// use std::{task::Poll, time::Duration};
    ///
    /// let set = MemorySource::unit(3, [1, 1, 1], vec![0.5; 3], vec![0; 3])?;
    /// let mut loader = Loader::builder(set).batch_size(2).build()?;
    /// let epoch = loader.start_epoch();
    /// let mut samples = 0;
    /// loop {
    ///     match loader.poll_batch(epoch, Duration::from_millis(50)) {
    ///         Poll::Ready(Some(batch)) => samples += batch?.len(),
    ///         Poll::Ready(None) => break,
    ///         Poll::Pending => {} // Look after something else, then go on waiting.
    ///     }
    /// }
    /// assert_eq!(samples, 3);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn poll_batch(&mut self, epoch: u64, timeout: Duration) -> Poll<Option<Result<Batch>>> {
        if self.next.epoch != epoch {
            return Poll::Ready(None);
        }
        let deadline = Instant::now().checked_add(timeout);
        self.next_batch(deadline).map(Some)
    }

    /// All batches from where the loader stands on, epoch after epoch, without end.
    ///
    /// ```
    /// use diver_loaders::{Loader, MemorySource};
    ///
    /// let set = MemorySource::unit(3, [1, 1, 1], vec![0.5; 3], vec![0; 3])?;
    /// let mut loader = Loader::builder(set).batch_size(2).build()?;
    /// let sizes: Vec<_> = loader.batches().take(5).map(|batch| batch.map(|b| b.len())).collect::<Result<_, _>>()?;
    /// assert_eq!(sizes, [2, 1, 2, 1, 2]);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn batches(&mut self) -> Batches<'_> {
        Batches { loader: self }
    }

    /// Where the loader stands: at the batch that comes next.
    pub fn state(&self) -> LoaderState {
        LoaderState::new(&self.plan, self.next)
    }

    /// Goes to where the loader stood that `state` was taken from; the next [`iter`](Self::iter) goes on from
    /// there. Every rank may load the state of one of them. Number of ranks, samples of a batch, threads and cache may
    /// all have changed: what came in the epoch that was begun does not come in it again.
    ///
    /// # Errors
    /// If `state` belongs to a loader with another order, naming the field that differs; the loader stays where
    /// it is.
    pub fn load_state(&mut self, state: &LoaderState) -> Result<()> {
        state.check(&self.plan)?;
        let next = Position { epoch: state.epoch, first: state.seen, batch: 0 };
        self.next = if self.plan.batches(next.epoch, next.first) > 0 {
            next
        } else {
            // Other ranks have a batch more, or what is left does not fill one.
            Position::start(state.epoch.saturating_add(1))
        };
        self.resumed = true;
        Ok(())
    }

    /// Takes note that the program keeps the images of `batch` itself, by their [`slots`](Batch::slots). Batches whose images
    /// are all kept come without images from then on, and cost next to nothing; those that are on their way may still have
    /// them. Nothing happens unless the loader was built to be [`resident`](LoaderBuilder::resident).
    ///
    /// ```
    /// use diver_loaders::{Loader, MemorySource};
    /// use std::collections::HashMap;
    ///
    /// let set = MemorySource::unit(2, [1, 1, 1], vec![0.0, 1.0], vec![0, 1])?;
    /// let mut loader = Loader::builder(set).batch_size(1).prefetch(1).shuffle(true).resident(true).build()?;
    /// let mut images = HashMap::new();
    /// for number in 0..8 {
    ///     let batch = loader.batches().next().unwrap()?;
    ///     let slot = batch.slots()[0];
    ///     if batch.is_held() {
    ///         assert!(images.contains_key(&slot));
    ///     } else {
    ///         images.insert(slot, batch.images::<f32>()?.to_vec());
    ///         loader.hold(&batch);
    ///     }
    ///     assert!(number < 4 || batch.is_held());
    /// }
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn hold(&self, batch: &Batch) {
        self.pipeline.hold(batch.slots());
    }

    /// What the loader has done so far, and what it is doing.
    pub fn stats(&self) -> Stats {
        let stats = self.pipeline.stats();
        let ready = self.queue.iter().filter(|(_, batch)| !batch.is_empty()).count();
        Stats { queues: Queues { ready, ..stats.queues }, eta_seconds: self.eta(), ..stats }
    }

    /// Seconds until the epoch is over.
    fn eta(&self) -> Option<f64> {
        let Pace { first, since, .. } = self.pace.filter(|pace| pace.epoch == self.next.epoch)?;
        let taken = self.next.batch.checked_sub(first).filter(|taken| *taken > 0)?;
        Some(since.elapsed().as_secs_f64() / taken as f64 * (self.len() - self.next.batch) as f64)
    }

    /// Why the cache takes nothing, while it does not: the disk is full, or the folder is not there. The stream goes on; what
    /// is made waits in memory, and is written once the cache takes it again.
    pub fn cache_failure(&self) -> Option<Arc<Error>> {
        self.pipeline.cache_failure()
    }

    /// Ends the loader as dropping it does, and says whether the cache has taken what it made.
    ///
    /// ```
    /// use diver_loaders::{Loader, MemorySource};
    ///
    /// let set = MemorySource::unit(2, [1, 1, 1], vec![0.0, 1.0], vec![0, 1])?;
    /// let mut loader = Loader::builder(set).build()?;
    /// assert_eq!(loader.iter().count(), 1);
    /// assert!(loader.finish()?.samples >= 2);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// Why the cache has not taken all of it.
    pub fn finish(self) -> Result<Stats> {
        self.pipeline.finish()
    }

    /// The loader's own threads. On one of them, where refiners are called, nobody can wait for a batch or drop the
    /// loader: it would be waiting for itself.
    pub fn threads(&self) -> Vec<ThreadId> {
        self.pipeline.threads()
    }

    /// The batch at `next`, waited for until `deadline`; without one, for as long as it takes.
    fn next_batch(&mut self, deadline: Option<Instant>) -> Poll<Result<Batch>> {
        if self.queue.front().is_some_and(|(position, _)| *position != self.next) {
            self.pipeline.abandon();
            self.queue.clear();
        }
        self.pipeline.stand_at(self.next);
        // Prefetch crosses the end of an epoch: there is no gap between epochs.
        while self.queue.len() < self.prefetch {
            let position = self.queue.back().map_or(self.next, |(last, _)| self.after(*last));
            self.queue.push_back((position, self.pipeline.submit(position)));
        }
        let started = Instant::now();
        if self.pace.is_none_or(|pace| pace.epoch != self.next.epoch || pace.first > self.next.batch) {
            self.pace = Some(Pace { epoch: self.next.epoch, first: self.next.batch, since: started });
        }
        let received = match (self.queue.front(), deadline) {
            (Some((_, receiver)), Some(deadline)) => receiver.recv_deadline(deadline),
            (Some((_, receiver)), None) => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (None, _) => Err(RecvTimeoutError::Disconnected),
        };
        let waited = self.waited + started.elapsed();
        let batch = match received {
            Err(RecvTimeoutError::Timeout) => {
                self.waited = waited;
                return Poll::Pending;
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Cancelled),
            Ok(batch) => batch,
        };
        self.waited = Duration::ZERO;
        self.counters.next.add(batch.as_ref().map_or(0, Batch::len), waited);
        self.queue.pop_front();
        self.next = self.after(self.next);
        self.resumed = false;
        Poll::Ready(batch)
    }

    fn wait_for_batch(&mut self) -> Result<Batch> {
        match self.next_batch(None) {
            Poll::Ready(batch) => batch,
            // Only a deadline can pass.
            Poll::Pending => Err(Error::Cancelled),
        }
    }

    fn after(&self, position: Position) -> Position {
        self.plan.after(position)
    }
}

impl<'a> IntoIterator for &'a mut Loader {
    type Item = Result<Batch>;
    type IntoIter = Epoch<'a>;

    fn into_iter(self) -> Epoch<'a> {
        self.iter()
    }
}

/// The batches of one epoch, in order. A batch that fails is an error in its place; the ones after it still come.
#[derive(Debug)]
pub struct Epoch<'a> {
    loader: &'a mut Loader,
    epoch: u64,
}

impl Epoch<'_> {
    /// As [`Loader::state`]; to save a training in the middle of an epoch.
    pub fn state(&self) -> LoaderState {
        self.loader.state()
    }

    /// As [`Loader::stats`].
    pub fn stats(&self) -> Stats {
        self.loader.stats()
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.loader.next.epoch == self.epoch).then(|| self.loader.wait_for_batch())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let next = self.loader.next;
        let left = if next.epoch == self.epoch { self.loader.len() - next.batch } else { 0 };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch<'_> {}

/// Batches without end ([`Loader::batches`]).
#[derive(Debug)]
pub struct Batches<'a> {
    loader: &'a mut Loader,
}

impl Batches<'_> {
    /// As [`Loader::state`].
    pub fn state(&self) -> LoaderState {
        self.loader.state()
    }

    /// As [`Loader::stats`].
    pub fn stats(&self) -> Stats {
        self.loader.stats()
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.loader.wait_for_batch())
    }
}

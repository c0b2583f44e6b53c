//! Has the refiner do what batches wait for, and what the plan asks for next.
//!
//! One thread finds out what is missing, claims it and reads it ([`LookAhead`]), one calls the refiner ([`Refining`]), and one
//! keeps what comes back ([`Keeper`]): the refiner, which is most of the work, is never kept waiting for files.

use super::ahead::{Call, Request, Work};
use crate::refine::{Finder, Keeper, MicroBatch, Missing, Pause, Progress as _, Refined, Rows};
use crate::stream::shared::Shared;
use crate::stream::want::Position;
use crate::{Error, Refine, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long nothing is asked of the refiner before it may have to give back its memory. While the cache lacks images,
/// it is asked again after twice as long each time, up to `LONGEST_IDLE`.
const IDLE: Duration = Duration::from_secs(1);
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// What the refining thread tells the one that looks ahead.
#[derive(Debug)]
pub(in crate::stream) struct Signs {
    /// How many images the refiner likes to get at once.
    preferred: AtomicUsize,
    /// Whether a call failed since this was asked last.
    has_failed: AtomicBool,
}

impl Signs {
    pub(in crate::stream) fn new(refiner: &dyn Refine) -> Self {
        let preferred = AtomicUsize::new(refiner.preferred_batch().max(1));
        Self { preferred, has_failed: AtomicBool::new(false) }
    }
}

/// What the refining thread is to do next.
pub(in crate::stream) enum Order {
    /// Refine images that are flying.
    Refine(MicroBatch),
    /// Give back the refiner's memory.
    Release,
    /// Have the disk take what it has not taken yet.
    WritePending,
}

/// Finds out what the refiner is to do next, and makes it ready.
pub(in crate::stream) struct LookAhead {
    pub(in crate::stream) shared: Arc<Shared>,
    pub(in crate::stream) finder: Finder,
    pub(in crate::stream) requests: Receiver<Vec<Request>>,
    /// Takes one at a time, when the refiner is free.
    pub(in crate::stream) orders: Sender<Order>,
    pub(in crate::stream) signs: Arc<Signs>,
}

impl LookAhead {
    /// Works until the loader is dropped.
    pub(in crate::stream) fn run(&self) {
        // Whoever still waits for a reply sees its sender go.
        let _ = self.work();
    }

    /// Ends with an error once the refining thread has ended.
    fn work(&self) -> Result<(), Ended> {
        let shared = &*self.shared;
        let ever = shared.plan.refined_ever();
        let mut work = Work::new(shared, &ever);
        let mut missing = Missing::new(ever);
        let (mut is_released, mut idle, mut pause) = (false, IDLE, Pause::default());
        loop {
            work.add(self.requests.try_iter().flatten());
            if shared.cancel.is_cancelled() {
                return Ok(());
            }
            if self.signs.has_failed.swap(false, Ordering::AcqRel) {
                work.hold();
            }
            let go_on = || self.requests.is_empty() && !shared.cancel.is_cancelled();
            let call = work.next_call(self.signs.preferred.load(Ordering::Acquire), &go_on);
            if !call.is_empty() {
                (is_released, idle) = (false, IDLE);
                let (is_placed, awaited) = self.place(call)?;
                work.add(awaited);
                if is_placed {
                    pause = Pause::default();
                    continue;
                }
                // All that is left is in other processes' hands.
                match self.requests.recv_timeout(pause.next()) {
                    Ok(more) => work.add(more),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                continue;
            }
            let keeps_on_disk = self.finder.store.disk().is_some();
            let first = match !is_released && (missing.is_empty() || keeps_on_disk) {
                true => self.requests.recv_timeout(idle),
                false => self.requests.recv().map_err(RecvTimeoutError::from),
            };
            match first {
                Ok(first) => work.add(first),
                Err(RecvTimeoutError::Timeout) => {
                    self.order(Order::WritePending)?;
                    // Training may need the memory that the refiner most likely does not need any more.
                    is_released = self.finder.has_all(&mut missing, go_on);
                    idle = LONGEST_IDLE.min(2 * idle);
                    if is_released {
                        self.order(Order::Release)?;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn order(&self, order: Order) -> Result<(), Ended> {
        self.orders.send(order).map_err(|_| Ended)
    }

    /// Makes a call ready and hands it over; answers what is found meanwhile, or cannot be read. Says whether anything
    /// came of it, and returns the requests for what other processes are refining.
    fn place(&self, call: Call) -> Result<(bool, Vec<Request>), Ended> {
        let wanted = call.wanted();
        let mut results: Vec<Option<Refined>> = vec![None; wanted.len()];
        let prepare = || self.finder.prepare(&wanted, &mut results, usize::MAX);
        let batch = match catch_unwind(AssertUnwindSafe(prepare)) {
            Ok(batch) => batch,
            Err(panic) => {
                return self.report(call, &Arc::new(Error::panicked("diver-ahead", panic.as_ref())));
            }
        };
        let mut requests: Vec<Option<Request>> = call.requests.into_iter().map(Some).collect();
        requests.resize_with(wanted.len(), || None);
        let mut is_placed = batch.is_some();
        for ((request, wanted), result) in requests.iter_mut().zip(&wanted).zip(results) {
            let Some(result) = result else { continue };
            is_placed = true;
            if result.is_ok() {
                self.shared.watch.arrive(self.shared.number(*wanted));
            }
            if result.is_err() {
                self.signs.has_failed.store(true, Ordering::Release);
            }
            if let Some(request) = request.take() {
                request.answer(&self.shared, result);
            }
        }
        if let Some(batch) = batch {
            let rows: Vec<_> = batch.rows().collect();
            for (slot, position) in batch.slots() {
                let number = self.shared.number(wanted[*slot]);
                self.shared.flying.start(rows[*position], number, requests[*slot].take());
            }
            self.order(Order::Refine(batch))?;
        }
        // Other processes are refining what is left.
        Ok((is_placed, requests.into_iter().flatten().collect()))
    }

    /// Answers a call that panicked. What one sample did to it must not end the batches of others: they are placed apart.
    fn report(&self, call: Call, error: &Arc<Error>) -> Result<(bool, Vec<Request>), Ended> {
        self.signs.has_failed.store(true, Ordering::Release);
        let is_mixed = !call.ahead.is_empty();
        let mut calls = call.apart(false);
        if calls.len() < 2 && !is_mixed && self.shared.skipping.is_on() {
            // Which of them it was decides who is skipped.
            calls = calls.into_iter().flat_map(|call| call.apart(true)).collect();
        }
        if calls.len() < 2 && !is_mixed {
            for request in calls.into_iter().flat_map(|call| call.requests) {
                request.answer(&self.shared, Err(Arc::clone(error)));
            }
            return Ok((true, Vec::new()));
        }
        let mut awaited = Vec::new();
        for call in calls {
            awaited.extend(self.place(call)?.1);
        }
        Ok((true, awaited))
    }
}

/// The refining thread has ended.
struct Ended;

/// Calls the refiner, on one thread.
pub(in crate::stream) struct Refining {
    pub(in crate::stream) shared: Arc<Shared>,
    pub(in crate::stream) finder: Finder,
    pub(in crate::stream) refiner: Box<dyn Refine>,
    pub(in crate::stream) keeper: Keeper,
    pub(in crate::stream) signs: Arc<Signs>,
}

impl Refining {
    /// Carries out orders until none come any more.
    pub(in crate::stream) fn run(mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Refine(batch) => self.carry_out(batch),
                Order::Release => {
                    if catch_unwind(AssertUnwindSafe(|| self.refiner.release())).is_err() {
                        tracing::warn!("the refiner panicked when it was to give back its memory");
                    }
                }
                Order::WritePending => self.keeper.write_pending(),
            }
            let preferred = self.refiner.preferred_batch().max(1);
            self.signs.preferred.store(preferred, Ordering::Release);
        }
    }

    fn carry_out(&mut self, batch: MicroBatch) {
        let shared = Arc::clone(&self.shared);
        let flying = &shared.flying;
        let mut batches = VecDeque::from([batch]);
        while let Some(batch) = batches.pop_front() {
            let asked: Vec<usize> = batch.rows().map(|row| flying.waiting(&row)).collect();
            let is_of_one = asked.iter().all(|asked| *asked > 0) && self.groups(&batch).len() == 1;
            let Err(error) = self.refine(&batch) else { continue };
            self.signs.has_failed.store(true, Ordering::Release);
            if !is_of_one && !shared.cancel.is_cancelled() {
                // What one sample did to the call must not end the batches of others. What nobody waits for is left.
                batches.extend(self.groups(&batch).values().map(|positions| batch.part(positions)));
                continue;
            }
            if asked.len() > 1 && shared.skipping.is_on() {
                // Which of them it was decides who is skipped.
                batches.extend((0..asked.len()).map(|position| batch.part(&[position])));
                continue;
            }
            let mut again = Vec::new();
            for (position, (row, asked)) in batch.rows().zip(asked).enumerate() {
                let (requests, is_left) = flying.fail(row, asked);
                for request in requests {
                    request.answer(&shared, Err(Arc::clone(&error)));
                }
                again.extend(is_left.then_some(position));
            }
            if !again.is_empty() {
                batches.push_back(batch.part(&again));
            }
        }
    }

    /// The positions of a micro-batch by the batches that wait for them first; those that nobody waits for are left out,
    /// and are not flying any more.
    fn groups(&self, batch: &MicroBatch) -> BTreeMap<Position, Vec<usize>> {
        let mut groups = BTreeMap::<Position, Vec<usize>>::new();
        for (position, row) in batch.rows().enumerate() {
            if let Some(place) = self.shared.flying.place(row) {
                groups.entry(place).or_default().push(position);
            }
        }
        groups
    }

    /// Refines a micro-batch, and has it kept and answered.
    fn refine(&mut self, batch: &MicroBatch) -> Result<(), Arc<Error>> {
        let Self { shared, finder, refiner, .. } = self;
        let refine = || finder.refine(batch, &mut **refiner, &shared.cancel, &shared.watch);
        let refined = catch_unwind(AssertUnwindSafe(refine))
            .unwrap_or_else(|panic| Err(Error::panicked("diver-refine", panic.as_ref())));
        if refined.is_err() {
            // It may have panicked.
            shared.watch.end(false);
        }
        let (rows, refining) = refined?;
        let shared = Arc::clone(&self.shared);
        let keys: Vec<_> = batch.rows().collect();
        let done = Box::new(move |kept: Result<Vec<_>, Arc<Error>>| {
            for (position, key) in keys.iter().enumerate() {
                let (requests, numbers) = shared.flying.land(key);
                if kept.is_ok() {
                    numbers.into_iter().for_each(|number| shared.watch.arrive(number));
                }
                for request in requests {
                    let of = |images: &Vec<_>| Arc::clone(&images[position]);
                    request.answer(&shared, kept.as_ref().map(of).map_err(Arc::clone));
                }
            }
        });
        // Whoever asked hears of an error; should the thread have ended, the loader is being dropped.
        let _ = self.keeper.push(Rows { rows, lease: batch.lease(), refining, done: Some(done) });
        Ok(())
    }
}

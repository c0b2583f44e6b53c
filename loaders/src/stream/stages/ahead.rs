//! What the refiner does next: what batches wait for, in the plan's order, and then what the plan asks for later.
//!
//! The refiner's speed depends on no training batch, thread or prefetch: its calls are filled from the plan, this epoch's
//! and the next one's, up to the size that it likes. The first call after the consumer has turned elsewhere is an
//! exception: it has the first batch alone, which is then not held up by others.

use super::replies::Reply;
use crate::refine::{Refined, Refinement};
use crate::stream::shared::Shared;
use crate::stream::want::Position;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// How many samples are passed over, each of which may have to be read, before a look at what has come meanwhile.
const PASSED: usize = 64;

/// A refinement that a batch met and no cache has.
pub(in crate::stream) struct Request {
    pub(in crate::stream) refinement: Refinement,
    /// The batch.
    pub(in crate::stream) place: Position,
    /// Who waits for it; none where it came raw.
    pub(super) reply: Option<Reply<Refined>>,
}

impl Request {
    pub(super) fn answer(self, shared: &Shared, result: Refined) {
        match self.reply {
            Some(reply) => reply.answer(result),
            None => shared.background.finish(self.refinement, result.err()),
        }
    }
}

/// Where the consumer stands, once it has asked for a batch.
#[derive(Debug, Default)]
pub(in crate::stream) struct Standing(Mutex<Option<Stand>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    /// How often the consumer has turned elsewhere.
    round: u64,
    at: Position,
}

impl Standing {
    /// Takes note of where the consumer is; says whether there is more to do than before.
    pub(in crate::stream) fn set(&self, round: u64, at: Position) -> bool {
        // Every update leaves it whole.
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = stand.is_none_or(|last| last.round != round || last.at.epoch != at.epoch);
        *stand = Some(Stand { round, at });
        is_new
    }

    fn get(&self) -> Option<Stand> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of the refiner.
#[derive(Default)]
pub(super) struct Call {
    /// What batches wait for, or met.
    pub(super) requests: Vec<Request>,
    /// What later batches will ask for.
    pub(super) ahead: Vec<Refinement>,
}

impl Call {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.ahead.is_empty()
    }

    /// What is asked for, that of requests first.
    pub(super) fn wanted(&self) -> Vec<Refinement> {
        self.requests.iter().map(|request| request.refinement).chain(self.ahead.iter().copied()).collect()
    }

    /// A call for each batch, or for each request, without what is done ahead.
    pub(super) fn apart(self, of_each: bool) -> Vec<Self> {
        let mut calls: Vec<Self> = Vec::new();
        for request in self.requests {
            match calls.last_mut().filter(|call| !of_each && call.requests[0].place == request.place) {
                Some(call) => call.requests.push(request),
                None => calls.push(Self { requests: vec![request], ..Self::default() }),
            }
        }
        calls
    }
}

/// The work that is known of.
pub(super) struct Work<'a> {
    shared: &'a Shared,
    requests: Vec<Request>,
    /// Where the walk along the plan stands, and what is left of the batch that it is in.
    cursor: Position,
    batch: VecDeque<Refinement>,
    round: Option<u64>,
    /// Where the consumer stood when it was counted what the epoch asks for.
    counted: Option<(u64, u64)>,
    /// Whether each refinement was seen in the cache, or given to the refiner, and how many of those that are ever asked
    /// for were not.
    seen: Vec<bool>,
    unseen: usize,
    /// After a failure nothing is done ahead until the consumer moves on: it has to meet the error first.
    held: Option<Stand>,
}

impl<'a> Work<'a> {
    /// `ever` are the refinements that may be asked for, each once.
    pub(super) fn new(shared: &'a Shared, ever: &[Refinement]) -> Self {
        let mut seen = vec![true; shared.plan.samples * shared.plan.variants as usize];
        ever.iter().for_each(|refinement| seen[shared.number(*refinement)] = false);
        Self {
            shared,
            requests: Vec::new(),
            cursor: Position::default(),
            batch: VecDeque::new(),
            counted: None,
            round: None,
            seen,
            unseen: ever.len(),
            held: None,
        }
    }

    /// Takes note of requests; those for what is being refined wait for that.
    pub(super) fn add(&mut self, requests: impl IntoIterator<Item = Request>) {
        let shared = self.shared;
        let join = |request: Request| match shared.dataset.identity(request.refinement) {
            Ok(identity) => shared.flying.join(identity.row, shared.number(request.refinement), request),
            // The call finds out why.
            Err(_) => Some(request),
        };
        self.requests.extend(requests.into_iter().filter_map(join));
    }

    /// The next call, of at most so many samples; empty if there is nothing to do, or once `go_on` says no.
    pub(super) fn next_call(&mut self, at_most: usize, go_on: &dyn Fn() -> bool) -> Call {
        // Of several requests for a sample, the first call has taken the first one: by now the others can wait for it. In
        // this order: what lands between the two is in the store.
        let requests = std::mem::take(&mut self.requests);
        self.add(requests);
        self.answer_what_is_there();
        // Those of one batch stay together.
        self.requests.sort_by_key(|request| request.place);
        let Some(stand) = self.shared.standing.get() else { return Call::default() };
        let is_first = self.round != Some(stand.round);
        if is_first || self.cursor < stand.at {
            (self.cursor, self.round) = (stand.at, Some(stand.round));
            self.batch.clear();
        }
        let (end, urgent) = if is_first {
            (
                self.shared.plan.after(stand.at),
                self.requests.partition_point(|request| request.place <= stand.at),
            )
        } else {
            (Position::start(stand.at.epoch.saturating_add(2)), self.requests.len())
        };
        if !is_first {
            // Not before the first batch is on its way, which need not wait for it.
            self.count(stand);
        }
        let requests: Vec<Request> = self.requests.drain(..urgent.min(at_most)).collect();
        let ahead =
            if self.held == Some(stand) { Vec::new() } else { self.walk(&requests, at_most, end, go_on) };
        let call = Call { requests, ahead };
        // Nothing is missing for the first batch: on with the others.
        if is_first && call.is_empty() && go_on() { self.next_call(at_most, go_on) } else { call }
    }

    /// Counts what the epoch asks for, from where the consumer stands on, and what of it has not been looked for.
    fn count(&mut self, stand: Stand) {
        let epoch = stand.at.epoch;
        if self.counted.replace((stand.round, epoch)) == Some((stand.round, epoch)) {
            return;
        }
        if self.unseen == 0 {
            return self.shared.watch.begin(self.seen.len(), &[]);
        }
        let mut numbers = Vec::new();
        let mut position = stand.at;
        while position.epoch == epoch {
            let wants = self.shared.plan.wants(position);
            numbers.extend(
                wants
                    .iter()
                    .flat_map(|want| self.shared.plan.refinements(want))
                    .map(|refinement| self.shared.number(refinement)),
            );
            position = self.shared.plan.after(position);
        }
        // Some may come again where the epoch is padded.
        numbers.sort_unstable();
        numbers.dedup();
        self.shared.watch.begin(self.seen.len(), &numbers);
    }

    /// A call failed: nothing is done ahead until the consumer has moved on, and has seen why.
    pub(super) fn hold(&mut self) {
        self.held = self.shared.standing.get();
    }

    /// Samples that came meanwhile wait for no call.
    fn answer_what_is_there(&mut self) {
        let shared = self.shared;
        self.requests.retain(|request| {
            let Ok(identity) = shared.dataset.identity(request.refinement) else { return true };
            let Some(reply) = &request.reply else {
                let is_there = shared.store.has(&identity.row);
                if is_there {
                    shared.watch.arrive(shared.number(request.refinement));
                    shared.background.finish(request.refinement, None);
                }
                return !is_there;
            };
            match shared.store.find(&identity.row, &shared.counters) {
                Ok(Some(image)) => {
                    shared.watch.arrive(shared.number(request.refinement));
                    reply.answer(Ok(image));
                    false
                }
                // The call finds out why.
                Ok(None) | Err(_) => true,
            }
        });
    }

    /// The next samples along the plan, up to `end`, that no cache has, to fill a call with. Where most are there already,
    /// what was found has not to wait for more.
    fn walk(
        &mut self,
        requests: &[Request],
        at_most: usize,
        end: Position,
        go_on: &dyn Fn() -> bool,
    ) -> Vec<Refinement> {
        let requested: HashSet<Refinement> =
            requests.iter().chain(&self.requests).map(|request| request.refinement).collect();
        let mut found = Vec::new();
        let mut passed = 0;
        while requests.len() + found.len() < at_most && self.unseen > 0 {
            if passed >= PASSED && (!requests.is_empty() || !found.is_empty() || !go_on()) {
                break;
            }
            let Some(refinement) = self.batch.pop_front() else {
                if self.cursor >= end {
                    break;
                }
                let wants = self.shared.plan.wants(self.cursor);
                self.batch.extend(wants.iter().flat_map(|want| self.shared.plan.refinements(want)));
                self.cursor = self.shared.plan.after(self.cursor);
                continue;
            };
            let number = self.shared.number(refinement);
            if std::mem::replace(&mut self.seen[number], true) {
                continue;
            }
            self.unseen -= 1;
            if requested.contains(&refinement) {
                passed += 1;
                continue;
            }
            match self.look(refinement) {
                Looked::Missing => found.push(refinement),
                Looked::There => {
                    self.shared.watch.arrive(number);
                    passed += 1;
                }
                Looked::Flying => passed += 1,
            }
        }
        found
    }

    /// Looks for a refinement. A sample that cannot be read is for its batch to report.
    fn look(&self, refinement: Refinement) -> Looked {
        let look = || {
            let Ok(identity) = self.shared.dataset.identity(refinement) else { return Looked::Flying };
            // In this order: what lands between the two is in the store.
            if self.shared.flying.contains(&identity.row) {
                Looked::Flying
            } else if self.shared.store.has(&identity.row) {
                Looked::There
            } else {
                Looked::Missing
            }
        };
        catch_unwind(AssertUnwindSafe(look)).unwrap_or(Looked::Flying)
    }
}

/// Where a refinement is.
enum Looked {
    There,
    /// On its way, or nothing that can be refined ahead.
    Flying,
    /// In no cache.
    Missing,
}

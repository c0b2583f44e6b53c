//! Rows that the disk has not taken yet.

use crate::Error;
use crate::cache::{Artifact, RowKey};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a disk is left alone after it failed; twice as long after each further failure, up to `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Rows that wait for a disk that failed, by the part that they are to make, as many as fit into a bound of bytes: those
/// that came first, as a set that does not fit is served best by a part of it that stays.
#[derive(Debug)]
pub(super) struct Pending<A> {
    limit: usize,
    state: Mutex<State<A>>,
}

#[derive(Debug)]
struct State<A> {
    parts: VecDeque<Vec<A>>,
    bytes: usize,
    failure: Option<Failure>,
    /// Whether rows were ever lost.
    has_lost: bool,
}

#[derive(Debug)]
struct Failure {
    error: Arc<Error>,
    wait: Duration,
    retry_at: Instant,
}

impl<A: Artifact + Clone> Pending<A> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { parts: VecDeque::new(), bytes: 0, failure: None, has_lost: false };
        Self { limit, state: Mutex::new(state) }
    }

    /// Why the disk has not taken what it was given last, if it has not.
    pub(super) fn failure(&self) -> Option<Arc<Error>> {
        self.lock().failure.as_ref().map(|failure| Arc::clone(&failure.error))
    }

    /// Whether the disk may be asked now.
    pub(super) fn is_due(&self) -> bool {
        self.lock().failure.as_ref().is_none_or(|failure| Instant::now() >= failure.retry_at)
    }

    /// Takes note that the disk failed.
    pub(super) fn failed(&self, error: Error) {
        let mut state = self.lock();
        let wait = match &state.failure {
            Some(failure) => LONGEST_WAIT.min(2 * failure.wait),
            None => {
                tracing::warn!(
                    "{error}; {} stay in memory, and are written once the disk takes them again",
                    A::PLURAL
                );
                FIRST_WAIT
            }
        };
        state.failure = Some(Failure { error: Arc::new(error), wait, retry_at: Instant::now() + wait });
    }

    /// Takes note that the disk has taken something.
    pub(super) fn succeeded(&self) {
        if let Some(failure) = self.lock().failure.take() {
            tracing::info!("{}: over: {} are written again", failure.error, A::PLURAL);
        }
    }

    /// Has `rows` wait, if there is room for them.
    pub(super) fn push(&self, rows: &[A]) {
        let mut state = self.lock();
        let bytes = bytes(rows);
        if state.bytes + bytes <= self.limit {
            state.bytes += bytes;
            state.parts.push_back(rows.to_vec());
        } else if !std::mem::replace(&mut state.has_lost, true) {
            tracing::warn!(
                "{} that could not be written no longer fit into {} bytes of memory: what leaves it is made again in \
                 every epoch and run; make room on the disk, or raise the memory limit",
                A::PLURAL,
                self.limit
            );
        }
    }

    /// The rows that have waited longest.
    pub(super) fn first(&self) -> Option<Vec<A>> {
        self.lock().parts.front().cloned()
    }

    /// Forgets the rows that have waited longest: they are on disk now.
    pub(super) fn pop(&self) {
        let mut state = self.lock();
        if let Some(rows) = state.parts.pop_front() {
            state.bytes -= bytes(&rows);
        }
    }

    /// The row under `key`, if it waits.
    pub(super) fn find(&self, key: &RowKey) -> Option<A> {
        self.lock().parts.iter().flatten().find(|row| row.key() == *key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        // Every update leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes<A: Artifact>(rows: &[A]) -> usize {
    rows.iter().map(Artifact::size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{ImageForm, ImageRow};
    use crate::{Digest, Label, RgbImage};

    fn row(n: u8) -> ImageRow {
        ImageRow {
            form: ImageForm::Png,
            key: RowKey::from(Digest::of(&[n])),
            image: Arc::new(RgbImage::new(2, 1, vec![n; 6]).unwrap()),
            label: Label::Hard(0),
            index: n.into(),
            variant: 0,
            seconds: 0.0,
        }
    }

    #[test]
    fn what_came_first_waits_within_the_bound() {
        let pending = Pending::new(bytes(&[row(0), row(1), row(2)]));
        pending.push(&[row(0), row(1)]);
        pending.push(&[row(2), row(3)]);
        pending.push(&[row(4)]);
        let found = |n| pending.find(&row(n).key).map(|row| row.image.as_bytes()[0]);
        assert_eq!([0, 1, 2, 3, 4].map(found), [Some(0), Some(1), None, None, Some(4)]);
        assert_eq!(pending.first(), Some(vec![row(0), row(1)]));
        pending.pop();
        pending.push(&[row(5), row(6)]);
        assert_eq!([0, 4, 5].map(found), [None, Some(4), Some(5)]);
    }

    #[test]
    fn a_disk_that_failed_is_left_alone_for_a_while() {
        let pending = Pending::<ImageRow>::new(0);
        assert!(pending.is_due() && pending.failure().is_none());
        pending.failed(Error::config("disk", "full"));
        assert!(!pending.is_due());
        assert_eq!(pending.failure().unwrap().to_string(), "disk: full");
        pending.succeeded();
        assert!(pending.is_due() && pending.failure().is_none());
    }
}

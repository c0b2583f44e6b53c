//! What writers do by themselves, so that a partition never has too many small parts.

use crate::cache::{Artifact, Lease, Partition, RowKey};
use crate::said::warn_once;
use crate::{CancelToken, Digest, Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// So many parts as they were committed are left alone: opening them takes little.
const ENOUGH: usize = 128;

/// A writer's own compaction, on a thread beside it. Dropping it ends it, and loses nothing.
#[derive(Debug)]
pub(in crate::cache) struct Gathering {
    running: Mutex<Option<Running>>,
    /// How many parts as they were committed there may be until the next one.
    bound: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    cancel: CancelToken,
    process: u32,
}

impl Default for Gathering {
    fn default() -> Self {
        Self { running: Mutex::default(), bound: Arc::new(AtomicUsize::new(ENOUGH)) }
    }
}

impl<A: Artifact> Partition<A> {
    /// Gathers small parts on a thread of its own, if there are too many, and if neither this process nor another one
    /// does so already.
    pub(in crate::cache) fn gather_if_due(&self) {
        let gathering = self.gathering();
        // Every update leaves it whole.
        let mut running = gathering.running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_running = running.as_ref().is_some_and(|running| !running.thread.is_finished());
        if is_running || self.fresh_parts() < gathering.bound.load(Ordering::Relaxed) {
            return;
        }
        match self.start_gathering(Arc::clone(&gathering.bound)) {
            Ok(started) => *running = started,
            Err(error) => tracing::debug!("{error}; cache parts are merged later"),
        }
    }

    /// `None` if another process is at it.
    fn start_gathering(&self, bound: Arc<AtomicUsize>) -> Result<Option<Running>> {
        // As if it were a row, so that whoever tidies up sees that someone is at work.
        let key = RowKey::from(Digest::of(b"gathering"));
        let lease = self.leases().claim(&[key], 1, &|_| false)?;
        if !lease.holds(&key) {
            return Ok(None);
        }
        let other = self.reopener();
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let gather = move |lease: Lease| {
            let gathered = other().and_then(|partition| {
                let before = partition.fresh_parts();
                Ok(before.saturating_sub(partition.compact(&token)?.gathered))
            });
            match gathered {
                // Those that are large enough as they are. What was committed meanwhile is for the next time.
                Ok(left) => bound.store(left + ENOUGH, Ordering::Relaxed),
                Err(Error::Cancelled) => {}
                Err(error) => {
                    warn_once(&format!("{error}; small cache parts could not be merged"));
                    bound.fetch_add(ENOUGH, Ordering::Relaxed);
                }
            }
            drop(lease);
        };
        let thread = std::thread::Builder::new().name("diver-gather".into()).spawn(move || gather(lease));
        let thread = thread.map_err(Error::io(&self.path(), "cannot start a thread"))?;
        Ok(Some(Running { thread, cancel, process: std::process::id() }))
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { thread, cancel, process }) = running else { return };
        cancel.cancel();
        if process == std::process::id() {
            // It says itself what went wrong.
            let _ = thread.join();
        } else {
            // Its thread is in the process that this one was forked from.
            std::mem::forget(thread);
        }
    }
}

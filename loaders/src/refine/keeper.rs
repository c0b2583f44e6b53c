//! Has refined rows kept while the refiner works on.

use crate::cache::{ImageRow, Lease, Partition, Resident};
use crate::planes::Planes;
use crate::stats::Counters;
use crate::{Error, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Hears what became of rows: their images as a stream has them.
pub(crate) type Done = Box<dyn FnOnce(Result<Vec<Arc<Planes>>, Arc<Error>>) + Send>;

/// Rows on their way to the cache.
pub(crate) struct Rows {
    pub(crate) rows: Vec<ImageRow>,
    /// They are claimed until they are there.
    pub(crate) lease: Option<Arc<Lease>>,
    /// How long it took to refine them.
    pub(crate) refining: Duration,
    /// None where nobody asks for the images.
    pub(crate) done: Option<Done>,
}

enum Errand {
    Rows(Rows),
    /// What the disk has not taken yet, if it may be asked again.
    Pending,
}

/// Gives rows to a thread that keeps them, so that encoding images and waiting for the disk take no time from the
/// refiner: one micro-batch is kept while the next is refined.
///
/// Where keeping takes longer than refining, nothing is to be gained, and a kill would cost two micro-batches in place of
/// one: there it waits.
pub(crate) struct Keeper {
    errands: Sender<Errand>,
    /// How long each micro-batch took, or why it could not be kept.
    kept: Receiver<Result<Duration>>,
    /// Number of rows on their way.
    waiting: usize,
    last: Option<Duration>,
}

/// What the thread carries out.
pub(crate) struct Keeping {
    errands: Receiver<Errand>,
    report: Sender<Result<Duration>>,
}

impl Keeper {
    pub(crate) fn new() -> (Self, Keeping) {
        let (errands, queue) = bounded(1);
        let (report, kept) = bounded(1);
        (Self { errands, kept, waiting: 0, last: None }, Keeping { errands: queue, report })
    }

    /// Number of rows that are on their way.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Has rows kept, once those before are.
    ///
    /// # Errors
    /// Why those before could not be kept, unless somebody else heard.
    pub(crate) fn push(&mut self, rows: Rows) -> Result<()> {
        self.wait()?;
        let (count, refining) = (rows.rows.len(), rows.refining);
        self.errands.send(Errand::Rows(rows)).map_err(|_| ended())?;
        self.waiting = count;
        if self.last.is_none_or(|keeping| refining < keeping) { self.wait() } else { Ok(()) }
    }

    /// Waits until all rows are kept.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn wait(&mut self) -> Result<()> {
        if self.waiting > 0 {
            self.waiting = 0;
            self.last = Some(self.kept.recv().map_err(|_| ended())??);
        }
        Ok(())
    }

    /// Has the disk take what it has not taken yet, if it may be asked again.
    pub(crate) fn write_pending(&self) {
        // The thread ends before its time only in a panic.
        let _ = self.errands.send(Errand::Pending);
    }
}

impl Keeping {
    /// Keeps what comes, until nothing comes any more. `class_names` name the labels.
    pub(crate) fn run(self, store: &Resident, class_names: &[String], counters: &Counters) {
        for errand in self.errands {
            let Errand::Rows(Rows { rows, lease, done, .. }) = errand else {
                store.write_pending_if_due(class_names);
                continue;
            };
            let (count, started) = (rows.len(), Instant::now());
            let kept = match done {
                None => store.keep_unread(&rows, class_names),
                Some(done) => {
                    // Who waits for them need not wait for the disk.
                    done(store.serve(&rows).map_err(Arc::new));
                    store.keep_served(&rows, class_names);
                    Ok(())
                }
            };
            drop(lease);
            counters.keep.add(count, started.elapsed());
            if self.report.send(kept.map(|()| started.elapsed())).is_err() {
                return;
            }
        }
    }

    /// Leaves the cache tidy: has the disk take what it has not taken yet, for the last time, and deletes what processes
    /// that died left of their claims to samples which it has by now.
    pub(crate) fn finish(store: &Resident, class_names: &[String]) {
        store.write_pending(class_names);
        tidy(store);
    }
}

/// Deletes what processes that died left of their claims to samples which the cache has by now.
pub(super) fn tidy(store: &Resident) {
    if let Some(disk) = store.disk().filter(|_| store.failure().is_none()) {
        let disk: &Partition = disk;
        disk.leases().tidy(&|key| disk.contains(key));
    }
}

/// Its thread ends before its time only in a panic.
fn ended() -> Error {
    Error::refine("the thread that writes the cache ended")
}

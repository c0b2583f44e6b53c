//! Jobs on a few threads.

use diver_loaders::{CancelToken, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What a job's thread is called in errors.
const THREAD: &str = "of an evaluation";

/// The results of `work` for every job, in their order; `threads` jobs run at a time. After an error, and once `cancel`
/// is set, no further job starts.
///
/// # Errors
/// The first error of a job; [`Error::Cancelled`].
pub(crate) fn map<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    cancel: &CancelToken,
    work: impl Fn(&J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut results = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { break };
            // A panic ends the other threads' work as an error does.
            let result = catch_unwind(AssertUnwindSafe(|| cancel.check().and_then(|()| work(job))))
                .unwrap_or_else(|panic| Err(Error::panicked(THREAD, &*panic)));
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            results.push((index, result));
        }
        results
    };
    let outcomes: Vec<thread::Result<Vec<_>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut results = Vec::with_capacity(jobs.len());
    for outcome in outcomes {
        results.extend(outcome.map_err(|panic| Error::panicked(THREAD, &*panic))?);
    }
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let jobs: Vec<u64> = (0..20).collect();
        for threads in [0, 1, 3, 50] {
            let squares = map(&jobs, threads, &CancelToken::new(), |job| {
                // The first jobs end last.
                thread::sleep(std::time::Duration::from_millis(20 - job));
                Ok(job * job)
            });
            assert_eq!(squares.unwrap(), jobs.iter().map(|job| job * job).collect::<Vec<_>>());
        }
        assert!(map(&[] as &[u8], 2, &CancelToken::new(), |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn no_job_starts_after_an_error_or_once_cancelled() {
        let started = AtomicUsize::new(0);
        let failing = |job: &usize| {
            started.fetch_add(1, Ordering::Relaxed);
            if *job == 2 { Err(Error::config("job", "2 fails")) } else { Ok(()) }
        };
        let jobs: Vec<usize> = (0..100).collect();
        let error = map(&jobs, 1, &CancelToken::new(), failing).unwrap_err();
        assert_eq!((error.to_string().as_str(), started.load(Ordering::Relaxed)), ("job: 2 fails", 3));
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(matches!(map(&jobs, 2, &cancel, |_| Ok(())), Err(Error::Cancelled)));
    }

    #[test]
    fn a_panic_is_an_error() {
        let started = AtomicUsize::new(0);
        let error = map(&[0; 50], 1, &CancelToken::new(), |_| -> Result<()> {
            started.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose")
        });
        assert!(matches!(error, Err(Error::Panicked { message, .. }) if message == "on purpose"));
        assert_eq!(started.load(Ordering::Relaxed), 1);
    }
}

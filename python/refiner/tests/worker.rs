//! The thread of a refiner, without Python and without a refiner.

#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    missing_debug_implementations,
    reason = "as in the extension"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../src/worker.rs"]
mod worker;

use crossbeam::channel::{Receiver, bounded};
use diver_loaders::CancelToken;
use std::sync::Arc;
use std::time::Duration;
use worker::{Event, Worker};

const LONG: Duration = Duration::from_secs(10);

fn done<T>(events: &Receiver<Event<T>>) -> T {
    loop {
        match events.recv_timeout(LONG).unwrap() {
            Event::Done(value) => return value,
            Event::Step(..) => {}
            Event::Panicked(message) => panic!("{message}"),
        }
    }
}

/// A job that says that it runs, and then does so until it is cancelled.
fn endless(worker: &Worker<i32>, cancel: &CancelToken) -> (Receiver<()>, Receiver<Event<bool>>) {
    let (sender, running) = bounded(1);
    let token = cancel.clone();
    let events = worker.submit(cancel, move |_, _| {
        sender.send(()).unwrap();
        while !token.is_cancelled() {
            std::thread::yield_now();
        }
        true
    });
    (running, events.unwrap())
}

#[test]
fn jobs_share_the_value_and_run_in_order() {
    let worker = Worker::spawn("test").unwrap();
    let cancel = CancelToken::new();
    let count = |value: &mut Option<i32>| *value.insert(value.unwrap_or(0) + 1);
    let all: Vec<_> = (0..20).map(|_| worker.submit(&cancel, move |v, _| count(v)).unwrap()).collect();
    assert_eq!(all.iter().map(done).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert!(worker.is_idle());
}

#[test]
fn steps_are_heard_before_the_result() {
    let worker = Worker::<()>::spawn("test").unwrap();
    let events =
        worker.submit(&CancelToken::new(), |_, steps| (1..=2).for_each(|k| steps.step(k, 2))).unwrap();
    let heard: Vec<_> = events.iter().collect();
    assert!(matches!(heard[..], [Event::Step(1, 2), Event::Step(2, 2), Event::Done(())]), "{heard:?}");
}

#[test]
fn a_panic_is_an_answer_and_the_thread_lives_on() {
    let worker = Worker::spawn("test").unwrap();
    let cancel = CancelToken::new();
    let events = worker.submit(&cancel, |value, _| {
        *value = Some(3);
        assert_eq!(*value, Some(4), "on purpose");
    });
    let Event::Panicked(message) = events.unwrap().recv_timeout(LONG).unwrap() else { panic!() };
    assert!(message.contains("on purpose"), "{message}");
    assert_eq!(done(&worker.submit(&cancel, |value, _| *value).unwrap()), Some(3));
}

#[test]
fn stopping_cancels_what_runs_and_drops_what_waits() {
    let worker = Worker::spawn("test").unwrap();
    let (running, first) = endless(&worker, &CancelToken::new());
    let kept = Arc::new(());
    let its = Arc::clone(&kept);
    let second = worker.submit(&CancelToken::new(), move |_, _| Arc::strong_count(&its)).unwrap();
    running.recv_timeout(LONG).unwrap();
    assert!(!worker.is_idle());
    assert!(!worker.thread().has_ended_within(Duration::from_millis(1)));

    worker.thread().stop();
    worker.thread().stop();
    assert!(done(&first));
    assert!(worker.thread().has_ended_within(LONG));
    worker.thread().join();
    assert!(worker.thread().is_stopping());
    assert!(worker.submit(&CancelToken::new(), |_, _| ()).is_err());

    assert!(second.recv_timeout(LONG).is_err());
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[test]
fn a_stopped_thread_drops_its_value_itself() {
    struct Dropped(crossbeam::channel::Sender<Option<String>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send(std::thread::current().name().map(str::to_owned)).unwrap();
        }
    }
    let (sender, dropped) = bounded(1);
    let worker = Worker::spawn("owner").unwrap();
    let events = worker.submit(&CancelToken::new(), move |value, _| *value = Some(Dropped(sender)));
    done(&events.unwrap());
    worker.thread().stop();
    assert_eq!(dropped.recv_timeout(LONG).unwrap().as_deref(), Some("owner"));
}

#[test]
fn a_thread_is_known_until_it_is_forgotten() {
    let worker = Worker::<()>::spawn("test").unwrap();
    let is_known = || worker::live().iter().any(|thread| Arc::ptr_eq(thread, worker.thread()));
    assert!(worker.thread().is_of_this_process() && is_known());
    worker.thread().stop();
    worker.thread().join();
    assert!(is_known());
    worker.thread().forget();
    assert!(!is_known());
}

#[test]
fn a_thread_does_not_wait_for_itself() {
    let worker = Arc::new(Worker::<()>::spawn("test").unwrap());
    let its = Arc::clone(&worker);
    let events = worker.submit(&CancelToken::new(), move |_, _| {
        its.thread().stop();
        its.thread().join();
    });
    done(&events.unwrap());
    assert!(worker.thread().has_ended_within(LONG));
}

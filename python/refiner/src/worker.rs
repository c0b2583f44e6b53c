//! A thread that owns a value for life, and does jobs on it one after the other.
//!
//! libtorch keeps state for each thread (its pool of OpenMP threads, the current CUDA device), and no thread may be in
//! it when the process ends. So a refiner has one thread, and every such thread can be found and ended at exit.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased, unbounded};
use diver_loaders::CancelToken;
use diver_loaders::refine::Progress;
use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What whoever waits for a job hears: any number of steps, then one of the others.
#[derive(Debug)]
pub enum Event<T> {
    /// So many steps of so many are done.
    Step(usize, usize),
    /// What the job returned.
    Done(T),
    /// The job panicked, with this message; the thread lives on.
    Panicked(String),
}

/// The refiner was closed: no job is taken any more.
#[derive(Clone, Copy, Debug)]
pub struct Closed;

type Work<S> = Box<dyn FnOnce(&mut Option<S>) + Send>;

struct Job<S> {
    cancel: CancelToken,
    work: Work<S>,
}

/// The thread, from outside. The value is none until a job puts one there.
pub struct Worker<S> {
    jobs: Sender<Job<S>>,
    pending: Arc<AtomicUsize>,
    thread: Arc<Thread>,
}

/// The half of a [`Worker`] that knows nothing of its value.
pub struct Thread {
    process: u32,
    state: Mutex<State>,
    stop: Sender<()>,
    /// Disconnected once the value is gone.
    ended: Receiver<Infallible>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    closing: bool,
    running: Option<CancelToken>,
}

/// Every thread that was not waited for. Locked only by threads that hold Python's interpreter lock, as whoever forks
/// does: so it is never locked in a forked child for good.
static LIVE: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

/// The threads of this process that were not waited for.
pub fn live() -> Vec<Arc<Thread>> {
    lock(&LIVE).iter().filter(|thread| thread.is_of_this_process()).cloned().collect()
}

impl<S: Send + 'static> Worker<S> {
    /// Starts the thread.
    pub fn spawn(name: &str) -> std::io::Result<Self> {
        let (jobs, queue) = unbounded();
        let (stop, stopped) = bounded(1);
        let (alive, ended) = bounded(0);
        let thread = Arc::new(Thread {
            process: std::process::id(),
            state: Mutex::default(),
            stop,
            ended,
            handle: Mutex::default(),
        });
        let its = Arc::clone(&thread);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive: Sender<Infallible> = alive;
            its.run(&queue, &stopped);
        })?;
        *lock(&thread.handle) = Some(handle);
        lock(&LIVE).push(Arc::clone(&thread));
        Ok(Self { jobs, pending: Arc::default(), thread })
    }

    /// Has the thread do `work` after what it was given before. If the channel that is returned disconnects before
    /// the end of the work, the thread was stopped and the work dropped.
    pub fn submit<T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Option<S>, &dyn Progress) -> T + Send + 'static,
    ) -> Result<Receiver<Event<T>>, Closed> {
        let (sender, events) = unbounded();
        let pending = Pending::new(&self.pending);
        let work: Work<S> = Box::new(move |value| {
            let steps = Steps(sender.clone());
            let result = catch_unwind(AssertUnwindSafe(|| work(value, &steps)));
            // Before the answer: who has it finds the thread idle.
            drop(pending);
            // Nobody listens after Ctrl-C.
            let _ = sender.send(result.map_or_else(|panic| Event::Panicked(message(&*panic)), Event::Done));
        });
        if lock(&self.thread.state).closing {
            return Err(Closed);
        }
        self.jobs.send(Job { cancel: cancel.clone(), work }).map_err(|_| Closed)?;
        Ok(events)
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// The thread itself.
    pub fn thread(&self) -> &Arc<Thread> {
        &self.thread
    }
}

impl Thread {
    fn run<S>(&self, queue: &Receiver<Job<S>>, stopped: &Receiver<()>) {
        let mut value = None;
        loop {
            let job = select_biased! {
                recv(stopped) -> _ => break,
                recv(queue) -> job => job,
            };
            let Ok(Job { cancel, work }) = job else { break };
            {
                let mut state = lock(&self.state);
                if state.closing {
                    break;
                }
                state.running = Some(cancel);
            }
            work(&mut value);
            lock(&self.state).running = None;
        }
    }

    /// Whether this process started the thread. A forked child has none of its parent's threads, and must neither
    /// wait for one nor touch what it may have locked.
    pub fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        lock(&self.state).closing
    }

    /// Cancels what runs and drops what waits; the thread then ends by itself.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.closing = true;
        if let Some(running) = &state.running {
            running.cancel();
        }
        drop(state);
        // Full: it was stopped before.
        let _ = self.stop.try_send(());
    }

    /// Waits for the thread to end, for at most `timeout`; whether it has. Not to be called with the interpreter held:
    /// the thread may need it.
    pub fn has_ended_within(&self, timeout: Duration) -> bool {
        if !matches!(self.ended.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected)) {
            return false;
        }
        self.join();
        true
    }

    /// Waits for the thread to end, as [`has_ended_within`](Self::has_ended_within) does, however long it takes.
    pub fn join(&self) {
        let mut handle = lock(&self.handle);
        // A garbage collection may drop a refiner on its own thread.
        if handle.as_ref().is_some_and(|handle| handle.thread().id() == std::thread::current().id()) {
            return;
        }
        if let Some(handle) = handle.take() {
            // It catches the panics of its jobs.
            let _ = handle.join();
        }
    }

    /// Takes the thread off the list of those to wait for at exit. To be called with the interpreter held.
    pub fn forget(&self) {
        lock(&LIVE).retain(|other| !std::ptr::eq(&**other, self));
    }
}

/// Counts a job from its submission until it has run or was dropped.
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Steps<T>(Sender<Event<T>>);

impl<T: Send> Progress for Steps<T> {
    fn step(&self, done: usize, total: usize) {
        let _ = self.0.send(Event::Step(done, total));
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! How far a long command is: a bar on terminals, now and then a line elsewhere.

use crate::refine::{Meter, Progress};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines in a log.
const PAUSE: Duration = Duration::from_secs(30);

/// Images and denoising steps, or other things, on standard error.
pub(super) struct Bar {
    /// What is done, and to what.
    words: [&'static str; 2],
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    meter: Meter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many are done, and how many were when that was first known.
    done: usize,
    first: Option<usize>,
    /// How much of a batch is done, in percent.
    of_batch: Option<usize>,
    /// When a line was written last, where there is no bar.
    told: Option<Instant>,
}

impl Bar {
    /// A bar for images that are refined.
    pub(super) fn new() -> Self {
        Self::of("refining", "images")
    }

    /// A bar for other work, as in "verifying" "parts".
    pub(super) fn of(doing: &'static str, things: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let template = format!("{doing} {{wide_bar}} {{pos}}/{{len}} {things}{{msg}}");
        // The words are constants; if one were wrong, the default style would serve.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let told = (!std::io::stderr().is_terminal()).then(Instant::now);
        let state = Mutex::new(State { told, ..State::default() });
        Self { words: [doing, things], bar, meter: Meter::default(), state }
    }

    /// So many are done.
    pub(super) fn count(&self, done: usize, total: usize) {
        self.meter.images(done, total);
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        let mut state = self.state();
        state.done = done;
        if state.first.is_none() {
            state.first = Some(done);
            // What was there before took no time.
            self.bar.reset_eta();
        }
        self.show(&mut state);
    }

    fn show(&self, state: &mut State) {
        let of_batch =
            state.of_batch.map(|percent| format!(", {percent} % of this batch")).unwrap_or_default();
        let left = self.left(state).map(|left| format!(", {} left", HumanDuration(left))).unwrap_or_default();
        if state.told.is_some_and(|told| told.elapsed() >= PAUSE) {
            state.told = Some(Instant::now());
            let ([doing, things], State { done, .. }) = (self.words, &state);
            let total = self.bar.length().unwrap_or_default();
            // A log that cannot be written stops no work.
            let _ = writeln!(std::io::stderr(), "{doing}: {done} of {total} {things}{of_batch}{left}");
        }
        self.bar.set_message(of_batch + &left);
    }

    /// How long the rest takes, if that is known: by the refiner's pace, which knows how far a batch is, or by what was
    /// counted.
    fn left(&self, state: &State) -> Option<Duration> {
        let by_pace = self.meter.read().and_then(|refining| refining.eta_seconds);
        let by_pace = by_pace.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        by_pace.or_else(|| state.first.is_some_and(|first| state.done > first).then(|| self.bar.eta()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every update leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn start(&self, images: usize) {
        self.meter.start(images);
    }

    fn step(&self, done: usize, total: usize) {
        self.meter.step(done, total);
        let mut state = self.state();
        state.of_batch = Some(100 * done / total.max(1));
        self.show(&mut state);
    }

    fn end(&self, is_done: bool) {
        self.meter.end(is_done);
        self.state().of_batch = None;
    }

    fn images(&self, done: usize, total: usize) {
        self.count(done, total);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! How far a long command is: a bar on terminals, now and then a line elsewhere.

use crate::refine::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines in a log.
const PAUSE: Duration = Duration::from_secs(30);

/// Images and denoising steps, or other things, on standard error.
pub(super) struct Bar {
    /// What is done, and to what.
    words: [&'static str; 2],
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    state: Mutex<State>,
}

struct State {
    /// Images that were there before.
    first: Option<usize>,
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
        let bar = Self { words: [doing, things], bar, state: State { first: None, told: None }.into() };
        // Until the first are done, nobody knows how long it takes.
        bar.style("");
        if !std::io::stderr().is_terminal() {
            bar.state.lock().unwrap_or_else(PoisonError::into_inner).told = Some(Instant::now());
        }
        bar
    }

    fn style(&self, end: &str) {
        let [doing, things] = self.words;
        // The words are constants; if one were wrong, the default style would serve.
        let template = format!("{doing} {{wide_bar}} {{pos}}/{{len}} {things}{{msg}}{end}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
    }

    /// So many are done.
    pub(super) fn count(&self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar.set_position(done as u64);
        match state.first {
            None => {
                state.first = Some(done);
                // What was there before took no time.
                self.bar.reset_eta();
            }
            Some(first) if done > first => self.style(", {eta} left"),
            Some(_) => {}
        }
        if state.told.is_some_and(|told| told.elapsed() >= PAUSE) {
            state.told = Some(Instant::now());
            let [doing, things] = self.words;
            // A log that cannot be written stops no work.
            let _ = writeln!(std::io::stderr(), "{doing}: {done} of {total} {things}");
        }
    }
}

impl Progress for Bar {
    fn step(&self, done: usize, total: usize) {
        self.bar.set_message(format!(", {} % of this batch", 100 * done / total.max(1)));
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

//! How far refinement is: a bar on terminals, now and then a line elsewhere.

use crate::refine::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Until the first images are done, nobody knows how long it takes.
const AT_FIRST: &str = "refining {wide_bar} {pos}/{len} images{msg}";
const LATER: &str = "refining {wide_bar} {pos}/{len} images{msg}, {eta} left";

/// Time between two lines in a log.
const PAUSE: Duration = Duration::from_secs(30);

/// Images and denoising steps, on standard error.
pub(super) struct Bar {
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
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let bar = Self { bar, state: State { first: None, told: None }.into() };
        bar.style(AT_FIRST);
        if !std::io::stderr().is_terminal() {
            bar.state.lock().unwrap_or_else(PoisonError::into_inner).told = Some(Instant::now());
        }
        bar
    }

    fn style(&self, template: &str) {
        // The templates are constants; if one were wrong, the default style would serve.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}

impl Progress for Bar {
    fn step(&self, done: usize, total: usize) {
        self.bar.set_message(format!(", {} % of this batch", 100 * done / total.max(1)));
    }

    fn images(&self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar.set_position(done as u64);
        match state.first {
            None => {
                state.first = Some(done);
                // What was there before took no time.
                self.bar.reset_eta();
            }
            Some(first) if done > first => self.style(LATER),
            Some(_) => {}
        }
        if state.told.is_some_and(|told| told.elapsed() >= PAUSE) {
            state.told = Some(Instant::now());
            // A log that cannot be written stops no refinement.
            let _ = writeln!(std::io::stderr(), "refining: {done} of {total} images");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

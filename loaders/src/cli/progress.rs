//! A progress bar for refinement, on terminals.

use crate::refine::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Images and denoising steps, drawn on standard error if that is a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        // The template is a constant; if it were wrong, the default style would serve.
        if let Ok(style) =
            ProgressStyle::with_template("refining {wide_bar} {pos}/{len} images, {msg} {eta} left")
        {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&self, done: usize, total: usize) {
        self.0.set_message(format!("{} % of this batch,", 100 * done / total.max(1)));
    }

    fn images(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

//! Progress of a whole batch, heard from its parts.

use diver_loaders::refine::Progress;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One of the parts of a batch. A step counts once for each image.
pub(super) struct Part<'a> {
    pub(super) images: Range<usize>,
    pub(super) of: usize,
    pub(super) progress: &'a dyn Progress,
    /// What was told last: a part that is tried again does not lead back.
    pub(super) furthest: &'a AtomicUsize,
}

impl Progress for Part<'_> {
    fn step(&self, done: usize, total: usize) {
        let done = self.images.start * total + self.images.len() * done;
        let furthest = self.furthest.fetch_max(done, Ordering::Relaxed).max(done);
        self.progress.step(furthest, self.of * total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn progress_runs_through_all_parts() {
        struct Heard(Mutex<Vec<(usize, usize)>>);
        impl Progress for Heard {
            fn step(&self, done: usize, total: usize) {
                self.0.lock().unwrap().push((done, total));
            }
        }
        let heard = Heard(Mutex::new(Vec::new()));
        let furthest = AtomicUsize::new(0);
        // The first part is tried again in halves.
        for images in [0..2, 0..1, 1..2, 2..3] {
            let part = Part { images, of: 3, progress: &heard, furthest: &furthest };
            (1..=2).for_each(|step| part.step(step, 2));
        }
        let heard: Vec<_> = heard.0.into_inner().unwrap().into_iter().map(|(done, _)| done).collect();
        assert_eq!(heard, [2, 4, 4, 4, 4, 4, 5, 6]);
    }
}

//! Has the teacher look at what batches wait for.

use super::replies::Reply;
use crate::cache::RowKey;
use crate::stats::Counters;
use crate::stream::shared::Shared;
use crate::teach::{Logits, Teach, TeachBatch};
use crate::{Error, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long nothing is asked of the teacher before it gives back its memory.
const IDLE: Duration = Duration::from_secs(30);

/// The logits of one view; the error is shared by all views of a call.
pub(super) type Learnt = Result<Arc<[f32]>, Arc<Error>>;

/// A view that the teacher is to look at.
pub(in crate::stream) struct Lesson {
    pub(super) key: RowKey,
    /// The sample's class.
    pub(super) class: usize,
    pub(super) image: Vec<f32>,
    pub(super) reply: Reply<Learnt>,
}

/// Calls the teacher, on one thread, in batches of the size that it likes.
pub(in crate::stream) struct Teaching {
    pub(in crate::stream) shared: Arc<Shared>,
    pub(in crate::stream) teacher: Box<dyn Teach>,
    pub(in crate::stream) lessons: Receiver<Vec<Lesson>>,
}

impl Teaching {
    /// Works until the loader is dropped.
    pub(in crate::stream) fn run(mut self) {
        let mut waiting: VecDeque<Lesson> = VecDeque::new();
        let mut is_released = true;
        while !self.shared.cancel.is_cancelled() {
            if waiting.is_empty() {
                match self.lessons.recv_timeout(IDLE) {
                    Ok(lessons) => waiting.extend(lessons),
                    Err(RecvTimeoutError::Timeout) => {
                        self.rest(&mut is_released);
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            waiting.extend(self.lessons.try_iter().flatten());
            let lessons = self.next(&mut waiting);
            if !lessons.is_empty() {
                self.teach(lessons);
                is_released = false;
            }
        }
        if let Some(taught) = &self.shared.labelling.taught {
            taught.bank.flush();
        }
    }

    /// The lessons of the next call, each view once: another batch may have asked for it as well. What has been learnt
    /// meanwhile is answered.
    fn next(&self, waiting: &mut VecDeque<Lesson>) -> Vec<Lesson> {
        let at_most = self.teacher.preferred_batch().max(1);
        let (mut lessons, mut again) = (Vec::new(), Vec::new());
        let mut keys = HashSet::new();
        while lessons.len() < at_most
            && let Some(lesson) = waiting.pop_front()
        {
            let bank = self.shared.labelling.taught.as_ref().map(|taught| &taught.bank);
            match bank.map(|bank| bank.find(&lesson.key)) {
                Some(Ok(Some(logits))) => self.answer(lesson, Ok(logits)),
                Some(Err(error)) => self.answer(lesson, Err(Arc::new(error))),
                _ if keys.insert(lesson.key) => lessons.push(lesson),
                _ => again.push(lesson),
            }
        }
        again.into_iter().rev().for_each(|lesson| waiting.push_front(lesson));
        lessons
    }

    fn answer(&self, lesson: Lesson, logits: Learnt) {
        self.shared.teaching.fetch_sub(1, Ordering::Relaxed);
        lesson.reply.answer(logits);
    }

    fn rest(&mut self, is_released: &mut bool) {
        if let Some(taught) = &self.shared.labelling.taught {
            taught.bank.flush();
        }
        if !std::mem::replace(is_released, true)
            && catch_unwind(AssertUnwindSafe(|| self.teacher.release())).is_err()
        {
            tracing::warn!("the teacher panicked when it was to give back its memory");
        }
    }

    /// Has the teacher look at some views, and answers.
    fn teach(&mut self, lessons: Vec<Lesson>) {
        let learnt = self.learn(&lessons);
        for (row, lesson) in lessons.into_iter().enumerate() {
            let logits = match (&learnt, &self.shared.labelling.taught) {
                (Ok(logits), Some(taught)) => {
                    let logits = logits.row(row).unwrap_or_default();
                    taught.bank.keep(lesson.key, lesson.class, logits).map_err(Arc::new)
                }
                (Ok(_), None) => Err(Arc::new(Error::Cancelled)),
                (Err(error), _) => Err(Arc::clone(error)),
            };
            self.answer(lesson, logits);
        }
    }

    fn learn(&mut self, lessons: &[Lesson]) -> Result<Logits, Arc<Error>> {
        let Self { shared, teacher, .. } = self;
        let info = shared.dataset.info();
        let (height, width) = shared.dataset.size();
        let shape = [lessons.len(), info.shape[0], height, width];
        let pixels: Vec<f32> = lessons.iter().flat_map(|lesson| &lesson.image).copied().collect();
        let started = std::time::Instant::now();
        let call = || {
            let batch = TeachBatch::new(&pixels, shape)?;
            Logits::of(&mut **teacher, &batch, info.num_classes, &shared.cancel)
        };
        let learnt = catch_unwind(AssertUnwindSafe(call))
            .unwrap_or_else(|panic| Err(Error::panicked("diver-teach", panic.as_ref())));
        shared.counters.teach.add(lessons.len(), started.elapsed());
        Counters::add(&shared.counters.taught, lessons.len());
        learnt.map_err(Arc::new)
    }
}

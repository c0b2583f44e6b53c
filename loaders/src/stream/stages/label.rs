//! Targets of a batch: of stored labels, a teacher's logits, or both.

use crate::augment::{Augment, Views};
use crate::cache::{LogitRow, RowKey};
use crate::refine::Refinement;
use crate::stats::Counters;
use crate::stream::pipeline::Shared;
use crate::stream::want::{Form, Position, Want};
use crate::teach::{Bank, Logits, Teach, TeachBatch};
use crate::{Digest, Error, Label, Result, Targets};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How long nothing is asked of the teacher before it gives back its memory.
const IDLE: Duration = Duration::from_secs(30);

/// What a teacher looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// Each image as it is before augmentation: once for each image that comes. What augmentation makes of it has the same
    /// logits, and a mix of two the mix of their targets.
    #[default]
    Image,
    /// Each view as it leaves in a batch, cropped, flipped and mixed, as FKD labels them (Shen and Xing, "A Fast Knowledge
    /// Distillation Framework for Visual Recognition", ECCV 2022): anew in every epoch.
    View,
}

/// How a loader's targets are made.
pub(in crate::stream) struct Labelling {
    pub(in crate::stream) targets: Targets,
    pub(in crate::stream) augment: Augment,
    /// None where no teacher is needed.
    pub(in crate::stream) taught: Option<Taught>,
}

/// What is known of a teacher's logits.
pub(in crate::stream) struct Taught {
    pub(in crate::stream) per: Per,
    pub(in crate::stream) bank: Bank,
    /// What makes refined images.
    pub(in crate::stream) refiner: Digest,
}

/// A view that the teacher is to look at.
pub(in crate::stream) struct Lesson {
    key: RowKey,
    class: usize,
    image: Vec<f32>,
    /// Its slot of the batch, and who waits for it.
    slot: usize,
    reply: Sender<(usize, Learnt)>,
}

impl Lesson {
    fn answer(self, logits: Learnt) {
        // A worker that gave up on its batch listens no more.
        let _ = self.reply.send((self.slot, logits));
    }
}

/// The logits of one view; the error is shared by all views of a call.
type Learnt = Result<Arc<[f32]>, Arc<Error>>;

/// Makes the targets of batches, and augments them: a mix of images is a mix of targets.
pub(in crate::stream) struct Labeller {
    pub(in crate::stream) shared: Arc<Shared>,
    /// To the teacher's thread, where there is one.
    pub(in crate::stream) lessons: Option<Sender<Vec<Lesson>>>,
}

/// A batch on its way.
pub(in crate::stream) struct Draft<'a> {
    pub(in crate::stream) position: Position,
    pub(in crate::stream) wants: &'a [Want],
    /// What each came as.
    pub(in crate::stream) came: &'a [Form],
    pub(in crate::stream) labels: &'a [Label],
    /// `[B, C, H, W]`.
    pub(in crate::stream) shape: [usize; 4],
    pub(in crate::stream) images: &'a mut [f32],
    pub(in crate::stream) targets: &'a mut [f32],
}

impl Labeller {
    /// Writes the targets of a batch, and augments it.
    ///
    /// # Errors
    /// If a label does not make a target; the teacher's.
    pub(in crate::stream) fn run(&self, draft: Draft<'_>) -> Result<()> {
        let labelling = &self.shared.labelling;
        let classes = self.shared.dataset.info().num_classes;
        let views = self.draw(&draft);
        let Draft { labels, shape, images, targets, .. } = draft;
        let rows = |targets: &mut [f32], label: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>| {
            targets.chunks_exact_mut(classes).enumerate().try_for_each(|(row, target)| label(row, target))
        };
        let normalize = self.shared.dataset.normalize();
        let Some(taught) = &labelling.taught else {
            rows(targets, &mut |row, target| labelling.targets.write(&labels[row], None, target))?;
            return views.apply(images, shape, targets, classes, normalize);
        };
        let keys = self.keys(&draft.position, draft.wants, draft.came, taught, &views)?;
        match taught.per {
            Per::Image => {
                let logits = self.logits(taught, &keys, labels, images)?;
                rows(targets, &mut |row, target| {
                    labelling.targets.write(&labels[row], Some(&logits[row]), target)
                })?;
                views.apply(images, shape, targets, classes, normalize)
            }
            Per::View => {
                // What is stored is mixed as the images are; the teacher has seen the mix.
                rows(targets, &mut |row, target| labelling.targets.write_stored(&labels[row], target))?;
                views.apply(images, shape, targets, classes, normalize)?;
                let logits = self.logits(taught, &keys, labels, images)?;
                rows(targets, &mut |row, target| {
                    let mixed = Label::Probabilities(target.to_vec());
                    labelling.targets.write(&mixed, Some(&logits[row]), target)
                })
            }
        }
    }

    fn draw(&self, draft: &Draft<'_>) -> Views {
        let labelling = &self.shared.labelling;
        if labelling.augment.is_empty() {
            return Views::default();
        }
        let places: Vec<u64> = draft.wants.iter().map(|want| want.place as u64).collect();
        let [_, _, height, width] = draft.shape;
        labelling.augment.draw(self.shared.plan.seed, draft.position.epoch, &places, [height, width])
    }

    /// What the logits of each view are filed under.
    fn keys(
        &self,
        position: &Position,
        wants: &[Want],
        came: &[Form],
        taught: &Taught,
        views: &Views,
    ) -> Result<Vec<RowKey>> {
        let images: Vec<Digest> = wants
            .iter()
            .zip(came)
            .map(|(want, form)| self.image(taught, want.index, *form))
            .collect::<Result<_>>()?;
        if taught.per == Per::Image || views.is_identity() {
            return Ok(images.into_iter().map(|image| LogitRow::key_of(image, 0)).collect());
        }
        // What a batch shares was drawn by its first place and its length.
        let of_batch = wants.first().map_or(0, |want| want.place);
        let key = |(row, want): (usize, &Want)| {
            let mut hasher = blake3::Hasher::new_derive_key("diver view v1");
            hasher.update(images[row].as_bytes());
            if let Some(mix) = views.mix() {
                hasher.update(images[mix.partners[row]].as_bytes());
            }
            for number in [position.epoch, want.place as u64, of_batch as u64, wants.len() as u64] {
                hasher.update(&number.to_le_bytes());
            }
            LogitRow::key_of(hasher.finalize().into(), 1)
        };
        Ok(wants.iter().enumerate().map(key).collect())
    }

    /// What decides the pixels of an image, before it is augmented.
    fn image(&self, taught: &Taught, index: usize, form: Form) -> Result<Digest> {
        let dataset = &self.shared.dataset;
        let mut hasher = blake3::Hasher::new_derive_key("diver image v1");
        match form {
            Form::Raw => {
                let raw = dataset.identity(Refinement { index, variant: 0 })?;
                hasher.update(b"raw").update(raw.noise.content.as_bytes());
            }
            Form::Refined(variant) | Form::Blend(variant, _) => {
                let refined = dataset.identity(Refinement { index, variant })?;
                hasher.update(b"refined").update(taught.refiner.as_bytes());
                hasher.update(refined.row.digest().as_bytes());
            }
        }
        if let Form::Blend(_, share) = form {
            hasher.update(&share.to_le_bytes());
        }
        Ok(hasher.finalize().into())
    }

    /// The logits of each view: found, or learnt from the teacher.
    fn logits(
        &self,
        taught: &Taught,
        keys: &[RowKey],
        labels: &[Label],
        images: &[f32],
    ) -> Result<Vec<Arc<[f32]>>> {
        let size = images.len() / keys.len();
        let mut found = Vec::with_capacity(keys.len());
        let (reply, replies) = unbounded();
        let mut lessons = Vec::new();
        for (slot, (key, image)) in keys.iter().zip(images.chunks_exact(size)).enumerate() {
            let logits = taught.bank.find(key)?;
            if logits.is_none() {
                let (image, class) = (image.to_vec(), labels[slot].class());
                lessons.push(Lesson { key: *key, class, image, slot, reply: reply.clone() });
            }
            found.push(logits);
        }
        drop(reply);
        let asked = lessons.len();
        Counters::add(&self.shared.counters.label_hits, keys.len() - asked);
        if let (Some(teacher), true) = (&self.lessons, asked > 0) {
            teacher.send(lessons).map_err(|_| Error::Cancelled)?;
        }
        for _ in 0..asked {
            // The teacher's thread answers every lesson unless it is being shut down.
            let (slot, logits): (usize, Learnt) = replies.recv().map_err(|_| Error::Cancelled)?;
            found[slot] = Some(logits?);
        }
        found.into_iter().map(|logits| logits.ok_or(Error::Cancelled)).collect()
    }
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
                Some(Ok(Some(logits))) => lesson.answer(Ok(logits)),
                // What cannot be read is found out by whoever looks for it.
                _ if keys.insert(lesson.key) => lessons.push(lesson),
                _ => again.push(lesson),
            }
        }
        again.into_iter().rev().for_each(|lesson| waiting.push_front(lesson));
        lessons
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
            lesson.answer(logits);
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
        shared.counters.add_teach_time(started.elapsed());
        Counters::add(&shared.counters.taught, lessons.len());
        learnt.map_err(Arc::new)
    }
}

//! Targets of a batch: of stored labels, a teacher's logits, or both.

use super::fetch::Came;
use super::replies::Replies;
use super::teach::{Learnt, Lesson};
use crate::augment::{Augment, Views};
use crate::cache::{LogitRow, RowKey};
use crate::refine::Refinement;
use crate::stats::Counters;
use crate::stream::shared::Shared;
use crate::stream::want::{Form, Position, Want};
use crate::teach::Bank;
use crate::{Digest, Error, Label, Result, Targets};
use crossbeam::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a teacher looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// Each image as it is before augmentation: once for each image that comes. What augmentation makes of it has the same
    /// logits, and a mix of two images, as a blend of raw and refined, the mix of their targets.
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
    pub(in crate::stream) came: &'a [Came],
    /// `[B, C, H, W]`.
    pub(in crate::stream) shape: [usize; 4],
    pub(in crate::stream) images: &'a mut [f32],
    pub(in crate::stream) targets: &'a mut [f32],
}

/// The logits that a target is made of, or a part of it.
struct Look {
    slot: usize,
    key: RowKey,
    /// Which image they are of.
    form: Form,
    /// How much of the target they make.
    share: f32,
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
        let Draft { wants, came, shape, images, targets, position } = draft;
        let normalize = self.shared.dataset.normalize();
        let rows = |targets: &mut [f32], write: &mut dyn FnMut(&Label, &mut [f32]) -> Result<()>| {
            let mut rows = came.iter().zip(targets.chunks_exact_mut(classes));
            rows.try_for_each(|(came, row)| write(&came.label, row))
        };
        let taught = labelling.taught.as_ref().filter(|_| labelling.targets.needs_teacher());
        match taught {
            None => {
                rows(targets, &mut |label, target| labelling.targets.write(label, None, target))?;
                views.apply(images, shape, targets, classes, normalize)
            }
            Some(taught) if taught.per == Per::Image => {
                let looks = self.at_images(taught, wants, came)?;
                let logits = self.logits(taught, &looks, (wants, came), images)?;
                self.write(&looks, &logits, &|slot| &came[slot].label, targets)?;
                views.apply(images, shape, targets, classes, normalize)
            }
            Some(taught) => {
                let looks = self.at_views(taught, wants, came, position.epoch, &views)?;
                // What is stored is mixed as the images are; the teacher has seen the mix.
                rows(targets, &mut |label, target| labelling.targets.write_stored(label, target))?;
                views.apply(images, shape, targets, classes, normalize)?;
                let logits = self.logits(taught, &looks, (wants, came), images)?;
                let mixed: Vec<Label> =
                    targets.chunks_exact(classes).map(|row| Label::Probabilities(row.to_vec())).collect();
                self.write(&looks, &logits, &|slot| &mixed[slot], targets)
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

    /// A look at each image, or at both that it is blended of: the target is blended alike. So no share asks for logits of
    /// its own.
    fn at_images(&self, taught: &Taught, wants: &[Want], came: &[Came]) -> Result<Vec<Look>> {
        let mut looks = Vec::with_capacity(wants.len());
        for (slot, (want, came)) in wants.iter().zip(came).enumerate() {
            let parts = match came.form {
                Form::Blend(variant, share) => {
                    [Some((Form::Raw, 1.0 - share)), Some((Form::Refined(variant), share))]
                }
                form => [Some((form, 1.0)), None],
            };
            for (form, share) in parts.into_iter().flatten() {
                let key = LogitRow::key_of(self.image(taught, want.index, form)?, 0);
                looks.push(Look { slot, key, form, share });
            }
        }
        Ok(looks)
    }

    /// A look at each view, as it leaves.
    fn at_views(
        &self,
        taught: &Taught,
        wants: &[Want],
        came: &[Came],
        epoch: u64,
        views: &Views,
    ) -> Result<Vec<Look>> {
        let images: Vec<Digest> = wants
            .iter()
            .zip(came)
            .map(|(want, came)| self.image(taught, want.index, came.form))
            .collect::<Result<_>>()?;
        // What a batch shares was drawn by its first place and its length.
        let of_batch = wants.first().map_or(0, |want| want.place);
        let key = |row: usize, want: &Want| {
            if views.is_identity() {
                return LogitRow::key_of(images[row], 0);
            }
            let mut hasher = blake3::Hasher::new_derive_key("diver view v1");
            hasher.update(images[row].as_bytes());
            if let Some(mix) = views.mix() {
                hasher.update(images[mix.partners[row]].as_bytes());
            }
            for number in [epoch, want.place as u64, of_batch as u64, wants.len() as u64] {
                hasher.update(&number.to_le_bytes());
            }
            LogitRow::key_of(hasher.finalize().into(), 1)
        };
        let look = |(slot, want)| Look { slot, key: key(slot, want), form: came[slot].form, share: 1.0 };
        Ok(wants.iter().enumerate().map(look).collect())
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

    /// The logits of images before augmentation, for each want.
    ///
    /// # Errors
    /// The teacher's.
    pub(super) fn logits_of_images(
        &self,
        taught: &Taught,
        wants: &[Want],
        came: &[Came],
        images: &[f32],
    ) -> Result<Vec<Arc<[f32]>>> {
        let looks = self.at_images(taught, wants, came)?;
        self.logits(taught, &looks, (wants, came), images)
    }

    /// The logits of each look: found, or learnt from the teacher.
    fn logits(
        &self,
        taught: &Taught,
        looks: &[Look],
        (wants, came): (&[Want], &[Came]),
        images: &[f32],
    ) -> Result<Vec<Arc<[f32]>>> {
        let size = images.len() / wants.len();
        let mut found = Vec::with_capacity(looks.len());
        let (mut replies, mut lessons) = (Replies::new(), Vec::new());
        for (number, look) in looks.iter().enumerate() {
            let logits = taught.bank.find(&look.key)?;
            if logits.is_none() {
                let slot = look.slot;
                let mut image = images[slot * size..][..size].to_vec();
                match &came[slot].refined {
                    Some(refined) if look.share < 1.0 && look.form != Form::Raw => {
                        refined.write(&mut image, &self.shared.scale);
                    }
                    Some(_) if look.share < 1.0 => {
                        self.shared.dataset.write_raw(wants[slot].index, &mut image)?;
                    }
                    _ => {}
                }
                let (key, class) = (look.key, came[slot].label.class());
                lessons.push(Lesson { key, class, image, reply: replies.ask(number) });
            }
            found.push(logits);
        }
        Counters::add(&self.shared.counters.label_hits, looks.len() - replies.asked());
        if let (Some(teacher), false) = (&self.lessons, lessons.is_empty()) {
            self.shared.teaching.fetch_add(lessons.len(), Ordering::Relaxed);
            teacher.send(lessons).map_err(|_| Error::Cancelled)?;
        }
        replies.wait(|number, logits: Learnt| {
            found[number] = Some(logits?);
            Ok(())
        })?;
        found.into_iter().map(|logits| logits.ok_or(Error::Cancelled)).collect()
    }

    /// Makes the targets of labels and logits.
    fn write<'l>(
        &self,
        looks: &[Look],
        logits: &[Arc<[f32]>],
        label: &dyn Fn(usize) -> &'l Label,
        targets: &mut [f32],
    ) -> Result<()> {
        let classes = self.shared.dataset.info().num_classes;
        let mut part = vec![0.0; classes];
        // The parts of a blend follow each other.
        let mut last = None;
        for (look, logits) in looks.iter().zip(logits) {
            let target = &mut targets[look.slot * classes..][..classes];
            let label = label(look.slot);
            if look.share == 1.0 {
                self.shared.labelling.targets.write(label, Some(logits), target)?;
                continue;
            }
            self.shared.labelling.targets.write(label, Some(logits), &mut part)?;
            if last.replace(look.slot) != Some(look.slot) {
                target.fill(0.0);
            }
            for (share, part) in target.iter_mut().zip(&part) {
                *share += look.share * part;
            }
        }
        Ok(())
    }
}

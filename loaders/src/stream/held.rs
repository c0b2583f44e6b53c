//! Images that a program keeps itself.

use super::places::MixMode;
use super::plan::Plan;
use super::sink::Buffer;
use super::want::{Form, Want};
use crate::augment::Augment;
use crate::{Error, Result, Targets};
use std::sync::atomic::{AtomicBool, Ordering};

/// Which images of a set the program keeps, on a device say. Batches of these alone come without images.
///
/// Each form of a sample has a slot: its raw image, and each of its refinements.
#[derive(Debug)]
pub(super) struct Held {
    slots: Box<[AtomicBool]>,
    variants: u32,
}

impl Held {
    /// None of the images that a loader of `plan` streams.
    ///
    /// # Errors
    /// [`Error::Config`] for `resident` if the loader needs the images of every batch.
    pub(super) fn new(plan: &Plan, augment: &Augment, targets: &Targets) -> Result<Self> {
        let uses = [
            (!augment.is_empty(), "augments them: leave `augment` out, and augment on the device"),
            (targets.needs_teacher(), "asks a teacher about them: take stored labels"),
            (plan.mode == MixMode::Blend, "blends them: take another `mode`"),
        ];
        if let Some((_, what)) = uses.into_iter().find(|(is_used, _)| *is_used) {
            let reason = format!("images stay where they are, but this loader {what}");
            return Err(Error::config("resident", reason));
        }
        Self::with_slots(plan.samples, plan.variants)
    }

    /// None of the images of so many samples, with so many refinements each.
    fn with_slots(samples: usize, variants: u32) -> Result<Self> {
        let count = samples.saturating_mul(1 + variants as usize);
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).map_err(|_| {
            Error::config("resident", format!("there is no memory to keep note of {count} images"))
        })?;
        slots.resize_with(count, AtomicBool::default);
        Ok(Self { slots: slots.into(), variants })
    }

    /// Whether the program keeps all of these.
    pub(super) fn has_all(&self, wants: &[Want]) -> bool {
        wants.iter().all(|want| {
            let slot = slot(self.variants, want.index, want.form);
            self.slots.get(slot).is_some_and(|is_held| is_held.load(Ordering::Acquire))
        })
    }

    /// Takes note that the program keeps the images of these slots.
    pub(super) fn hold(&self, slots: &[usize]) {
        for is_held in slots.iter().filter_map(|slot| self.slots.get(*slot)) {
            is_held.store(true, Ordering::Release);
        }
    }
}

/// The slot of what a sample comes as, where each sample has so many refinements; of a blend that of its refinement.
pub(super) fn slot(variants: u32, index: usize, form: Form) -> usize {
    let form = match form {
        Form::Raw => 0,
        Form::Refined(variant) | Form::Blend(variant, _) => 1 + variant as usize,
    };
    index * (1 + variants as usize) + form
}

/// In place of images that the program keeps.
#[derive(Debug)]
pub(super) struct NoImages;

impl Buffer for NoImages {
    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_a_slot_of_its_own() {
        let forms = |index| {
            let refined = (0..3).map(move |variant| slot(3, index, Form::Refined(variant)));
            std::iter::once(slot(3, index, Form::Raw)).chain(refined)
        };
        assert!((0..5).flat_map(forms).eq(0..20));
    }

    #[test]
    fn a_batch_is_held_once_all_of_it_is() {
        let held = Held::with_slots(3, 1).unwrap();
        let want = |index, form| Want { index, form, place: index };
        let batch = [want(0, Form::Raw), want(2, Form::Refined(0))];
        held.hold(&[0, 4]);
        assert!(!held.has_all(&batch), "2 is held raw, and comes refined");
        held.hold(&[5]);
        assert!(held.has_all(&batch));
        // Slots of another loader are none.
        held.hold(&[600]);
        assert!(!held.has_all(&[want(100, Form::Raw)]));
    }
}

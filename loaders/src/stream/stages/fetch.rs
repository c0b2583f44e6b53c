//! Pixels of a batch: raw ones from the set, refined ones from memory or the cache, or from the refiner.

use super::Request;
use super::replies::Replies;
use crate::planes::Planes;
use crate::refine::{Refined, Refinement};
use crate::stream::OnMiss;
use crate::stream::shared::Shared;
use crate::stream::want::{Form, Position, Want};
use crate::{Error, Label, Result};
use crossbeam::channel::Sender;
use std::sync::Arc;

/// Fills batches with pixels, and asks for what is not refined yet.
pub(in crate::stream) struct Fetch {
    pub(in crate::stream) shared: Arc<Shared>,
    pub(in crate::stream) requests: Sender<Vec<Request>>,
}

/// What a sample came as.
#[derive(Debug)]
pub(in crate::stream) struct Came {
    pub(in crate::stream) label: Label,
    pub(in crate::stream) form: Form,
    /// The refined image, where it is one part of what came.
    pub(in crate::stream) refined: Option<Arc<Planes>>,
}

/// Where a refined image is.
enum Found {
    Here(Arc<Planes>),
    /// On its way.
    Awaited,
    /// Not there, and not waited for.
    Nowhere,
    /// It cannot be had.
    Failed(Error),
}

/// What became of a sample.
type Outcome = Result<Came>;

impl Fetch {
    /// Writes the normalised images of `slots` of the batch at `place`, which asks for `wants`, into `images`, and what each
    /// came as, or why it did not, into `came`. Waits for what is not refined yet, unless the loader serves it raw.
    ///
    /// # Errors
    /// If the cache cannot be read. Without [`OnError::Skip`](crate::stream::OnError::Skip), the first sample that cannot be
    /// read or refined: nothing else is waited for then.
    pub(in crate::stream) fn run(
        &self,
        place: Position,
        wants: &[Want],
        slots: &[usize],
        images: &mut [f32],
        came: &mut [Option<Outcome>],
    ) -> Result<()> {
        let shared = &*self.shared;
        let size = images.len() / wants.len();
        let (mut replies, mut requests, mut scratch) = (Replies::new(), Vec::new(), Vec::new());
        let mut write = |want: &Want, image: Arc<Planes>, out: &mut [f32]| {
            let label = shared.dataset.label(want.index)?;
            let Form::Blend(_, share) = want.form else {
                image.write(out, &shared.scale);
                return Ok(Came { label, form: want.form, refined: None });
            };
            scratch.resize(out.len(), 0.0);
            image.write(&mut scratch, &shared.scale);
            shared.dataset.write_raw(want.index, out)?;
            for (value, refined) in out.iter_mut().zip(&scratch) {
                *value = (1.0 - share) * *value + share * refined;
            }
            Ok(Came { label, form: want.form, refined: Some(image) })
        };
        let write_raw = |want: &Want, out: &mut [f32]| {
            shared.dataset.write_raw(want.index, out)?;
            Ok(Came { label: shared.dataset.label(want.index)?, form: Form::Raw, refined: None })
        };
        let mut settle = |slot: usize, outcome: Outcome| {
            let outcome = if shared.skipping.is_on() { outcome } else { Ok(outcome?) };
            came[slot] = Some(outcome);
            Ok(())
        };
        let filled: Result<()> = slots.iter().try_for_each(|slot| {
            let (slot, want) = (*slot, &wants[*slot]);
            let out = &mut images[slot * size..][..size];
            let Some(refinement) = want.refinement() else { return settle(slot, write_raw(want, out)) };
            match self.look_up(refinement, (place, slot), &mut replies, &mut requests)? {
                Found::Here(image) => settle(slot, write(want, image, out)),
                Found::Awaited => Ok(()),
                Found::Nowhere => settle(slot, write_raw(want, out)),
                Found::Failed(error) => settle(slot, Err(error)),
            }
        });
        if !requests.is_empty() {
            // All at once: the refiner is to get full batches, not the first sample on its own. And even if a
            // sample failed: the others are noted as on their way.
            self.requests.send(requests).map_err(|_| Error::Cancelled)?;
        }
        filled?;
        replies.wait(|slot, image: Refined| {
            let out = &mut images[slot * size..][..size];
            settle(slot, image.map_err(Error::from).and_then(|image| write(&wants[slot], image, out)))
        })
    }

    /// # Errors
    /// If the cache cannot be read.
    fn look_up(
        &self,
        refinement: Refinement,
        (place, slot): (Position, usize),
        replies: &mut Replies<Refined>,
        requests: &mut Vec<Request>,
    ) -> Result<Found> {
        let shared = &*self.shared;
        let key = match shared.dataset.identity(refinement) {
            Ok(identity) => identity.row,
            Err(error) => return Ok(Found::Failed(error)),
        };
        if let Some(image) = shared.store.find(&key, &shared.counters)? {
            return Ok(Found::Here(image));
        }
        let (found, reply) = match shared.on_miss {
            OnMiss::Wait => (Found::Awaited, Some(replies.ask(slot))),
            OnMiss::Raw => match shared.background.start(refinement) {
                Ok(true) => (Found::Nowhere, None),
                Ok(false) => return Ok(Found::Nowhere),
                Err(error) => return Ok(Found::Failed(error)),
            },
        };
        requests.push(Request { refinement, place, reply });
        Ok(found)
    }
}

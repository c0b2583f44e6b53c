//! Pixels of a batch: raw ones from the set, refined ones from memory or the cache, or from the refiner.

use super::Request;
use super::replies::Replies;
use crate::planes::Planes;
use crate::refine::{Refined, Refinement};
use crate::stats::Counters;
use crate::stream::OnMiss;
use crate::stream::pipeline::Shared;
use crate::stream::want::{Form, Position, Want};
use crate::{Error, Result};
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
}

impl Fetch {
    /// Writes the normalised images of `wants`, the batch at `place`, and returns what each came as. Waits for what is
    /// not refined yet, unless the loader serves it raw.
    ///
    /// # Errors
    /// The first sample that cannot be read or refined.
    pub(in crate::stream) fn run(
        &self,
        place: Position,
        wants: &[Want],
        images: &mut [f32],
    ) -> Result<Vec<Came>> {
        let shared = &*self.shared;
        let size = images.len() / wants.len();
        let mut came: Vec<Came> = wants.iter().map(|want| Came { form: want.form, refined: None }).collect();
        let (mut replies, mut requests, mut scratch) = (Replies::new(), Vec::new(), Vec::new());
        let mut write = |came: &mut Came, want: &Want, image: Arc<Planes>, out: &mut [f32]| {
            let Form::Blend(_, share) = want.form else {
                image.write(out, &shared.scale);
                return Ok(());
            };
            scratch.resize(out.len(), 0.0);
            image.write(&mut scratch, &shared.scale);
            shared.dataset.write_raw(want.index, out)?;
            for (value, refined) in out.iter_mut().zip(&scratch) {
                *value = (1.0 - share) * *value + share * refined;
            }
            came.refined = Some(image);
            Ok(())
        };
        let filled: Result<()> = wants.iter().enumerate().try_for_each(|(slot, want)| {
            let (came, out) = (&mut came[slot], &mut images[slot * size..][..size]);
            let Some(refinement) = want.refinement() else {
                return shared.dataset.write_raw(want.index, out);
            };
            match self.look_up(refinement, (place, slot), &mut replies, &mut requests)? {
                Found::Here(image) => write(came, want, image, out),
                Found::Awaited => Ok(()),
                Found::Nowhere => {
                    came.form = Form::Raw;
                    shared.dataset.write_raw(want.index, out)
                }
            }
        });
        if !requests.is_empty() {
            // All at once: the refiner is to get full batches, not the first sample on its own. And even if a
            // sample failed: the others are noted as on their way.
            self.requests.send(requests).map_err(|_| Error::Cancelled)?;
        }
        filled?;
        replies.wait(|slot, image: Refined| {
            write(&mut came[slot], &wants[slot], image?, &mut images[slot * size..][..size])
        })?;
        Ok(came)
    }

    fn look_up(
        &self,
        refinement: Refinement,
        (place, slot): (Position, usize),
        replies: &mut Replies<Refined>,
        requests: &mut Vec<Request>,
    ) -> Result<Found> {
        let shared = &*self.shared;
        let key = shared.dataset.identity(refinement)?.row;
        if let Some(image) = shared.store.find(&key, &shared.counters)? {
            return Ok(Found::Here(image));
        }
        let (found, reply) = match shared.on_miss {
            OnMiss::Wait => (Found::Awaited, Some(replies.ask(slot))),
            OnMiss::Raw => {
                Counters::add(&shared.counters.raw_fallbacks, 1);
                if !shared.background.start(refinement)? {
                    return Ok(Found::Nowhere);
                }
                (Found::Nowhere, None)
            }
        };
        requests.push(Request { refinement, place, reply });
        Ok(found)
    }
}

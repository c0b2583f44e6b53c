//! Pixels of a batch: raw ones from the set, refined ones from memory or the cache, or from the refiner.

use super::Request;
use crate::Error;
use crate::Result;
use crate::planes::Planes;
use crate::refine::{Refined, Refinement};
use crate::stats::Counters;
use crate::stream::OnMiss;
use crate::stream::pipeline::Shared;
use crate::stream::want::{Form, Position, Want};
use crossbeam::channel::{Sender, unbounded};
use std::sync::Arc;

/// Fills batches with pixels, and asks for what is not refined yet.
pub(in crate::stream) struct Fetch {
    pub(in crate::stream) shared: Arc<Shared>,
    pub(in crate::stream) requests: Sender<Vec<Request>>,
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
    ) -> Result<Vec<Form>> {
        let shared = &*self.shared;
        let size = images.len() / wants.len();
        let mut came: Vec<Form> = wants.iter().map(|want| want.form).collect();
        let (reply, replies) = unbounded();
        let mut requests = Vec::new();
        let mut outstanding = 0;
        let filled: Result<()> = wants.iter().enumerate().try_for_each(|(slot, want)| {
            let out = &mut images[slot * size..][..size];
            let Some(refinement) = want.refinement() else {
                return shared.dataset.write_raw(want.index, out);
            };
            match self.look_up(refinement, (place, slot), &reply, &mut requests)? {
                Found::Here(image) => self.write(want, &image, out),
                Found::Awaited => {
                    outstanding += 1;
                    Ok(())
                }
                Found::Nowhere => {
                    came[slot] = Form::Raw;
                    shared.dataset.write_raw(want.index, out)
                }
            }
        });
        drop(reply);
        if !requests.is_empty() {
            // All at once: the refiner is to get full batches, not the first sample on its own. And even if a
            // sample failed: the others are noted as on their way.
            self.requests.send(requests).map_err(|_| Error::Cancelled)?;
        }
        filled?;
        for _ in 0..outstanding {
            // The refining thread answers every request unless it is being shut down.
            let (slot, image): (usize, Refined) = replies.recv().map_err(|_| Error::Cancelled)?;
            self.write(&wants[slot], &*image?, &mut images[slot * size..][..size])?;
        }
        Ok(came)
    }

    /// Writes a refined image, or the blend of it with the raw one.
    fn write(&self, want: &Want, image: &Planes, out: &mut [f32]) -> Result<()> {
        let Form::Blend(_, share) = want.form else {
            image.write(out, &self.shared.scale);
            return Ok(());
        };
        let mut refined = vec![0.0; out.len()];
        image.write(&mut refined, &self.shared.scale);
        self.shared.dataset.write_raw(want.index, out)?;
        for (value, refined) in out.iter_mut().zip(refined) {
            *value = (1.0 - share) * *value + share * refined;
        }
        Ok(())
    }

    fn look_up(
        &self,
        refinement: Refinement,
        (place, slot): (Position, usize),
        reply: &Sender<(usize, Refined)>,
        requests: &mut Vec<Request>,
    ) -> Result<Found> {
        let shared = &*self.shared;
        let key = shared.dataset.identity(refinement)?.row;
        if let Some(image) = shared.store.find(&key, &shared.counters)? {
            return Ok(Found::Here(image));
        }
        let (found, reply) = match shared.on_miss {
            OnMiss::Wait => (Found::Awaited, Some((slot, reply.clone()))),
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

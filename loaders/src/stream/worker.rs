//! Makes batches, stage by stage.

use super::batch::Batch;
use super::convert;
use super::dtype::{Dtype, bytes::AsBytes as _};
use super::held::{NoImages, slot};
use super::layout::Layout;
use super::shared::Shared;
use super::sink::{self, Buffer};
use super::stages::{Came, Chooser, Draft, Fetch, Labeller};
use super::want::{Form, Position, Want};
use crate::said::warn_once;
use crate::stats::Counters;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Assembles batches, on a thread of its own.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) fetch: Fetch,
    pub(super) labeller: Labeller,
    pub(super) name: String,
}

impl Worker {
    /// The batch at `position`. `scratch` is where images are made that are not written as they are.
    ///
    /// # Errors
    /// If a sample of it cannot be had, or anything panics.
    pub(super) fn assemble_guarded(&self, position: Position, scratch: &mut Vec<f32>) -> Result<Batch> {
        self.shared.cancel.check()?;
        catch_unwind(AssertUnwindSafe(|| self.assemble(position, scratch)))
            .unwrap_or_else(|panic| Err(Error::panicked(&self.name, panic.as_ref())))
    }

    fn assemble(&self, position: Position, scratch: &mut Vec<f32>) -> Result<Batch> {
        let shared = &*self.shared;
        let planned = shared.skipping.wants(&shared.plan, position)?;
        let info = shared.dataset.info();
        let (height, width) = shared.dataset.size();
        let shape = [planned.len(), info.shape[0], height, width];
        let layout = Layout { shape, dtype: shared.dtype, memory_format: shared.memory_format };
        let mut targets = vec![0.0; planned.len() * info.num_classes];
        let (samples, counters) = (planned.len(), &shared.counters);
        let held = self.held(&planned);
        let is_held = held.is_some();
        let (buffer, wants, came): (Box<dyn Buffer>, _, _) = if let Some(wants) = held {
            let came = self.label_held(&wants, &mut targets)?;
            (Box::new(NoImages), wants, came)
        } else {
            let mut buffer = sink::take(&*shared.sink, layout.bytes())?;
            let images = if layout.is_plain() {
                f32::of_mut(buffer.bytes_mut())
            } else {
                room(scratch, layout.values())?
            };
            let (wants, came) = counters.fetch.time(samples, || self.fetch(position, planned, images))?;
            counters.label.time(samples, || {
                let draft =
                    Draft { position, wants: &wants, came: &came, shape, images, targets: &mut targets };
                self.labeller.run(draft)
            })?;
            if layout.dtype == Dtype::Uint8 && position.epoch == 0 {
                self.warn_of_clipping(scratch, shape);
            }
            if !layout.is_plain() {
                convert::write(scratch, &layout, shared.dataset.normalize(), buffer.bytes_mut());
            }
            (buffer, wants, came)
        };
        Counters::add(&counters.batches, 1);
        Counters::add(&counters.samples, samples);
        let refined: Vec<bool> = came.iter().map(|came| came.form != Form::Raw).collect();
        let (asked, came_refined) = (
            wants.iter().filter(|want| want.form != Form::Raw).count(),
            refined.iter().filter(|refined| **refined).count(),
        );
        Counters::add(&counters.refined, came_refined);
        Counters::add(&counters.raw_fallbacks, asked - came_refined);
        let variants = shared.plan.variants;
        Ok(Batch {
            is_held,
            buffer,
            layout,
            targets,
            classes: info.num_classes,
            labels: came.iter().map(|came| came.label.class()).collect(),
            indices: wants.iter().map(|want| want.index).collect(),
            slots: wants
                .iter()
                .zip(&came)
                .map(|(want, came)| slot(variants, want.index, came.form))
                .collect(),
            refined,
        })
    }

    /// Says, once for a set, that bytes hold less than its values.
    fn warn_of_clipping(&self, images: &[f32], [_, channels, height, width]: [usize; 4]) {
        let dataset = &self.shared.dataset;
        let normalize = dataset.normalize();
        // Half a grey level is what rounding takes as well.
        let range =
            |channel: usize| [-0.5 / 255.0, 255.5 / 255.0].map(|value| normalize.apply(channel, value));
        let is_clipped = images.chunks_exact(height * width).enumerate().any(|(plane, values)| {
            let [low, high] = range(plane % channels);
            values.iter().any(|value| !(low..=high).contains(value))
        });
        if is_clipped {
            warn_once(&format!(
                "{}: some values are outside [0, 1], and are clipped in bytes: take another dtype to keep them",
                dataset.info().path.display()
            ));
        }
    }

    fn chooser(&self) -> Chooser<'_> {
        Chooser { shared: &self.shared, fetch: &self.fetch, labeller: &self.labeller }
    }

    /// The samples of a batch, each with the refinement that is chosen, if the program keeps all of their images.
    fn held(&self, planned: &[Want]) -> Option<Vec<Want>> {
        let held = self.shared.held.as_ref()?;
        let wants = self.chooser().recall(planned)?;
        held.has_all(&wants).then_some(wants)
    }

    /// Writes the targets of a batch whose images the program keeps, and says what each came as.
    fn label_held(&self, wants: &[Want], targets: &mut [f32]) -> Result<Vec<Came>> {
        let Shared { dataset, labelling, .. } = &*self.shared;
        let rows = wants.iter().zip(targets.chunks_exact_mut(dataset.info().num_classes));
        rows.map(|(want, target)| {
            let label = dataset.label(want.index)?;
            labelling.targets.write(&label, None, target)?;
            Ok(Came { label, form: want.form, refined: None })
        })
        .collect()
    }

    /// Fills a batch with pixels, and says what was asked for and what came. What cannot be had is replaced, where that is
    /// allowed.
    fn fetch(
        &self,
        position: Position,
        mut planned: Vec<Want>,
        images: &mut [f32],
    ) -> Result<(Vec<Want>, Vec<Came>)> {
        let shared = &*self.shared;
        let chooser = self.chooser();
        let mut came: Vec<Option<Result<Came>>> = planned.iter().map(|_| None).collect();
        loop {
            let mut wants = planned.clone();
            chooser.run(position, &mut wants)?;
            let slots: Vec<usize> = (0..came.len()).filter(|slot| came[*slot].is_none()).collect();
            self.fetch.run(position, &wants, &slots, images, &mut came)?;
            for slot in slots {
                if let Some(Err(error)) = came[slot].take_if(|came| came.is_err()) {
                    shared.skipping.note(&planned[slot], error)?;
                }
            }
            if came.iter().all(Option::is_some) {
                let came: Result<Vec<Came>> = came.into_iter().flatten().collect();
                return Ok((wants, came?));
            }
            let others = shared.skipping.wants(&shared.plan, position)?;
            for ((came, want), other) in came.iter_mut().zip(&mut planned).zip(others) {
                if *want != other {
                    (*came, *want) = (None, other);
                }
            }
        }
    }
}

/// Room for so many values, which may hold anything.
fn room(scratch: &mut Vec<f32>, values: usize) -> Result<&mut [f32]> {
    scratch.try_reserve(values.saturating_sub(scratch.len())).map_err(|_| {
        let reason = format!("there is no memory for the {values} values of a batch: make it smaller");
        Error::config("batch_size", reason)
    })?;
    scratch.resize(values, 0.0);
    Ok(scratch)
}

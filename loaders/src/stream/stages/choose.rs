//! Chooses among the refinements of a sample, where their images decide.

use super::fetch::{Came, Fetch};
use super::label::Labeller;
use crate::stream::Pick;
use crate::stream::shared::Shared;
use crate::stream::want::{Form, Position, Want};
use crate::{Error, Result};

/// Chooses refinements, once for each sample.
pub(in crate::stream) struct Chooser<'a> {
    pub(in crate::stream) shared: &'a Shared,
    pub(in crate::stream) fetch: &'a Fetch,
    pub(in crate::stream) labeller: &'a Labeller,
}

impl Chooser<'_> {
    /// Has each of `wants`, of the batch at `place`, ask for the refinement that is chosen. What cannot be chosen, as its
    /// refinements fail or are not waited for, stays as it is.
    ///
    /// # Errors
    /// As [`Fetch::run`]'s; the teacher's.
    pub(in crate::stream) fn run(&self, place: Position, wants: &mut [Want]) -> Result<()> {
        if !self.is_needed() {
            return Ok(());
        }
        let is_open =
            |want: &Want| want.refinement().is_some() && self.shared.chosen.get(want.index).is_none();
        let mut open: Vec<Want> = wants.iter().filter(|want| is_open(want)).copied().collect();
        open.sort_unstable_by_key(|want| want.index);
        open.dedup_by_key(|want| want.index);
        // Not more images at once than a batch has.
        let at_once = (wants.len() / self.shared.plan.variants as usize).max(1);
        for some in open.chunks(at_once) {
            self.choose(place, some)?;
        }
        for want in wants {
            *want = self.known(want).unwrap_or(*want);
        }
        Ok(())
    }

    /// The same, if everything is chosen.
    pub(in crate::stream) fn recall(&self, wants: &[Want]) -> Option<Vec<Want>> {
        wants.iter().map(|want| self.known(want)).collect()
    }

    /// What is asked for with the refinement that is chosen, once that is known.
    fn known(&self, want: &Want) -> Option<Want> {
        let chosen = || self.shared.chosen.get(want.index);
        let form = match want.form {
            Form::Raw => Form::Raw,
            form if !self.is_needed() => form,
            Form::Refined(_) => Form::Refined(chosen()?),
            Form::Blend(_, share) => Form::Blend(chosen()?, share),
        };
        Some(Want { form, ..*want })
    }

    fn is_needed(&self) -> bool {
        self.shared.plan.variants > 1 && self.shared.plan.pick.is_choice()
    }

    fn choose(&self, place: Position, samples: &[Want]) -> Result<()> {
        let shared = self.shared;
        let each = |want: &Want| {
            let want = *want;
            (0..shared.plan.variants).map(move |variant| Want { form: Form::Refined(variant), ..want })
        };
        let candidates: Vec<Want> = samples.iter().flat_map(each).collect();
        let (height, width) = shared.dataset.size();
        let size = shared.dataset.info().shape[0] * height * width;
        let mut images = vec![0.0; candidates.len() * size];
        let mut came = candidates.iter().map(|_| None).collect::<Vec<_>>();
        let slots: Vec<usize> = (0..candidates.len()).collect();
        self.fetch.run(place, &candidates, &slots, &mut images, &mut came)?;
        // One that fails is not chosen.
        let (mut wants, mut there) = (Vec::new(), Vec::new());
        for (slot, (want, came)) in candidates.iter().zip(came).enumerate() {
            if let Some(Ok(came)) = came {
                images.copy_within(slot * size..(slot + 1) * size, there.len() * size);
                wants.push(*want);
                there.push(came);
            }
        }
        images.truncate(there.len() * size);
        let scores = match shared.plan.pick {
            Pick::Nearest => self.nearness(&wants, &images)?,
            _ => self.probabilities(&wants, &there, &images)?,
        };
        let scored: Vec<(&Want, &Came, f64)> =
            wants.iter().zip(&there).zip(scores).map(|((want, came), score)| (want, came, score)).collect();
        for of_one in scored.chunk_by(|a, b| a.0.index == b.0.index) {
            // One that came raw is not there yet.
            if of_one.iter().any(|(_, came, _)| came.form == Form::Raw) {
                continue;
            }
            // Of equal ones, the first.
            let best = of_one.iter().rev().max_by(|a, b| a.2.total_cmp(&b.2));
            if let Some(refinement) = best.and_then(|(want, _, _)| want.refinement()) {
                shared.chosen.set(refinement.index, refinement.variant);
            }
        }
        Ok(())
    }

    /// How near images are to the raw ones.
    fn nearness(&self, wants: &[Want], images: &[f32]) -> Result<Vec<f64>> {
        let dataset = &self.shared.dataset;
        let size = images.len() / wants.len().max(1);
        let (std, area) = (dataset.normalize().std, size / dataset.info().shape[0]);
        let square = |(at, (a, b)): (usize, (&f32, &f32))| f64::from((a - b) * std[at / area]).powi(2);
        let mut raw = vec![0.0; size];
        let near = |(want, image): (&Want, &[f32])| {
            dataset.write_raw(want.index, &mut raw)?;
            Ok(-image.iter().zip(&raw).enumerate().map(square).sum::<f64>())
        };
        wants.iter().zip(images.chunks(size.max(1))).map(near).collect()
    }

    /// How probable their classes are to the teacher in images, as log odds.
    fn probabilities(&self, wants: &[Want], came: &[Came], images: &[f32]) -> Result<Vec<f64>> {
        let taught = self.shared.labelling.taught.as_ref().ok_or(Error::Cancelled)?;
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.labeller.logits_of_images(taught, wants, came, images)?;
        Ok(logits.iter().zip(came).map(|(logits, came)| log_odds(logits, came.label.class())).collect())
    }
}

/// `log(p / (1 - p))` for the probability `p` of a class: it grows with `p`, and goes on where `p` is rounded to 0 or 1.
fn log_odds(logits: &[f32], class: usize) -> f64 {
    let others =
        || logits.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, logit)| f64::from(*logit));
    let highest = others().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others().map(|logit| (logit - highest).exp()).sum();
    logits.get(class).map_or(f64::NEG_INFINITY, |logit| f64::from(*logit) - highest - sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_are_those_of_the_softmax() {
        let logits = [1.0, 2.0, 0.5];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        for (class, logit) in logits.iter().enumerate() {
            let p = f64::from(*logit).exp() / sum;
            assert!((log_odds(&logits, class) - (p / (1.0 - p)).ln()).abs() < 1e-12);
        }
        assert!(log_odds(&[900.0, 0.0], 0) > log_odds(&[800.0, 0.0], 0));
        // Of one class there is nothing to choose by.
        assert_eq!(log_odds(&[1.0], 0), log_odds(&[2.0], 0));
    }
}

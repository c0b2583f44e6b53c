//! What every [`Refine`] implementation must do, as checks that can be run against any of them.

use super::{CancelToken, Conditioning, NoiseKey, Progress, RawBatch, Refine, Silent};
use crate::{Digest, Error, Result, RgbImage};
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs every check against `refiner` with images of `side` x `side` and the given known conditionings (two at
/// least).
///
/// # Panics
/// With a message that names the rule broken.
pub fn check(refiner: &mut dyn Refine, side: usize, conditionings: &[Conditioning]) {
    if let Err(broken) = try_check(refiner, side, conditionings) {
        panic!("{broken}");
    }
}

/// As [`check`].
///
/// # Errors
/// The rule broken.
pub fn try_check(
    refiner: &mut dyn Refine,
    side: usize,
    conditionings: &[Conditioning],
) -> Result<(), String> {
    ensure(conditionings.len() >= 2, || "the suite needs two conditionings that the refiner knows".into())?;
    let batch = Images::new(4, side, conditionings);

    let fingerprint = refiner.fingerprint();
    let says_something = |f: &serde_json::Value| f.as_object().is_some_and(|o| !o.is_empty());
    ensure(fingerprint.as_ref().is_none_or(says_something), || {
        "a fingerprint is a JSON object that says something".into()
    })?;
    ensure(refiner.preferred_batch() >= 1, || "the preferred batch is at least 1".into())?;
    for conditioning in conditionings {
        accepted("a known conditioning is accepted", refiner.check_conditioning(conditioning))?;
    }

    let whole = accepted("a valid batch is refined", batch.refine(refiner, 0..4))?;
    ensure(whole.len() == 4, || {
        format!("one image comes back for each that goes in, not {} for 4", whole.len())
    })?;
    let size = (whole[0].width(), whole[0].height());
    ensure(whole.iter().all(|i| (i.width(), i.height()) == size), || "all images have one size".into())?;

    let again = accepted("the same batch is refined again", batch.refine(refiner, 0..4))?;
    ensure(whole == again, || "equal batches give equal bytes".into())?;
    ensure(refiner.fingerprint() == fingerprint, || "refining does not change the fingerprint".into())?;

    for (index, expected) in whole.iter().enumerate() {
        let alone = accepted("a batch of one is refined", batch.refine(refiner, index..index + 1))?;
        let apart = alone.first().and_then(|alone| largest_difference(alone, expected));
        ensure(apart.is_some_and(|apart| apart <= 1), || match apart {
            Some(apart) => {
                format!("image {index} differs by {apart} grey levels alone and in its batch: at most 1")
            }
            None => format!("image {index} has one size in every batch"),
        })?;
    }

    let other = Digest::of(b"another sample");
    let moved = batch.rekeyed(|key| NoiseKey { content: other, ..key });
    let moved = accepted("samples with other keys are refined", moved.refine(refiner, 0..4))?;
    let variants = batch.rekeyed(|key| NoiseKey { variant: 1, ..key });
    let variants = accepted("variants of samples are refined", variants.refine(refiner, 0..4))?;
    for (index, image) in whole.iter().enumerate() {
        let (moved, variant) = (moved.get(index), variants.get(index));
        if index % 2 == 0 {
            let is_same = |other| largest_difference(image, other).is_some_and(|apart| apart <= 1);
            ensure(moved.is_some_and(is_same) && variant.is_some_and(is_same), || {
                format!("image {index} changed with the keys of the others in its batch")
            })?;
        } else {
            ensure(moved == Some(image) || variant != Some(image), || {
                format!("image {index} depends on its key's content but not on its variant: noise needs both")
            })?;
        }
    }

    let unknown = Conditioning::Class(usize::MAX);
    let is_accepted = refiner.check_conditioning(&unknown).is_ok();
    let odd = Images { conditioning: vec![unknown; 4], ..Images::new(4, side, conditionings) };
    ensure(odd.refine(refiner, 0..1).is_ok() == is_accepted, || {
        "a call takes the conditionings that the check accepts".into()
    })?;

    let token = CancelToken::new();
    token.cancel();
    let cancelled = batch.refine_with(refiner, 0..4, &token, &Silent);
    ensure(matches!(cancelled, Err(Error::Cancelled)), || {
        "a cancelled token ends the call with Error::Cancelled".into()
    })?;
    let midway = CancelAtFirstStep::default();
    let cancelled = batch.refine_with(refiner, 0..4, &midway.token, &midway);
    if midway.token.is_cancelled() {
        ensure(matches!(cancelled, Err(Error::Cancelled)), || {
            "a token cancelled between steps ends the call".into()
        })?;
    }
    ensure(!midway.is_impossible.load(Ordering::Relaxed), || {
        "progress never has more steps done than there are".into()
    })?;
    let after = accepted("a cancelled refiner refines again", batch.refine(refiner, 0..4))?;
    ensure(whole == after, || "a cancelled call leaves nothing behind".into())?;

    refiner.release();
    ensure(refiner.fingerprint() == fingerprint, || "a release does not change the fingerprint".into())?;
    let after = accepted("a released refiner refines again", batch.refine(refiner, 0..4))?;
    ensure(whole == after, || "a release changes no image".into())
}

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

fn accepted<T>(rule: &str, result: Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{rule}: {error}"))
}

/// Cancels a call once its first step is done, if there is another.
#[derive(Default)]
struct CancelAtFirstStep {
    token: CancelToken,
    is_impossible: AtomicBool,
}

impl Progress for CancelAtFirstStep {
    fn step(&self, done: usize, total: usize) {
        if done > total {
            self.is_impossible.store(true, Ordering::Relaxed);
        }
        if done < total {
            self.token.cancel();
        }
    }
}

/// A deterministic batch of smooth images.
#[derive(Clone)]
struct Images {
    side: usize,
    pixels: Vec<f32>,
    conditioning: Vec<Conditioning>,
    keys: Vec<NoiseKey>,
}

impl Images {
    fn new(count: usize, side: usize, conditionings: &[Conditioning]) -> Self {
        let value = |image: usize, channel: usize, row: usize, column: usize| {
            let phase = (image + 2 * channel) as f32;
            0.5 + 0.5 * (phase + 0.3 * row as f32 + 0.2 * column as f32).sin()
        };
        let mut pixels = Vec::with_capacity(count * 3 * side * side);
        for image in 0..count {
            for channel in 0..3 {
                for row in 0..side {
                    pixels.extend((0..side).map(|column| value(image, channel, row, column)));
                }
            }
        }
        let conditioning = conditionings.iter().cloned().cycle().take(count).collect();
        let keys =
            (0..count).map(|i| NoiseKey { content: Digest::of(&i.to_le_bytes()), variant: 0 }).collect();
        Self { side, pixels, conditioning, keys }
    }

    /// The same images with other keys for those at odd places.
    fn rekeyed(&self, other: impl Fn(NoiseKey) -> NoiseKey) -> Self {
        let mut images = self.clone();
        images.keys.iter_mut().skip(1).step_by(2).for_each(|key| *key = other(*key));
        images
    }

    fn refine(&self, refiner: &mut dyn Refine, images: std::ops::Range<usize>) -> Result<Vec<RgbImage>> {
        self.refine_with(refiner, images, &CancelToken::new(), &Silent)
    }

    fn refine_with(
        &self,
        refiner: &mut dyn Refine,
        images: std::ops::Range<usize>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        let values = 3 * self.side * self.side;
        let batch = RawBatch::new(
            &self.pixels[images.start * values..images.end * values],
            self.side,
            self.side,
            &self.conditioning[images.clone()],
            &self.keys[images],
        )?;
        refiner.refine(&batch, cancel, progress)
    }
}

/// None for images of different sizes.
fn largest_difference(a: &RgbImage, b: &RgbImage) -> Option<u8> {
    let is_one_size = (a.width(), a.height()) == (b.width(), b.height());
    is_one_size.then(|| a.as_bytes().iter().zip(b.as_bytes()).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn identity_conforms() {
        let conditionings = [super::Conditioning::Class(0), super::Conditioning::Class(1)];
        super::check(&mut crate::Identity, 6, &conditionings);
    }
}

//! What every [`Refine`] implementation must do, as checks that can be run against any of them.

use super::{CancelToken, Conditioning, NoiseKey, Progress, RawBatch, Refine, Silent};
use crate::{Digest, Error, Result, RgbImage};

/// Runs every check against `refiner` with images of `side` x `side` and the given known conditionings (two at
/// least).
///
/// # Panics
/// With a message that names the rule broken.
pub fn check(refiner: &mut dyn Refine, side: usize, conditionings: &[Conditioning]) {
    assert!(conditionings.len() >= 2, "the suite needs two conditionings that the refiner knows");
    let batch = Images::new(4, side, conditionings);

    let fingerprint = refiner.fingerprint();
    assert!(
        fingerprint.as_ref().is_none_or(|f| f.as_object().is_some_and(|o| !o.is_empty())),
        "a fingerprint is a JSON object that says something"
    );
    assert!(refiner.preferred_batch() >= 1, "the preferred batch is at least 1");
    for conditioning in conditionings {
        refiner.check_conditioning(conditioning).expect("a known conditioning is accepted");
    }

    let whole = batch.refine(refiner, 0..4).expect("a valid batch is refined");
    assert_eq!(whole.len(), 4, "one image comes back for each that goes in");
    let size = (whole[0].width(), whole[0].height());
    assert!(whole.iter().all(|i| (i.width(), i.height()) == size), "all images have one size");

    let again = batch.refine(refiner, 0..4).expect("the same batch is refined again");
    assert!(whole == again, "equal batches give equal bytes");
    assert_eq!(refiner.fingerprint(), fingerprint, "refining does not change the fingerprint");

    for (index, expected) in whole.iter().enumerate() {
        let alone = batch.refine(refiner, index..index + 1).expect("a batch of one is refined");
        let apart = largest_difference(&alone[0], expected);
        assert!(apart <= 1, "image {index} differs by {apart} grey levels alone and in its batch: at most 1");
    }

    let unknown = Conditioning::Class(usize::MAX);
    let accepted = refiner.check_conditioning(&unknown).is_ok();
    let odd = Images { conditioning: vec![unknown; 4], ..Images::new(4, side, conditionings) };
    assert_eq!(
        odd.refine(refiner, 0..1).is_ok(),
        accepted,
        "a call takes the conditionings that the check accepts"
    );

    let token = CancelToken::new();
    token.cancel();
    let cancelled = batch.refine_with(refiner, 0..4, &token, &Silent);
    assert!(
        matches!(cancelled, Err(Error::Cancelled)),
        "a cancelled token ends the call with Error::Cancelled"
    );
    let midway = CancelAtFirstStep::default();
    let cancelled = batch.refine_with(refiner, 0..4, &midway.token, &midway);
    if midway.token.is_cancelled() {
        assert!(matches!(cancelled, Err(Error::Cancelled)), "a token cancelled between steps ends the call");
    }
    let after = batch.refine(refiner, 0..4).expect("a cancelled refiner refines again");
    assert!(whole == after, "a cancelled call leaves nothing behind");
}

/// Cancels a call once its first step is done, if there is another.
#[derive(Default)]
struct CancelAtFirstStep {
    token: CancelToken,
}

impl Progress for CancelAtFirstStep {
    fn step(&self, done: usize, total: usize) {
        assert!(done <= total, "step {done} of {total} cannot be done");
        if done < total {
            self.token.cancel();
        }
    }
}

/// A deterministic batch of smooth images.
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

fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.as_bytes().len(), b.as_bytes().len(), "an image has one size in every batch");
    a.as_bytes().iter().zip(b.as_bytes()).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn identity_conforms() {
        let conditionings = [super::Conditioning::Class(0), super::Conditioning::Class(1)];
        super::check(&mut crate::Identity, 6, &conditionings);
    }
}

//! Samples that fail, and are skipped.
#![allow(clippy::unwrap_used)]

use diver_loaders::refine::{Progress, RawBatch};
use diver_loaders::{
    CancelToken, Conditioning, Error, Identity, Loader, LoaderBuilder, MemorySource, Mix, OnError, OnMiss,
    Refine, Result, RgbImage,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const SAMPLES: usize = 20;

/// Grey images, sample `i` of grey level `i / 32`; those of `broken` are NaN.
fn set(broken: &BTreeSet<usize>) -> MemorySource {
    let value = |index| if broken.contains(&index) { f32::NAN } else { index as f32 / 32.0 };
    let values = (0..SAMPLES).flat_map(|index| [value(index); 12]).collect();
    MemorySource::unit(SAMPLES, [3, 2, 2], values, (0..SAMPLES).map(|index| index % 4).collect()).unwrap()
}

/// The identity, but for images that it fails on, or panics at, together with what it is given beside them.
#[derive(Clone, Default)]
struct Picky {
    fails: BTreeSet<usize>,
    panics: BTreeSet<usize>,
}

impl Refine for Picky {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Identity.fingerprint()
    }

    fn preferred_batch(&self) -> usize {
        7
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<()> {
        Identity.check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        for image in batch.pixels.chunks_exact(12) {
            let index = (image[0] * 32.0).round() as usize;
            assert!(!self.panics.contains(&index), "image {index}");
            if self.fails.contains(&index) {
                return Err(Error::refine(format!("image {index}")));
            }
        }
        Identity.refine(batch, cancel, progress)
    }
}

fn builder(broken: &BTreeSet<usize>) -> LoaderBuilder {
    Loader::builder(set(broken)).batch_size(6).shuffle(true).seed(3).on_error(OnError::Skip)
}

/// The samples of an epoch's batches, each with whether its pixels are its own.
fn epoch(loader: &mut Loader, epoch: u64) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    let normalize = loader.info().normalize;
    for batch in loader.epoch(epoch) {
        let batch = batch.unwrap();
        for (row, index) in batch.indices().iter().enumerate() {
            let value = batch.images::<f32>().unwrap()[row * 12];
            let expected = normalize.apply(0, *index as f32 / 32.0);
            assert!((value - expected).abs() < 1.0 / 255.0 / normalize.std[0], "{value} of {index}");
            assert_eq!(batch.labels()[row], index % 4);
            assert_eq!(batch.targets()[row * 4 + index % 4], 1.0);
        }
        batches.push(batch.indices().to_vec());
    }
    batches
}

fn of(indices: &[usize]) -> BTreeSet<usize> {
    indices.iter().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Lengths hold, nothing that fails comes, everything else comes as it would, and neither threads nor what is known
    /// already matter.
    #[test]
    fn another_takes_its_place(
        broken in prop::collection::btree_set(0..SAMPLES, 0..4),
        fails in prop::collection::btree_set(0..SAMPLES, 0..4),
        panics in prop::collection::btree_set(0..SAMPLES, 0..3),
        share in prop_oneof![Just(0.0), Just(0.5), Just(1.0)],
        seed: u64,
    ) {
        let refiner = Picky { fails, panics };
        let loader = |threads| {
            let builder = builder(&broken).refiner(refiner.clone()).mix(Mix::constant(share).unwrap()).seed(seed);
            builder.threads(threads).max_skipped(SAMPLES).build().unwrap()
        };
        let mut one = loader(1);
        let all = Loader::builder(set(&BTreeSet::new())).refiner(Identity).batch_size(6).shuffle(true).seed(seed);
        let mut all = all.mix(Mix::constant(share).unwrap()).build().unwrap();
        for number in 0..2 {
            let skipping = epoch(&mut one, number);
            let expected = epoch(&mut all, number);
            for (batch, expected) in skipping.iter().zip(&expected) {
                prop_assert_eq!(batch.len(), expected.len());
                let is_sound = |index: &usize| {
                    !broken.contains(index) && !refiner.fails.contains(index) && !refiner.panics.contains(index)
                };
                for (index, planned) in batch.iter().zip(expected) {
                    prop_assert!(!broken.contains(index));
                    prop_assert!(index == planned || !is_sound(planned));
                }
            }
            // A loader that has not met the failures, and one of more threads.
            prop_assert_eq!(&epoch(&mut loader(1), number), &skipping);
            prop_assert_eq!(&epoch(&mut loader(4), number), &skipping);
        }
        let ever: BTreeSet<usize> = broken.iter().chain(&refiner.fails).chain(&refiner.panics).copied().collect();
        prop_assert!(one.stats().skipped <= ever.len() as u64);
    }
}

#[test]
fn an_image_on_which_the_refiner_fails_takes_no_other_with_it() {
    let refiner = Picky { fails: of(&[4]), panics: of(&[11]) };
    let mut loader = builder(&of(&[])).refiner(refiner).build().unwrap();
    for number in 0..3 {
        let seen: BTreeSet<usize> = epoch(&mut loader, number).concat().into_iter().collect();
        assert_eq!(seen, (0..SAMPLES).filter(|index| ![4, 11].contains(index)).collect());
    }
    assert_eq!(loader.stats().skipped, 2);
}

#[test]
fn no_more_are_skipped_than_allowed() {
    let broken = of(&[1, 2, 3]);
    for (at_most, is_raised) in [(3, false), (2, true), (0, true)] {
        let mut loader = builder(&broken).max_skipped(at_most).build().unwrap();
        let errors: Vec<String> = (0..2)
            .flat_map(|number| loader.epoch(number).filter_map(Result::err).collect::<Vec<_>>())
            .map(|error| error.to_string())
            .collect();
        assert_eq!(!errors.is_empty(), is_raised, "{at_most}");
        assert!(errors.iter().all(|error| error.contains("sample")), "{errors:?}");
        assert_eq!(loader.stats().skipped, at_most as u64);
    }
    // By default each is an error.
    let mut loader = builder(&broken).on_error(OnError::Raise).build().unwrap();
    assert!(loader.iter().any(|batch| batch.is_err()));
    assert_eq!(loader.stats().skipped, 0);
}

#[test]
fn a_set_that_fails_whole_is_an_error() {
    let mut loader = builder(&(0..SAMPLES).collect()).max_skipped(1000).build().unwrap();
    let error = loader.iter().next().unwrap().unwrap_err().to_string();
    assert!(error.contains("every sample fails"), "{error}");
}

/// What is served raw meanwhile is skipped once its refinement fails.
#[test]
fn what_fails_in_the_background_is_skipped_too() {
    let refiner = Picky { fails: of(&[4]), panics: BTreeSet::new() };
    let mut loader = builder(&of(&[])).refiner(refiner).on_miss(OnMiss::Raw).build().unwrap();
    let mut number = 0;
    while loader.stats().skipped == 0 {
        epoch(&mut loader, number);
        number += 1;
        assert!(number < 1000);
        std::thread::sleep(Duration::from_millis(5));
    }
    epoch(&mut loader, number);
    assert!(!epoch(&mut loader, number + 1).concat().contains(&4));
}

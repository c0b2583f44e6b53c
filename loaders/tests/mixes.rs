//! What an epoch is made of: raw samples, refined ones, both, and blends; and what is left of one that goes on elsewhere.
#![allow(clippy::unwrap_used)]

use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::{
    Batch, Cache, CancelToken, Conditioning, Loader, LoaderBuilder, MemorySource, Mix, MixMode, Refine,
    Result, RgbImage, Uneven,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SAMPLES: usize = 23;

/// Grey images of one pixel, all refined to black.
fn builder() -> LoaderBuilder {
    let values = (0..SAMPLES).flat_map(|i| [i as f32 / 32.0; 3]).collect();
    let set = MemorySource::unit(SAMPLES, [3, 1, 1], values, vec![0; SAMPLES]).unwrap();
    Loader::builder(set).refiner(Numbering::default()).batch_size(4).shuffle(true)
}

/// A refiner whose images are the number of the refinement, and counts them.
#[derive(Default)]
struct Numbering(Arc<AtomicUsize>);

impl Refine for Numbering {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!("numbering"))
    }

    fn check_conditioning(&self, _: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(&mut self, batch: &RawBatch<'_>, _: &CancelToken, _: &dyn Progress) -> Result<Vec<RgbImage>> {
        self.0.fetch_add(batch.len(), Ordering::SeqCst);
        let image = |key: &NoiseKey| RgbImage::new(1, 1, vec![key.variant as u8; 3]);
        batch.keys.iter().map(image).collect()
    }
}

/// Ranks and batches change between save and load: what has come of the epoch does not come again, and nothing is lost.
#[test]
fn an_epoch_goes_on_with_other_ranks_and_batches() {
    let loader = |batch, rank, world| {
        let set = MemorySource::unit(23, [1, 1, 1], vec![0.5; 23], vec![0; 23]).unwrap();
        let loader = Loader::builder(set).batch_size(batch).shuffle(true).seed(3).shard(rank, world);
        loader.uneven(Uneven::Partial).build().unwrap()
    };
    let indices = |batch: Result<Batch>| batch.unwrap().indices().to_vec();
    let mut seen: Vec<usize> = (0..2)
        .flat_map(|rank| loader(3, rank, 2).iter().take(2).flat_map(indices).collect::<Vec<_>>())
        .collect();
    let mut first = loader(3, 0, 2);
    assert_eq!(first.iter().take(2).count(), 2);
    let state = first.state();
    assert_eq!((state.seen, state.places), (12, 23));
    for rank in 0..3 {
        let mut resumed = loader(4, rank, 3);
        resumed.load_state(&state).unwrap();
        assert_eq!(resumed.len(), 1);
        seen.extend(resumed.iter().flat_map(indices).collect::<Vec<_>>());
        assert_eq!(resumed.len(), 2, "the next epoch is whole");
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..23));
}

#[test]
fn raw_and_refined_come_beside_each_other() {
    let mix = Mix::linear(0.0, 1.0, 3).unwrap();
    let mut loader = builder().mix(mix).mode(MixMode::Both).build().unwrap();
    let samples = SAMPLES;
    for (epoch, refined) in [(0, 0), (1, samples.div_ceil(2)), (2, samples)] {
        let batches: Vec<_> = loader.epoch(epoch).map(Result::unwrap).collect();
        let count =
            |is_refined| batches.iter().flat_map(|b| b.refined()).filter(|r| **r == is_refined).count();
        assert_eq!((count(false), count(true)), (samples, refined), "epoch {epoch}");
    }
}

/// Halfway between a value and its refinement, in normalised pixels.
#[test]
fn blends_lie_between_raw_and_refined() {
    let images = |mode, share| {
        let loader = builder().mix(Mix::constant(share).unwrap()).mode(mode);
        let mut loader = loader.shuffle(false).build().unwrap();
        loader.iter().flat_map(|batch| batch.unwrap().images::<f32>().unwrap().to_vec()).collect::<Vec<_>>()
    };
    let (raw, refined) = (images(MixMode::Replace, 0.0), images(MixMode::Replace, 1.0));
    for (blend, (raw, refined)) in images(MixMode::Blend, 0.25).iter().zip(raw.iter().zip(&refined)) {
        assert!((blend - (0.75 * raw + 0.25 * refined)).abs() < 1e-6);
    }
    assert_eq!(images(MixMode::Blend, 1.0), refined);
}

#[test]
fn each_epoch_has_another_variant_until_all_have_come() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::<AtomicUsize>::default();
    for _ in 0..2 {
        let values = (0..12).map(|value| value as f32 / 12.0).collect();
        let set = MemorySource::unit(4, [3, 1, 1], values, vec![0; 4]).unwrap();
        let loader = Loader::builder(set).refiner(Numbering(Arc::clone(&calls))).variants(3).batch_size(4);
        let mut loader = loader.cache(Cache::open(folder.path()).unwrap()).build().unwrap();
        let mut seen = vec![BTreeSet::new(); 4];
        for epoch in 0..3 {
            for batch in loader.epoch(epoch) {
                let batch = batch.unwrap();
                for (index, image) in batch.indices().iter().zip(batch.images::<f32>().unwrap().chunks(3)) {
                    seen[*index].insert(image[0].to_bits());
                }
            }
        }
        assert!(seen.iter().all(|variants| variants.len() == 3), "{seen:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 12, "each is refined once, and kept");
}

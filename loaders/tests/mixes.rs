//! What an epoch is made of: raw samples, refined ones, both, and blends; and what is left of one that goes on elsewhere.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::MemoryStore;
use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::teach::{self, TeachBatch};
use diver_loaders::{
    Batch, Cache, CancelToken, Conditioning, Error, Loader, LoaderBuilder, MemorySource, Mix, MixMode,
    OnError, OnMiss, Per, Pick, Refine, Result, RgbImage, Uneven,
};
use std::collections::{BTreeSet, HashMap};
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

/// Brightens image `i` by `SHIFTS[variant][i % 3]`.
#[derive(Clone, Default)]
struct Shifting {
    /// A variant that fails on image 1.
    fails: Option<u32>,
}

const SHIFTS: [[u8; 3]; 3] = [[20, 5, 30], [10, 15, 30], [0, 25, 31]];

/// The grey level of sample `index`.
fn level(index: usize) -> u8 {
    index as u8 * 8
}

impl Refine for Shifting {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "refiner": "shifting" }))
    }

    fn check_conditioning(&self, _: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(&mut self, batch: &RawBatch<'_>, _: &CancelToken, _: &dyn Progress) -> Result<Vec<RgbImage>> {
        let image = |(key, pixels): (&NoiseKey, &[f32])| {
            let level = (255.0 * pixels[0]).round() as u8;
            if self.fails == Some(key.variant) && level == self::level(1) {
                return Err(Error::refine("told to fail"));
            }
            let shift = SHIFTS[key.variant as usize][usize::from(level / 8) % 3];
            RgbImage::new(1, 1, vec![level + shift; 3])
        };
        batch.keys.iter().zip(batch.pixels.chunks(3)).map(image).collect()
    }
}

fn shifting(refiner: Shifting, pick: Pick) -> LoaderBuilder {
    let values = (0..SAMPLES).flat_map(|i| [f32::from(level(i)) / 255.0; 3]).collect();
    let set = MemorySource::unit(SAMPLES, [3, 1, 1], values, (0..SAMPLES).map(|i| i % 2).collect()).unwrap();
    Loader::builder(set).refiner(refiner).variants(3).pick(pick).batch_size(4).shuffle(true)
}

/// What each sample of an epoch was brightened by, in the order of the set.
fn shifts(loader: &mut Loader, epoch: u64) -> Vec<(usize, u8)> {
    let normalize = loader.info().normalize;
    let mut seen = Vec::new();
    for batch in loader.epoch(epoch) {
        let batch = batch.unwrap();
        for (index, image) in batch.indices().iter().zip(batch.images::<f32>().unwrap().chunks(3)) {
            let level = 255.0 * (image[0] * normalize.std[0] + normalize.mean[0]);
            seen.push((*index, level.round() as u8 - self::level(*index)));
        }
    }
    seen.sort_unstable();
    seen
}

fn chosen(variant: impl Fn(usize) -> usize) -> Vec<(usize, u8)> {
    (0..SAMPLES).map(|index| (index, SHIFTS[variant(index)][index % 3])).collect()
}

/// The darkest is the nearest, and the brightest the best to a teacher that takes bright images for class 1 and to whom
/// class 0 is dark.
#[test]
fn a_refinement_is_chosen_by_its_image() {
    let nearest = chosen(|index| [2, 0, 0][index % 3]);
    let brightest = chosen(|index| [0, 2, 2][index % 3]);
    let best: Vec<_> = (0..SAMPLES).map(|index| [&nearest, &brightest][index % 2][index]).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let teacher = || {
        let asked = Arc::clone(&asked);
        let teach = move |images: &TeachBatch<'_>| {
            asked.fetch_add(images.len(), Ordering::SeqCst);
            Ok(images.images().flat_map(|image| [0.0, 100.0 * image[0]]).collect())
        };
        teach::from_fn(teach).with_fingerprint(serde_json::json!({ "teacher": "bright" }))
    };
    let cache = Cache::on(MemoryStore::new());
    for run in 0..2 {
        let mut loader = shifting(Shifting::default(), Pick::Nearest).threads(1 + run).build().unwrap();
        let loader_best = shifting(Shifting::default(), Pick::Best).cache(cache.clone()).threads(1 + run);
        let mut loader_best = loader_best.teacher(teacher(), Per::Image).build().unwrap();
        for epoch in 0..2 {
            assert_eq!(shifts(&mut loader, epoch), nearest);
            assert_eq!(shifts(&mut loader_best, epoch), best);
        }
        assert_eq!(loader.stats().skipped, 0);
        loader_best.finish().unwrap();
        // In the second run, everything is found.
        assert_eq!(asked.load(Ordering::SeqCst), 3 * SAMPLES);
    }
    let error = shifting(Shifting::default(), Pick::Best).build().unwrap_err();
    assert!(error.to_string().contains("pick: `best` asks a teacher"), "{error}");
}

/// What fails is not chosen where failures are skipped.
#[test]
fn the_nearest_of_those_that_do_not_fail_is_chosen() {
    let failing = Shifting { fails: Some(0) };
    let mut loader = shifting(failing.clone(), Pick::Nearest).on_error(OnError::Skip).build().unwrap();
    for epoch in 0..2 {
        let nearest = chosen(|index| if index == 1 { 1 } else { [2, 0, 0][index % 3] });
        assert_eq!(shifts(&mut loader, epoch), nearest);
    }
    let mut raising = shifting(failing, Pick::Nearest).build().unwrap();
    assert_eq!(raising.iter().filter(|batch| batch.is_err()).count(), 1);
}

#[test]
fn all_refinements_come_in_every_epoch() {
    let mut all: Vec<(usize, u8)> = (0..3).flat_map(|variant| chosen(move |_| variant)).collect();
    all.sort_unstable();
    let mut loader = shifting(Shifting::default(), Pick::All).build().unwrap();
    assert_eq!(loader.len(), (3 * SAMPLES).div_ceil(4));
    for epoch in 0..2 {
        assert_eq!(shifts(&mut loader, epoch), all);
    }
    // Beside the raw ones, of half the samples.
    let mix = Mix::constant(0.5).unwrap();
    let mut both = shifting(Shifting::default(), Pick::All).mode(MixMode::Both).mix(mix).build().unwrap();
    let batches: Vec<Batch> = both.iter().map(Result::unwrap).collect();
    let refined = batches.iter().flat_map(Batch::refined).filter(|refined| **refined).count();
    assert_eq!((batches.iter().map(Batch::len).sum::<usize>(), refined), (SAMPLES + 3 * 12, 3 * 12));
}

/// Nobody waits for what is to be chosen from; it is served raw until it can be.
#[test]
fn nothing_is_chosen_before_it_is_there() {
    let mut loader = shifting(Shifting::default(), Pick::Nearest).on_miss(OnMiss::Raw).build().unwrap();
    let nearest = chosen(|index| [2, 0, 0][index % 3]);
    for epoch in 0..1000 {
        let seen = shifts(&mut loader, epoch);
        if seen == nearest {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("not all were chosen");
}

/// A program that keeps images gets those that are chosen, and no batch without one that it has.
#[test]
fn chosen_images_can_stay() {
    for on_miss in [OnMiss::Wait, OnMiss::Raw] {
        let loader = shifting(Shifting::default(), Pick::Nearest).on_miss(on_miss).resident(true);
        let mut loader = loader.threads(4).build().unwrap();
        let normalize = loader.info().normalize;
        let nearest: BTreeSet<(usize, u8)> = chosen(|index| [2, 0, 0][index % 3]).into_iter().collect();
        let mut kept: HashMap<usize, Vec<f32>> = HashMap::new();
        for epoch in 0.. {
            assert!(epoch < 1000, "{on_miss}");
            let (mut are_held, mut seen) = (true, BTreeSet::new());
            for _ in 0..SAMPLES.div_ceil(4) {
                let batch = loader.batches().next().unwrap().unwrap();
                are_held &= batch.is_held();
                for (row, slot) in batch.slots().iter().enumerate() {
                    if !batch.is_held() {
                        let images = batch.images::<f32>().unwrap();
                        kept.insert(*slot, images[3 * row..][..3].to_vec());
                    }
                    let level = 255.0 * (kept[slot][0] * normalize.std[0] + normalize.mean[0]);
                    let index = batch.indices()[row];
                    seen.insert((index, level.round() as u8 - self::level(index)));
                }
                loader.hold(&batch);
            }
            if are_held && seen == nearest {
                break;
            }
        }
    }
}

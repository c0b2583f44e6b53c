//! Several sets as one, streamed: their batches, their weights, and the cache that they share with their sets.

#![allow(clippy::unwrap_used)]

use diver_loaders::export::{ExportFormat, export};
use diver_loaders::refine::Silent;
use diver_loaders::{
    Batch, Cache, CancelToken, Concat, Error, Identity, Loader, LoaderBuilder, LoaderState, MemorySource,
    Mix, MixMode, Normalize, Refinery, Source, SourceInfo, Uneven, ValueSpace,
};
use proptest::prelude::*;

const CLASSES: usize = 3;

/// A set whose images differ from each other's and another set's.
fn set(path: &str, samples: usize, space: ValueSpace) -> MemorySource {
    let labels: Vec<usize> = (0..samples).map(|index| index % CLASSES).collect();
    let first = path.bytes().map(f32::from).sum::<f32>() % 10.0;
    let values: Vec<f32> = (0..samples * 12).map(|i| (i as f32 / 7.0 + first).sin()).collect();
    let plain = MemorySource::unit(samples, [3, 2, 2], values.clone(), labels).unwrap();
    let normalize = match space {
        ValueSpace::Normalized(own) => own,
        _ => Normalize::IMAGENET,
    };
    let info = SourceInfo {
        path: path.into(),
        num_classes: CLASSES,
        value_space: space,
        normalize,
        ..plain.info().clone()
    };
    let labels = (0..samples).map(|index| plain.label(index).unwrap()).collect();
    MemorySource::new(info, values, labels).unwrap()
}

fn both(a: MemorySource, b: MemorySource) -> Concat {
    Concat::new(vec![Box::new(a), Box::new(b)]).unwrap()
}

fn batches(loader: &mut Loader) -> Vec<Batch> {
    loader.iter().map(Result::unwrap).collect()
}

/// All images, targets and labels that come in an epoch.
fn rows(batches: &[Batch]) -> (Vec<u32>, Vec<u32>, Vec<usize>) {
    let bits =
        |of: fn(&Batch) -> &[f32]| batches.iter().flat_map(|b| of(b).iter().map(|v| v.to_bits())).collect();
    (
        bits(|batch| batch.images().unwrap()),
        bits(Batch::targets),
        batches.iter().flat_map(|b| b.labels().to_vec()).collect(),
    )
}

#[test]
fn without_shuffling_one_sets_batches_follow_the_others() {
    let cifar = ValueSpace::Normalized(Normalize { mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4] });
    for (spaces, refined) in [
        ([ValueSpace::Unit, ValueSpace::Unit], false),
        ([cifar, cifar], false),
        ([cifar, cifar], true),
        ([ValueSpace::Normalized(Normalize::IMAGENET), ValueSpace::Unit], true),
    ] {
        let load = |source: Box<dyn Source>| {
            let builder = Loader::builder(source).batch_size(4);
            let mut loader = if refined { builder.refiner(Identity) } else { builder }.build().unwrap();
            batches(&mut loader)
        };
        let (a, b) = (set("a", 8, spaces[0]), set("b", 6, spaces[1]));
        let whole = load(Box::new(both(a.clone(), b.clone())));
        let apart: Vec<Batch> = [load(Box::new(a)), load(Box::new(b))].into_iter().flatten().collect();
        assert_eq!(whole.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 4, 2]);
        assert_eq!(rows(&whole), rows(&apart));
        let indices: Vec<usize> = whole.iter().flat_map(|batch| batch.indices().to_vec()).collect();
        assert!(indices.into_iter().eq(0..14));
    }
}

/// How many images a loader of `source` has refined in an epoch, beside those in a cache.
fn misses(source: impl Source + 'static, cache: &Cache) -> u64 {
    let mut loader =
        Loader::builder(source).refiner(Identity).cache(cache.clone()).batch_size(3).build().unwrap();
    batches(&mut loader);
    loader.stats().misses
}

#[test]
fn refined_images_are_shared_both_ways() {
    let sets = || {
        let normalized = ValueSpace::Normalized(Normalize::IMAGENET);
        (set("a", 5, normalized), set("b", 4, ValueSpace::Unit))
    };
    // Refined alone, found together.
    let folder = tempfile::tempdir().unwrap();
    let cache = || Cache::open(folder.path()).unwrap();
    let (a, b) = sets();
    for (alone, samples) in [(a.clone(), 5), (b.clone(), 4)] {
        let mut refinery = Refinery::new(alone, Identity, Some(&cache())).unwrap();
        assert_eq!(refinery.run(0..samples, &CancelToken::new(), &Silent).unwrap().refined, samples);
    }
    assert_eq!(misses(both(a.clone(), b.clone()), &cache()), 0);
    // Refined together, found alone.
    let folder = tempfile::tempdir().unwrap();
    let cache = || Cache::open(folder.path()).unwrap();
    let weighted = both(a.clone(), b.clone()).weights(&[1.0, 3.0]).unwrap();
    assert_eq!(misses(weighted, &cache()), 9);
    assert_eq!(misses(a, &cache()), 0);
    assert_eq!(misses(b, &cache()), 0);
}

/// How often each sample comes in an epoch, of all ranks, raw and refined.
fn counts(
    concat: impl Fn() -> Concat,
    epoch: u64,
    world: usize,
    set: impl Fn(LoaderBuilder) -> LoaderBuilder,
) -> (Vec<usize>, Vec<usize>, usize) {
    let samples = concat().info().num_samples;
    let (mut raw, mut refined) = (vec![0; samples], vec![0; samples]);
    let mut lengths = Vec::new();
    for rank in 0..world {
        let builder =
            Loader::builder(concat()).refiner(Identity).batch_size(4).shuffle(true).shard(rank, world);
        let mut loader = set(builder).build().unwrap();
        lengths.push(loader.epoch(epoch).len());
        let mut came = 0;
        for batch in loader.epoch(epoch) {
            let batch = batch.unwrap();
            came += 1;
            for (index, is_refined) in batch.indices().iter().zip(batch.refined()) {
                if *is_refined { refined[*index] += 1 } else { raw[*index] += 1 }
            }
        }
        assert_eq!(came, lengths[rank]);
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "ranks have as many batches: {lengths:?}");
    (raw, refined, lengths[0])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn each_sample_comes_as_often_as_its_sets_weight_says(
        sizes in (3_usize..20, 3_usize..20), weights in (0.2_f64..5.0, 0.2_f64..5.0), epoch in 0_u64..4, world in 1_usize..4, share in 0.0_f64..=1.0
    ) {
        let concat = || {
            both(set("a", sizes.0, ValueSpace::Unit), set("b", sizes.1, ValueSpace::Unit))
                .weights(&[weights.0, weights.1])
                .unwrap()
        };
        let portions = concat().portions().to_vec();
        let entries: usize = portions.iter().map(|portion| portion.places).sum();
        let mix = || Mix::constant(share).unwrap();
        // Of one rank exactly; of several, `pad` adds less than one place for each.
        let (raw, refined, _) = counts(concat, epoch, world, |builder| builder.mix(mix()));
        let total: Vec<usize> = raw.iter().zip(&refined).map(|(raw, refined)| raw + refined).collect();
        let extra = total.iter().sum::<usize>() - entries;
        prop_assert!(extra < world);
        let (a, b) = total.split_at(sizes.0);
        for (portion, own) in portions.iter().zip([a, b]) {
            let (least, most) = (portion.places / portion.samples, portion.places.div_ceil(portion.samples));
            prop_assert!(own.iter().all(|count| (least..=most + extra).contains(count)), "{own:?} {portion:?}");
            if world == 1 {
                prop_assert_eq!(own.iter().sum::<usize>(), portion.places);
            }
        }
        if world == 1 {
            let expected = (share * entries as f64).round() as usize;
            prop_assert_eq!(refined.iter().sum::<usize>(), expected);
            // Beside each other, each comes raw, and the share as well.
            let (raw, refined, _) = counts(concat, epoch, 1, |builder| builder.mix(mix()).mode(MixMode::Both));
            prop_assert_eq!(raw.iter().sum::<usize>(), entries);
            prop_assert_eq!(refined.iter().sum::<usize>(), expected);
        }
    }
}

#[test]
fn weights_of_one_length_change_nothing() {
    let plain = || both(set("a", 8, ValueSpace::Unit), set("b", 8, ValueSpace::Unit));
    let load = |concat: Concat| {
        let mut loader = Loader::builder(concat).batch_size(3).shuffle(true).seed(5).build().unwrap();
        let first = batches(&mut loader);
        (rows(&first), rows(&batches(&mut loader)), serde_json::to_string(&loader.state()).unwrap())
    };
    let (plain, weighted) = (load(plain()), load(plain().weights(&[2.0, 2.0]).unwrap()));
    assert_eq!(plain, weighted);
    assert!(!plain.2.contains("set_places"), "{}", plain.2);
}

#[test]
fn an_epoch_goes_on_where_it_was_left() {
    let concat = |weights: &[f64]| {
        both(set("a", 6, ValueSpace::Unit), set("b", 6, ValueSpace::Unit)).weights(weights).unwrap()
    };
    let loader = |weights: &[f64], batch| {
        Loader::builder(concat(weights)).batch_size(batch).shuffle(true).seed(1).build().unwrap()
    };
    let indices =
        |batches: &[Batch]| -> Vec<usize> { batches.iter().flat_map(|b| b.indices().to_vec()).collect() };
    let weights = [2.5, 1.0];
    let mut whole = loader(&weights, 4);
    let (first, second) = (batches(&mut whole), batches(&mut whole));
    assert_eq!(indices(&first).len(), 15 + 6);

    let mut left = loader(&weights, 4);
    let begun: Vec<Batch> = left.epoch(1).take(2).map(Result::unwrap).collect();
    let saved = serde_json::to_string(&left.state()).unwrap();
    assert!(saved.contains(r#""set_places":[15,6]"#), "{saved}");
    let state: LoaderState = serde_json::from_str(&saved).unwrap();
    let mut resumed = loader(&weights, 7);
    resumed.load_state(&state).unwrap();
    let rest = batches(&mut resumed);
    assert_eq!([indices(&begun), indices(&rest)].concat(), indices(&second));

    // Another loader's order is another one, even where epochs are as long.
    for other in [&[1.0, 2.5][..], &[1.0, 1.0]] {
        let error = loader(other, 4).load_state(&state).unwrap_err();
        assert!(matches!(error, Error::State { field: "set_places", .. }), "{error}");
    }
}

#[test]
fn ranks_share_a_weighted_epoch() {
    let concat =
        || both(set("a", 6, ValueSpace::Unit), set("b", 6, ValueSpace::Unit)).weights(&[3.0, 1.0]).unwrap();
    for uneven in [Uneven::Pad, Uneven::Drop] {
        let (raw, _, length) =
            counts(concat, 2, 4, |builder| builder.mix(Mix::constant(0.0).unwrap()).uneven(uneven));
        assert_eq!((raw, length), ([[3; 6], [1; 6]].concat(), 2));
    }
}

/// In an order of its own, and with a refiner that works ahead: which samples come once more changes.
#[test]
fn all_samples_are_refined_whichever_come_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let concat =
        both(set("a", 4, ValueSpace::Unit), set("b", 3, ValueSpace::Unit)).weights(&[1.0, 1.0]).unwrap();
    let mut loader = Loader::builder(concat)
        .refiner(Identity)
        .cache(Cache::open(folder.path()).unwrap())
        .batch_size(2)
        .build()
        .unwrap();
    for epoch in 0..3 {
        let came = batches(&mut loader);
        assert_eq!(came.iter().map(Batch::len).sum::<usize>(), 8, "{epoch}");
        assert!(came.iter().all(|batch| batch.refined().iter().all(|refined| *refined)));
    }
    assert_eq!(loader.stats().misses, 7);
}

#[test]
fn an_export_has_one_value_space() {
    let folder = tempfile::tempdir().unwrap();
    let normalized = ValueSpace::Normalized(Normalize::IMAGENET);
    let exported = |name: &str, concat: Concat| {
        let samples = (0..concat.info().num_samples).map(|index| concat.sample(index));
        let folder = folder.path().join(name);
        export(concat.info(), samples, ExportFormat::Mtt, &folder, &CancelToken::new())?;
        diver_loaders::open(&folder)
    };
    let alike = || both(set("a", 3, normalized), set("b", 4, normalized));
    let opened = exported("alike", alike()).unwrap();
    assert_eq!(opened.sample(5).unwrap().digest(), alike().sample(5).unwrap().digest());
    let error = exported("mixed", both(set("a", 3, normalized), set("b", 4, ValueSpace::Unit))).unwrap_err();
    assert!(error.to_string().contains("different spaces"), "{error}");
}

//! Labels of a stream: stored ones, a teacher's, and of augmented views.
#![allow(clippy::unwrap_used)]

#[path = "crash/switched.rs"]
#[allow(dead_code)] // Its clock goes right here.
mod switched;

use diver_loaders::augment::{Augment, CutMix, HorizontalFlip, RandomResizedCrop};
use diver_loaders::cache::LogitForm;
use diver_loaders::refine::{Progress, RawBatch};
use diver_loaders::teach::TeachBatch;
use diver_loaders::{
    Batch, Cache, CancelToken, Conditioning, Error, Identity, Loader, LoaderBuilder, MemorySource, Mix,
    MixMode, Per, Refine, Result, RgbImage, Source as _, Targets, Teach,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use switched::Switched;

const SAMPLES: usize = 12;
const CLASSES: usize = 3;
const SIZE: usize = 3 * 8 * 8;

fn set() -> MemorySource {
    let values = (0..SAMPLES * SIZE).map(|at| ((at * 37 + at / SIZE * 11) % 256) as f32 / 255.0).collect();
    MemorySource::unit(SAMPLES, [3, 8, 8], values, (0..SAMPLES).map(|index| index % CLASSES).collect())
        .unwrap()
}

fn builder() -> LoaderBuilder {
    Loader::builder(set()).refiner(Identity).batch_size(4).shuffle(true).seed(5)
}

/// Says of an image what it looks like in places, counts images, and obeys a script.
#[derive(Clone, Default)]
struct Teacher {
    seen: Arc<AtomicUsize>,
    anonymous: bool,
    fails: bool,
    panics: bool,
    delay: Duration,
}

impl Teacher {
    fn logits(image: &[f32]) -> [f32; CLASSES] {
        let sum = |range: std::ops::Range<usize>| image[range].iter().sum::<f32>() / 8.0;
        [sum(0..20), sum(50..90), sum(100..192)]
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Teach for Teacher {
    fn fingerprint(&self) -> Option<Value> {
        (!self.anonymous).then(|| json!({ "teacher": "places" }))
    }

    fn preferred_batch(&self) -> usize {
        5
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
        assert!(!self.panics, "told to panic");
        assert!(images.len() <= 5);
        if self.fails {
            return Err(Error::teach("told to fail"));
        }
        std::thread::sleep(self.delay);
        cancel.check()?;
        self.seen.fetch_add(images.len(), Ordering::SeqCst);
        Ok(images.images().flat_map(Self::logits).collect())
    }
}

/// Halves every value.
struct Darker;

impl Refine for Darker {
    fn fingerprint(&self) -> Option<Value> {
        Some(json!({ "refiner": "darker" }))
    }

    fn preferred_batch(&self) -> usize {
        4
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
        let pixels: Vec<f32> = batch.pixels.iter().map(|value| value / 2.0).collect();
        Identity.refine(&RawBatch { pixels: &pixels, ..*batch }, cancel, progress)
    }
}

/// Everything in an epoch's batches, as bits.
fn plain(loader: &mut Loader, epoch: u64) -> Vec<(Vec<u32>, Vec<u32>, Vec<usize>)> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    let plain =
        |batch: Batch| (bits(batch.images().unwrap()), bits(batch.targets()), batch.indices().to_vec());
    loader.epoch(epoch).map(|batch| plain(batch.unwrap())).collect()
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let exps: Vec<f32> = logits.iter().map(|logit| (logit / temperature).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn an_image_is_taught_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = Teacher::default();
    let mut first = None;
    for run in 0..2 {
        let loader = builder().labels(Targets::teacher(4.0).unwrap()).teacher(teacher.clone(), Per::Image);
        let mut loader = loader.cache(Cache::open(folder.path()).unwrap()).threads(1 + run).build().unwrap();
        for batch in loader.epoch(0) {
            let batch = batch.unwrap();
            for (image, target) in
                batch.images::<f32>().unwrap().chunks(SIZE).zip(batch.targets().chunks(CLASSES))
            {
                assert!(close(target, &softmax(&Teacher::logits(image), 4.0)));
            }
        }
        let epochs = [plain(&mut loader, 0), plain(&mut loader, 1)];
        assert_eq!(teacher.seen(), SAMPLES, "in run {run}");
        let stats = loader.stats();
        assert_eq!(stats.taught, if run == 0 { SAMPLES as u64 } else { 0 });
        assert!(stats.label_hits >= 2 * SAMPLES as u64);
        assert!(*first.get_or_insert_with(|| epochs.clone()) == epochs, "run {run}");
    }
}

/// Raw and refined images of a sample look different, even if they are the same.
#[test]
fn raw_and_refined_images_have_labels_of_their_own() {
    let teacher = Teacher::default();
    let labels = || Targets::average(0.25, 1.0).unwrap();
    let loader = builder().labels(labels()).teacher(teacher.clone(), Per::Image);
    let mut loader = loader.mix(Mix::linear(0.0, 1.0, 2).unwrap()).build().unwrap();
    for epoch in 0..2 {
        for batch in loader.epoch(epoch) {
            let batch = batch.unwrap();
            let rows = batch
                .images::<f32>()
                .unwrap()
                .chunks(SIZE)
                .zip(batch.targets().chunks(CLASSES))
                .zip(batch.labels());
            for ((image, target), label) in rows {
                let mut expected: Vec<f32> =
                    softmax(&Teacher::logits(image), 1.0).iter().map(|share| 0.75 * share).collect();
                expected[*label] += 0.25;
                assert!(close(target, &expected), "{target:?} {expected:?}");
            }
        }
    }
    assert_eq!(teacher.seen(), 2 * SAMPLES);
}

#[test]
fn views_are_the_same_for_any_threads_and_are_labelled_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = Teacher::default();
    let augment = || {
        Augment::new([
            RandomResizedCrop::default().into(),
            HorizontalFlip::default().into(),
            CutMix::default().into(),
        ])
        .unwrap()
    };
    let mut first = None;
    for run in 0..2 {
        let loader = builder().augment(augment()).threads(1 + 2 * run);
        let loader = loader.labels(Targets::teacher(20.0).unwrap()).teacher(teacher.clone(), Per::View);
        let loader = loader.logit_form(LogitForm { half: true, top_k: None });
        let mut loader = loader.cache(Cache::open(folder.path()).unwrap()).build().unwrap();
        for batch in loader.epoch(1) {
            let batch = batch.unwrap();
            for (view, target) in
                batch.images::<f32>().unwrap().chunks(SIZE).zip(batch.targets().chunks(CLASSES))
            {
                let expected = softmax(&Teacher::logits(view), 20.0);
                assert!(expected.iter().zip(target).all(|(a, b)| (a - b).abs() < 1e-3), "float16 of a view");
            }
        }
        let epochs = [plain(&mut loader, 0), plain(&mut loader, 1)];
        assert!(epochs[0] != epochs[1], "views are others in every epoch");
        assert!(*first.get_or_insert_with(|| epochs.clone()) == epochs, "run {run}");
    }
    // What is made ahead may be of a third epoch.
    let seen = teacher.seen();
    assert!((2 * SAMPLES..=3 * SAMPLES).contains(&seen), "{seen} views");
}

/// A view hangs on the sample's place in the epoch alone, unless a batch shares something.
#[test]
fn views_do_not_depend_on_batches_or_ranks() {
    let views = |batch_size, rank, world| {
        let augment = Augment::new([RandomResizedCrop::default().into(), HorizontalFlip::default().into()]);
        let loader = builder().batch_size(batch_size).shard(rank, world).augment(augment.unwrap());
        let mut views = std::collections::BTreeMap::new();
        for batch in loader.build().unwrap().epoch(3) {
            let batch = batch.unwrap();
            for (index, view) in batch.indices().iter().zip(batch.images::<f32>().unwrap().chunks(SIZE)) {
                views.insert(*index, view.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
            }
        }
        views
    };
    let whole = views(4, 0, 1);
    assert_eq!(whole.len(), SAMPLES);
    assert!(views(5, 0, 1) == whole);
    let mut shares = views(3, 0, 2);
    shares.extend(views(3, 1, 2));
    assert!(shares == whole);
}

#[test]
fn mixed_images_have_mixed_targets() {
    let augment = Augment::new([CutMix::default().into()]).unwrap();
    let mut loader = builder().augment(augment).build().unwrap();
    let mut soft = 0;
    for batch in loader.epoch(0) {
        for target in batch.unwrap().targets().chunks(CLASSES) {
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            soft += usize::from(target.iter().filter(|share| **share > 0.0).count() == 2);
        }
    }
    assert!(soft > 0);
}

#[test]
fn smoothed_labels_need_no_teacher() {
    let mut loader = builder().labels(Targets::hard(0.3).unwrap()).build().unwrap();
    let batch = loader.iter().next().unwrap().unwrap();
    let label = batch.labels()[0];
    assert!((batch.targets()[label] - 0.8).abs() < 1e-6);
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let refused = |loader: LoaderBuilder| loader.build().unwrap_err().to_string();
    let teacher = || Targets::teacher(1.0).unwrap();
    assert!(refused(builder().labels(teacher())).contains("has no teacher"));
    let idle = builder().teacher(Teacher::default(), Per::Image);
    assert!(refused(idle).contains("has nothing to do"));
    let other = diver_loaders::teach::from_fn(|_: &TeachBatch<'_>| Ok(Vec::new())).with_num_classes(10);
    let error = refused(builder().labels(teacher()).teacher(other, Per::Image));
    assert!(error.contains("10") && error.contains('3'), "{error}");
}

#[test]
fn what_goes_wrong_in_a_teacher_is_said_in_its_batch() {
    for (teacher, message) in [
        (Teacher { fails: true, ..Teacher::default() }, "told to fail"),
        (Teacher { panics: true, ..Teacher::default() }, "thread diver-teach panicked: told to panic"),
    ] {
        let loader = builder().labels(Targets::teacher(1.0).unwrap()).teacher(teacher, Per::Image);
        let mut loader = loader.build().unwrap();
        let errors: Vec<_> = loader.iter().map(|batch| batch.unwrap_err().to_string()).collect();
        assert_eq!(errors.len(), 3);
        assert!(errors.iter().all(|error| error.contains(message)), "{errors:?}");
    }
}

#[test]
fn a_loader_is_dropped_while_its_teacher_works() {
    let teacher = Teacher { delay: Duration::from_millis(100), ..Teacher::default() };
    let loader = builder().labels(Targets::teacher(1.0).unwrap()).teacher(teacher, Per::Image);
    let mut loader = loader.build().unwrap();
    drop(loader.iter().next());
    let started = std::time::Instant::now();
    drop(loader);
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Without a fingerprint nothing tells whose logits they are.
#[test]
fn an_anonymous_teacher_stays_off_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = Teacher { anonymous: true, ..Teacher::default() };
    for run in 1..3 {
        let loader = builder().labels(Targets::teacher(1.0).unwrap()).teacher(teacher.clone(), Per::Image);
        let mut loader = loader.cache(Cache::open(folder.path()).unwrap()).build().unwrap();
        plain(&mut loader, 0);
        plain(&mut loader, 1);
        assert_eq!(teacher.seen(), run * set().info().num_samples);
    }
}

/// What the teacher said waits until the cache takes it, and is said again to nobody.
#[test]
fn logits_wait_for_a_cache_that_fails() {
    let store = Switched::default();
    let raw = |teacher: &Teacher| {
        let loader = Loader::builder(set()).labels(Targets::teacher(1.0).unwrap());
        let loader = loader.teacher(teacher.clone(), Per::Image).batch_size(4);
        loader.cache(Cache::on(store.clone())).build().unwrap()
    };
    let teacher = Teacher::default();
    let mut down = raw(&teacher);
    store.set_down(true);
    for epoch in 0..2 {
        plain(&mut down, epoch);
    }
    assert_eq!(teacher.seen(), SAMPLES);
    let error = down.finish().unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");

    store.set_down(false);
    let mut up = raw(&teacher);
    plain(&mut up, 0);
    assert_eq!(teacher.seen(), 2 * SAMPLES);
    assert!(up.cache_failure().is_none());
    assert_eq!(up.finish().unwrap().taught, SAMPLES as u64);
    plain(&mut raw(&teacher), 0);
    assert_eq!(teacher.seen(), 2 * SAMPLES);
}

/// A blend of two images has the blend of their targets, and a share that changes asks for no logits of its own.
#[test]
fn blended_images_have_blended_targets() {
    let teacher = Teacher::default();
    let shares = [0.25_f32, 0.75];
    let targets = |mix: Mix, mode: MixMode, epoch: u64| {
        let loader = Loader::builder(set()).refiner(Darker).batch_size(5).mode(mode).mix(mix);
        let loader = loader.labels(Targets::average(0.5, 2.0).unwrap()).teacher(teacher.clone(), Per::Image);
        let mut loader = loader.build().unwrap();
        loader.epoch(epoch).flat_map(|batch| batch.unwrap().targets().to_vec()).collect::<Vec<_>>()
    };
    let raw = targets(Mix::constant(0.0).unwrap(), MixMode::Replace, 0);
    let refined = targets(Mix::constant(1.0).unwrap(), MixMode::Replace, 0);
    assert!(!close(&raw, &refined));
    let steps = Mix::linear(shares[0].into(), shares[1].into(), 2).unwrap();
    for (epoch, share) in shares.iter().enumerate() {
        let expected: Vec<f32> =
            raw.iter().zip(&refined).map(|(raw, refined)| (1.0 - share) * raw + share * refined).collect();
        assert!(close(&targets(steps.clone(), MixMode::Blend, epoch as u64), &expected), "{share}");
    }

    let teacher = Teacher::default();
    let loader = Loader::builder(set()).refiner(Darker).mode(MixMode::Blend).mix(steps);
    let loader = loader.labels(Targets::teacher(1.0).unwrap()).teacher(teacher.clone(), Per::Image);
    let mut loader = loader.build().unwrap();
    for epoch in 0..2 {
        plain(&mut loader, epoch);
    }
    assert_eq!(teacher.seen(), 2 * SAMPLES);
}

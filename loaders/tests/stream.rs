//! The loader, through its public face.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{ImageForm, ImageRow, MemoryStore, RowKey};
use diver_loaders::refine::{Progress, RawBatch, Silent};
use diver_loaders::{
    Cache, CancelToken, ClassMap, Conditioning, Error, Identity, Label, Loader, LoaderBuilder, LoaderState,
    MemorySource, Mix, OnMiss, Ranks, Refine, Refinery, Refining, RgbImage, Sample, Source, SourceInfo,
    Uneven,
};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

const SAMPLES: usize = 23;

/// Grey images, sample `i` of grey level `i / 32`.
fn set() -> MemorySource {
    let values = (0..SAMPLES).flat_map(|i| vec![i as f32 / 32.0; 12]).collect();
    MemorySource::unit(SAMPLES, [3, 2, 2], values, (0..SAMPLES).map(|i| i % 4).collect()).unwrap()
}

/// Inverts images, counts what it is asked for, and obeys a script.
#[derive(Clone, Default)]
struct Inverter {
    refined: Arc<AtomicUsize>,
    delay: Duration,
    fails: Arc<AtomicBool>,
    panics: bool,
    anonymous: bool,
    released: Arc<AtomicUsize>,
}

impl Refine for Inverter {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        (!self.anonymous).then(|| serde_json::json!({ "refiner": "inverter" }))
    }

    fn preferred_batch(&self) -> usize {
        5
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<(), Error> {
        match conditioning {
            Conditioning::Class(class) if *class < 1000 => Ok(()),
            other => Err(Error::refine(format!("{other} is unknown"))),
        }
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        _progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>, Error> {
        assert!(!self.panics, "told to panic");
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::refine("told to fail"));
        }
        let until = Instant::now() + self.delay;
        while Instant::now() < until {
            cancel.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        cancel.check()?;
        self.refined.fetch_add(batch.len(), Ordering::SeqCst);
        let inverted: Vec<f32> = batch.pixels.iter().map(|p| 1.0 - p).collect();
        inverted.chunks_exact(12).map(|planar| RgbImage::from_planar(2, 2, planar)).collect()
    }

    fn release(&mut self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Does `work`, hearing what its thread logs.
    fn of<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), work)
    }

    /// The messages with `part` in them.
    fn lines(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

/// A batch as plain data, for comparison.
type Plain = (Vec<usize>, Vec<bool>, Vec<f32>, Vec<f32>);

fn plain(batches: impl Iterator<Item = Result<diver_loaders::Batch, Error>>) -> Vec<Plain> {
    batches
        .map(|batch| batch.unwrap())
        .map(|b| {
            (
                b.indices().to_vec(),
                b.refined().to_vec(),
                b.images::<f32>().unwrap().to_vec(),
                b.targets().to_vec(),
            )
        })
        .collect()
}

fn builder(refiner: &Inverter) -> LoaderBuilder {
    Loader::builder(set()).refiner(refiner.clone()).batch_size(4).shuffle(true).seed(7)
}

#[test]
fn values_are_those_of_the_set() {
    let mut loader = builder(&Inverter::default()).mix(Mix::constant(0.5).unwrap()).build().unwrap();
    let normalize = loader.info().normalize;
    let mut refined_samples = 0;
    for batch in loader.epoch(0) {
        let batch = batch.unwrap();
        assert_eq!(batch.shape()[1..], [3, 2, 2]);
        for (slot, index) in batch.indices().iter().enumerate() {
            let grey = *index as f32 / 32.0;
            let expected = if batch.refined()[slot] { ((1.0 - grey) * 255.0).round() / 255.0 } else { grey };
            for (at, value) in batch.images::<f32>().unwrap()[slot * 12..][..12].iter().enumerate() {
                assert!((value - normalize.apply(at / 4, expected)).abs() < 1e-5);
            }
            refined_samples += usize::from(batch.refined()[slot]);
            assert_eq!(batch.labels()[slot], index % 4);
            let target = &batch.targets()[slot * 4..][..4];
            assert!((0..4).all(|class| target[class] == f32::from(class == index % 4)));
        }
    }
    assert_eq!(refined_samples, 12, "round(0.5 * 23)");
}

#[test]
fn batches_depend_on_the_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let epochs = |builder: LoaderBuilder| {
        let mut loader = builder.mix(Mix::linear(0.2, 0.9, 3).unwrap()).build().unwrap();
        (0..3).flat_map(|_| plain(loader.iter())).collect::<Vec<_>>()
    };
    let reference = epochs(builder(&Inverter::default()));
    assert_eq!(reference.len(), 18);
    let cached = |b: LoaderBuilder| b.cache(Cache::open(folder.path()).unwrap());
    let inverter = Inverter::default();
    for threads in [1, 2, 8] {
        assert!(epochs(builder(&inverter).threads(threads).prefetch(threads)) == reference);
        assert!(epochs(cached(builder(&inverter)).threads(threads)) == reference, "cold or warm cache");
        assert!(epochs(cached(builder(&inverter)).memory_limit(0)) == reference, "from disk alone");
    }
    assert!(epochs(builder(&inverter).seed(8)) != reference);
}

#[test]
fn nothing_is_refined_twice() {
    let folder = tempfile::tempdir().unwrap();
    let inverter = Inverter::default();
    let run = |epochs| {
        let mut loader = builder(&inverter).cache(Cache::open(folder.path()).unwrap()).build().unwrap();
        for _ in 0..epochs {
            assert_eq!(loader.iter().map(|b| b.unwrap().len()).sum::<usize>(), SAMPLES);
        }
        loader.stats()
    };
    let cold = run(3);
    assert_eq!((cold.misses, inverter.refined.load(Ordering::SeqCst)), (SAMPLES as u64, SAMPLES));
    let warm = run(2);
    assert_eq!((warm.misses, inverter.refined.load(Ordering::SeqCst)), (0, SAMPLES));
    assert_eq!(warm.disk_hits, SAMPLES as u64, "each image is read once, then served from memory");
    assert!(warm.memory_hits >= SAMPLES as u64);
}

/// What `counter` comes to within half a minute, `count` at most.
fn wait_for(counter: &AtomicUsize, count: usize) -> usize {
    let until = Instant::now() + Duration::from_secs(30);
    while counter.load(Ordering::SeqCst) < count && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    counter.load(Ordering::SeqCst)
}

#[test]
fn a_refiner_that_nothing_is_asked_of_is_released() {
    let folder = tempfile::tempdir().unwrap();
    for cache in [None, Some(Cache::open(folder.path()).unwrap())] {
        let refiner = Inverter::default();
        let raw = builder(&refiner).mix(Mix::constant(0.0).unwrap());
        let mut loader = match cache {
            Some(cache) => raw.cache(cache),
            None => raw,
        }
        .build()
        .unwrap();
        plain(loader.iter());
        assert_eq!(wait_for(&refiner.released, 1), 1);
        assert_eq!(refiner.refined.load(Ordering::SeqCst), 0);
    }
}

/// A set whose last sample panics when it is read, until it is told not to.
#[derive(Debug)]
struct Panicking {
    set: MemorySource,
    panicked: Arc<AtomicUsize>,
    heals: Arc<AtomicBool>,
}

impl Source for Panicking {
    fn info(&self) -> &SourceInfo {
        self.set.info()
    }

    fn label(&self, index: usize) -> Result<Label, Error> {
        self.set.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample, Error> {
        if index == SAMPLES - 1 && !self.heals.load(Ordering::SeqCst) {
            self.panicked.fetch_add(1, Ordering::SeqCst);
            panic!("told to panic");
        }
        self.set.sample(index)
    }
}

/// Between batches, the refining thread looks whether the cache has everything, and reads what no batch has read yet.
#[test]
fn a_panic_while_the_cache_is_looked_through_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let set = Panicking { set: set(), panicked: Arc::default(), heals: Arc::default() };
    let (panicked, heals) = (Arc::clone(&set.panicked), Arc::clone(&set.heals));
    let mut loader = Loader::builder(set)
        .refiner(Inverter::default())
        .cache(Cache::open(folder.path()).unwrap())
        .batch_size(4)
        .prefetch(1)
        .build()
        .unwrap();
    let mut batches = loader.iter();
    batches.next().unwrap().unwrap();
    assert_eq!(wait_for(&panicked, 1), 1);
    heals.store(true, Ordering::SeqCst);
    assert_eq!(batches.map(|batch| batch.unwrap().len()).sum::<usize>(), SAMPLES - 4);
}

#[test]
fn a_refiner_is_released_once_the_cache_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let refiner = Inverter::default();
    let released = || refiner.released.load(Ordering::SeqCst);
    let wait_for = |count: usize| wait_for(&refiner.released, count);
    // A part of the set is not all of it.
    let mut loader = builder(&refiner).cache(cache.clone()).mix(Mix::constant(0.5).unwrap()).build().unwrap();
    plain(loader.epoch(0));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(released(), 0);

    let mut loader = builder(&refiner).cache(cache.clone()).build().unwrap();
    let first = plain(loader.epoch(0));
    assert_eq!(wait_for(1), 1);
    // A rank of several that never meets the others' samples, and one that leaves some out.
    let shard = builder(&refiner)
        .shuffle(false)
        .shard(1, 3)
        .uneven(Uneven::Drop)
        .drop_last(true)
        .cache(cache.clone());
    let mut shard = shard.build().unwrap();
    plain(shard.epoch(0));
    assert_eq!(wait_for(2), 2);
    drop(shard);
    let mut loader = builder(&refiner).cache(cache).build().unwrap();
    assert_eq!(plain(loader.epoch(0)), first);
    assert_eq!(wait_for(3), 3);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((plain(loader.epoch(0)), released()), (first, 3), "once is enough");
}

#[test]
fn a_refiner_without_fingerprint_stays_off_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let anonymous = Inverter { anonymous: true, ..Default::default() };
    let mut loader = builder(&anonymous).cache(Cache::open(folder.path()).unwrap()).build().unwrap();
    for _ in 0..2 {
        assert_eq!(loader.iter().count(), 6);
    }
    assert_eq!(anonymous.refined.load(Ordering::SeqCst), SAMPLES);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn equal_samples_are_refined_once() {
    let inverter = Inverter::default();
    let twins = MemorySource::unit(4, [3, 2, 2], vec![0.25; 48], vec![0, 0, 0, 1]).unwrap();
    let mut loader = Loader::builder(twins).refiner(inverter.clone()).batch_size(4).build().unwrap();
    assert_eq!(loader.iter().count(), 1);
    assert_eq!(inverter.refined.load(Ordering::SeqCst), 2, "one for each class");
}

#[test]
fn a_state_resumes_at_every_batch() {
    let reference: Vec<_> = {
        let mut loader = builder(&Inverter::default()).build().unwrap();
        (0..2).flat_map(|_| plain(loader.iter())).collect()
    };
    for consumed in 0..=6 {
        let mut loader = builder(&Inverter::default()).build().unwrap();
        assert_eq!(loader.iter().take(consumed).count(), consumed);
        let json = serde_json::to_string(&loader.state()).unwrap();

        let mut resumed = builder(&Inverter::default()).threads(5).build().unwrap();
        resumed.load_state(&serde_json::from_str::<LoaderState>(&json).unwrap()).unwrap();
        assert_eq!(resumed.state(), loader.state());
        let mut rest = plain(resumed.iter());
        rest.extend(plain(resumed.iter()));
        assert!(rest[..12 - consumed.min(6)] == reference[consumed..], "after {consumed} batches");
    }
}

#[test]
fn a_foreign_state_names_the_field() {
    let state = builder(&Inverter::default()).build().unwrap().state();
    let mut other = builder(&Inverter::default()).seed(8).build().unwrap();
    let error = other.load_state(&state).unwrap_err();
    assert_eq!(error.to_string(), "loader state: `seed` is 7 in the state, 8 in this loader");
    let state = other.state();
    let beyond = LoaderState { seen: state.places + 1, ..state };
    assert!(other.load_state(&beyond).unwrap_err().to_string().contains("`seen` is"));
}

/// A distilled set has a few samples of a class, or one.
#[test]
fn no_sample_is_left_out_unless_told_to() {
    let log = Log::default();
    let seen = |uneven: Option<Uneven>| {
        let of = |rank| {
            let shard = builder(&Inverter::default()).shard(rank, 4);
            uneven.into_iter().fold(shard, LoaderBuilder::uneven).build().unwrap()
        };
        let loaders = (0..4).map(|rank| log.of(|| of(rank)));
        let mut indices: Vec<_> =
            loaders.flat_map(|mut loader| plain(loader.iter())).flat_map(|batch| batch.0).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.len()
    };
    assert_eq!([seen(None), seen(Some(Uneven::Pad)), seen(Some(Uneven::Partial))], [SAMPLES; 3]);
    assert_eq!(log.lines("left out"), [""; 0]);
    assert_eq!(seen(Some(Uneven::Drop)), 20);
    let [line] = &log.lines("left out")[..] else { panic!("rank 0 alone says so") };
    assert!(line.contains("3 of 23 samples of an epoch are left out"), "{line}");
}

/// A program makes a loader for every setting and seed that it tries, and a training one for every rank.
#[test]
fn what_was_assumed_of_a_set_is_said_once() {
    let log = Log::default();
    let noted = |path: &str| {
        let info = SourceInfo {
            path: path.into(),
            notes: vec!["one was assumed".into(), "another, too".into()],
            ..set().info().clone()
        };
        let labels = (0..SAMPLES).map(|i| Label::Hard(i % 4)).collect();
        MemorySource::new(info, vec![0.5; SAMPLES * 12], labels).unwrap()
    };
    let make = |path, rank| {
        log.of(|| Loader::builder(noted(path)).shard(rank, 2).build().unwrap());
    };
    make("noted/a", 1);
    assert_eq!(log.lines("noted/"), [""; 0], "rank 0 speaks for all");
    for _ in 0..3 {
        make("noted/a", 0);
    }
    log.of(|| Refinery::new(noted("noted/a"), Identity, None).unwrap());
    assert_eq!(log.lines("noted/"), ["noted/a: one was assumed", "noted/a: another, too"]);
    log.of(|| Refinery::new(noted("noted/b"), Identity, None).unwrap());
    make("noted/b", 0);
    assert_eq!(log.lines("noted/b"), ["noted/b: one was assumed", "noted/b: another, too"]);
}

/// Starts this test again, in each of two processes with the variables that srun sets.
#[test]
fn the_tasks_of_srun_share_an_epoch_out() {
    const CHILD: &str = "DIVER_TEST_TASK";
    if std::env::var_os(CHILD).is_some() {
        let log = Log::default();
        let of = |ranks| builder(&Inverter::default()).uneven(Uneven::Partial).ranks(ranks).build().unwrap();
        let ranks = Ranks::from_env().unwrap();
        let mut loader = log.of(|| of(ranks));
        log.of(|| of(ranks));
        log.of(|| of(Ranks::new(0, 2).unwrap()));
        let [line] = &log.lines("rank ")[..] else { panic!("said once, where a program does not know it") };
        println!("said {line}");
        for index in plain(loader.iter()).into_iter().flat_map(|batch| batch.0) {
            println!("seen {index}");
        }
        return;
    }
    let task = |rank: usize| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["the_tasks_of_srun_share_an_epoch_out", "--exact", "--nocapture"])
            .envs([(CHILD, "1"), ("SLURM_PROCID", &rank.to_string()), ("SLURM_NTASKS", "2")])
            .env_remove("RANK")
            .env_remove("WORLD_SIZE")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("said rank {rank} of 2 (SLURM_PROCID and SLURM_NTASKS)")), "{text}");
        text.lines().filter_map(|line| line.strip_prefix("seen ")?.parse::<usize>().ok()).collect::<Vec<_>>()
    };
    let shares = [task(0), task(1)];
    assert_eq!(shares.each_ref().map(Vec::len), [12, 11]);
    let mut all = shares.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..SAMPLES));
}

/// The usual checkpoint of a training on several devices: rank 0 saves, every rank loads.
#[test]
fn the_state_of_one_rank_serves_all() {
    // 23 samples of 3 ranks: 8, 8 and 7, in batches of 1.
    let of = |rank| builder(&Inverter::default()).batch_size(1).uneven(Uneven::Partial).shard(rank, 3);
    let whole = |rank| {
        let mut loader = of(rank).build().unwrap();
        [plain(loader.iter()), plain(loader.iter())]
    };
    for (batches, rank) in [(3, 1), (3, 2), (7, 1), (7, 2), (8, 2)] {
        let mut first = of(0).build().unwrap();
        assert_eq!(first.iter().take(batches).count(), batches);
        let mut other = of(rank).build().unwrap();
        other.load_state(&first.state()).unwrap();
        let [this, next] = whole(rank);
        let expected = if batches < this.len() { &this[batches..] } else { &next };
        assert!(plain(other.iter()) == expected, "rank {rank} after {batches} batches");
    }
}

#[test]
fn epochs_advance_and_can_be_chosen() {
    let mut loader = builder(&Inverter::default()).build().unwrap();
    let first = plain(loader.iter());
    let second = plain(loader.iter());
    assert_ne!(first, second);
    assert!(plain(loader.epoch(0)) == first);
    assert_eq!(loader.epoch(1).next().unwrap().unwrap().indices(), second[0].0);
    assert_eq!(loader.state().epoch, 1);
    let third = plain(loader.iter());
    assert!(third != second, "an epoch broken off is over: the next follows");
    assert!(plain(loader.epoch(2)) == third);
    assert_eq!(loader.iter().len(), 6);
    assert_eq!(loader.len(), 6);
}

#[test]
fn a_training_can_be_saved_in_the_middle_of_an_epoch() {
    let mut loader = builder(&Inverter::default()).build().unwrap();
    let mut epoch = loader.epoch(3);
    epoch.next().unwrap().unwrap();
    epoch.next().unwrap().unwrap();
    let state = epoch.state();
    assert_eq!((state.epoch, state.seen), (3, 8));
    let rest = plain(epoch);

    let mut resumed = builder(&Inverter::default()).build().unwrap();
    resumed.load_state(&state).unwrap();
    // Looking does not consume.
    assert_eq!((resumed.iter().len(), resumed.epoch(3).len()), (4, 4));
    assert!(plain(resumed.iter()) == rest);

    resumed.load_state(&state).unwrap();
    let mut batches = resumed.batches();
    assert!(plain(batches.by_ref().take(4)) == rest);
    batches.next().unwrap().unwrap();
    assert_eq!((batches.state().epoch, batches.state().seen), (4, 4));
}

#[test]
fn raw_on_miss_never_waits_and_catches_up() {
    let slow = Inverter { delay: Duration::from_millis(30), ..Default::default() };
    let mut loader = builder(&slow).on_miss(OnMiss::Raw).build().unwrap();
    let first: Vec<_> = loader.iter().map(|b| b.unwrap().refined().to_vec()).collect();
    assert!(!first[0].contains(&true), "nothing can be refined yet");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "the background never caught up");
        if loader.iter().all(|b| b.unwrap().refined().iter().all(|r| *r)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(slow.refined.load(Ordering::SeqCst), SAMPLES);
}

/// Raw until refined: a refiner that fails is heard of, and once it recovers every sample comes refined.
#[test]
fn raw_on_miss_reports_failures_and_tries_again() {
    let failing = Inverter::default();
    failing.fails.store(true, Ordering::SeqCst);
    let mut loader = builder(&failing).on_miss(OnMiss::Raw).build().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !loader.iter().any(|b| b.is_err_and(|e| e.to_string() == "refiner: told to fail")) {
        assert!(Instant::now() < deadline, "the failure was never reported");
    }
    failing.fails.store(false, Ordering::SeqCst);
    let is_refined = |b: Result<diver_loaders::Batch, Error>| b.is_ok_and(|b| b.refined().iter().all(|r| *r));
    while !loader.iter().all(is_refined) {
        assert!(Instant::now() < deadline, "the samples were given up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn errors_surface_in_their_batch() {
    let failing = Inverter::default();
    failing.fails.store(true, Ordering::SeqCst);
    let mut loader = builder(&failing).build().unwrap();
    let errors: Vec<_> = loader.iter().map(|b| b.unwrap_err().to_string()).collect();
    assert_eq!(errors, ["refiner: told to fail"; 6]);

    let panicking = Inverter { panics: true, ..Default::default() };
    let mut loader = builder(&panicking).build().unwrap();
    let error = loader.iter().next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "thread diver-refine panicked: told to panic");
}

#[test]
fn a_sample_that_is_not_finite_fails_alone() {
    let mut values = vec![0.5; 4 * 12];
    values[2 * 12 + 5] = f32::NAN;
    let set = MemorySource::unit(4, [3, 2, 2], values, vec![0; 4]).unwrap();
    let mut loader = Loader::builder(set).refiner(Identity).batch_size(1).build().unwrap();
    let results: Vec<_> = loader.iter().collect();
    let failed: Vec<_> = results.iter().map(|r| r.is_err()).collect();
    assert_eq!(failed, [false, false, true, false]);
    let message = results[2].as_ref().unwrap_err().to_string();
    assert!(message.contains("sample 2: pixel value NaN at channel 1, row 0, column 1"), "{message}");
}

#[test]
fn dropping_a_loader_stops_a_long_refinement() {
    let endless = Inverter { delay: Duration::from_secs(600), ..Default::default() };
    let mut loader = builder(&endless).on_miss(OnMiss::Raw).build().unwrap();
    loader.iter().next().unwrap().unwrap();
    let started = Instant::now();
    drop(loader);
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A set that takes its time to be read.
#[derive(Debug)]
struct Slow(MemorySource);

impl Source for Slow {
    fn info(&self) -> &SourceInfo {
        self.0.info()
    }

    fn label(&self, index: usize) -> Result<Label, Error> {
        self.0.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample, Error> {
        std::thread::sleep(Duration::from_millis(20));
        self.0.sample(index)
    }
}

/// A set of which one sample changes after it was read once: its pixels, or its label.
#[derive(Debug)]
struct Changing {
    set: MemorySource,
    reads: AtomicUsize,
    relabels: bool,
}

const CHANGES: usize = 3;

impl Source for Changing {
    fn info(&self) -> &SourceInfo {
        self.set.info()
    }

    fn label(&self, index: usize) -> Result<Label, Error> {
        self.set.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample, Error> {
        let mut sample = self.set.sample(index)?;
        if index == CHANGES && self.reads.fetch_add(1, Ordering::SeqCst) > 0 {
            match self.relabels {
                true => sample.label = Label::Hard(0),
                false => sample.pixels = self.set.sample(CHANGES + 1)?.pixels,
            }
        }
        Ok(sample)
    }
}

/// Else the image of the new content would be filed under the hash of the old, for every later run.
#[test]
fn a_sample_that_changes_during_a_run_fails_alone_and_stays_out_of_the_cache() {
    for relabels in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let changing = || Changing { set: set(), reads: AtomicUsize::new(0), relabels };
        let mut loader = Loader::builder(changing())
            .refiner(Inverter::default())
            .cache(cache.clone())
            .batch_size(1)
            .build()
            .unwrap();
        let failures: Vec<_> =
            loader.iter().enumerate().filter_map(|(at, b)| Some((at, b.err()?.to_string()))).collect();
        let [(CHANGES, message)] = &failures[..] else { panic!("{failures:?}") };
        assert!(message.contains("sample 3: its file has changed since it was first read"), "{message}");
        loader.finish().unwrap();

        let mut refinery = Refinery::new(changing(), Inverter::default(), Some(&cache)).unwrap();
        assert_eq!(refinery.partition().unwrap().len(), SAMPLES - 1);
        let error = refinery.run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap_err();
        assert!(error.to_string().contains("sample 3: its file has changed"), "{error}");
        assert_eq!(refinery.partition().unwrap().len(), SAMPLES - 1);
    }
}

#[test]
fn dropping_a_loader_forgets_what_was_asked_for() {
    let samples = 400;
    let set = MemorySource::unit(samples, [3, 2, 2], vec![0.5; samples * 12], vec![0; samples]).unwrap();
    let slow = Inverter { delay: Duration::from_secs(600), ..Default::default() };
    let mut loader =
        Loader::builder(Slow(set)).refiner(slow).on_miss(OnMiss::Raw).batch_size(50).build().unwrap();
    loader.iter().next().unwrap().unwrap();
    let started = Instant::now();
    drop(loader);
    let batch = Duration::from_millis(20 * 2 * 50);
    assert!(started.elapsed() < 2 * batch, "{:?}", started.elapsed());
}

#[test]
fn a_disk_that_takes_no_more_ends_bulk_refinement_but_not_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let cache = Cache::open(&root).unwrap();

    let mut refinery = Refinery::new(set(), Inverter::default(), Some(&cache)).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let error = refinery.run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap_err().to_string();
    assert!(error.contains("cannot"), "{error}");

    let inverter = Inverter::default();
    let mut loader = builder(&inverter).cache(Cache::open(&root).unwrap()).build().unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    for _ in 0..2 {
        assert!(loader.iter().all(|b| b.is_ok()));
    }
    assert_eq!(inverter.refined.load(Ordering::SeqCst), SAMPLES, "memory serves the second epoch");
}

/// As whoever tidies a cache does: the fingerprint's folder is made again, and is one that opens.
#[test]
fn a_partition_that_is_deleted_under_a_loader_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let inverter = Inverter::default();
    let mut loader = builder(&inverter).cache(cache.clone()).build().unwrap();
    let path = cache.images(&inverter.fingerprint().unwrap()).unwrap().path();
    std::fs::remove_dir_all(&path).unwrap();
    assert!(loader.iter().all(|b| b.is_ok()));
    drop(loader);
    assert!(path.join("fingerprint.json").exists());
    assert_eq!(cache.images(&inverter.fingerprint().unwrap()).unwrap().len(), SAMPLES);
}

/// A cache of others, which is whole or lacks something.
#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_serves() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (cache, inverter, log) = (Cache::open(folder.path()).unwrap(), Inverter::default(), Log::default());
    let refinery = || Refinery::new(set(), inverter.clone(), Some(&cache)).unwrap();
    let mut whole = refinery();
    whole.run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap();
    let path = whole.partition().unwrap().path().to_owned();
    let allow = |mode| {
        for at in [folder.path(), &path] {
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let epoch =
        || plain(builder(&inverter).cache(Cache::open(folder.path()).unwrap()).build().unwrap().iter());
    allow(0o555);
    let expected = log.of(epoch);
    assert_eq!(refinery().run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap().refined, 0);
    assert_eq!(inverter.refined.load(Ordering::SeqCst), SAMPLES);
    assert_eq!(log.lines("cannot"), [""; 0]);
    let is_root = tempfile::tempfile_in(&path).is_ok();
    allow(0o755);
    for part in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).take(3) {
        if part.extension().is_some_and(|extension| extension == "parquet") {
            std::fs::remove_file(part).unwrap();
        }
    }
    allow(0o555);
    if !is_root {
        let before = inverter.refined.load(Ordering::SeqCst);
        let error = refinery().run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap_err().to_string();
        assert!(error.contains("cannot write to the folder: Permission denied"), "{error}");
        assert_eq!(inverter.refined.load(Ordering::SeqCst), before, "nothing is refined in vain");
    }
    assert!(epoch() == expected, "what is lacking is refined, and stays in memory");
    allow(0o755);
}

/// A network that was away for a moment: what was refined meanwhile is written once it is back, even with nothing left
/// to refine, and at the latest when the loader is dropped.
#[test]
fn a_disk_that_recovers_gets_what_it_missed() {
    for drops in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (root, away) = (folder.path().join("cache"), folder.path().join("away"));
        let cache = Cache::open(&root).unwrap();
        let partition = cache.images(&Inverter::default().fingerprint().unwrap()).unwrap();
        let inverter = Inverter::default();
        let mut loader = builder(&inverter).cache(cache.clone()).build().unwrap();
        std::fs::rename(&root, &away).unwrap();
        let first = plain(loader.epoch(0));
        std::fs::rename(&away, &root).unwrap();
        if drops {
            drop(loader);
        } else {
            let until = Instant::now() + Duration::from_secs(30);
            while partition.len() < SAMPLES && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
                partition.refresh().unwrap();
            }
            assert!(plain(loader.epoch(0)) == first);
        }
        partition.refresh().unwrap();
        assert_eq!((partition.len(), inverter.refined.load(Ordering::SeqCst)), (SAMPLES, SAMPLES));
    }
}

/// What waits for the disk serves, too, when the memory cache has dropped it.
#[test]
fn what_waits_for_the_disk_is_not_refined_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let inverter = Inverter::default();
    // Images of 2 x 2 that leave at 64 x 64: one of those fits, and all of these.
    let mut loader = builder(&inverter)
        .cache(Cache::open(&root).unwrap())
        .image_size(64, 64)
        .memory_limit(16_000)
        .build()
        .unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let first = plain(loader.epoch(0));
    assert!(plain(loader.epoch(0)) == first);
    assert_eq!(inverter.refined.load(Ordering::SeqCst), SAMPLES);
}

/// Refines in its own way, but not before another process has refined the same samples and committed them.
struct Late {
    cache: Cache,
}

impl Refine for Late {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Inverter::default().fingerprint()
    }

    fn check_conditioning(&self, _conditioning: &Conditioning) -> Result<(), Error> {
        Ok(())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>, Error> {
        let images = Inverter::default().refine(batch, cancel, progress)?;
        let rows: Vec<ImageRow> = (0..batch.len())
            .map(|at| ImageRow {
                form: ImageForm::Png,
                key: RowKey::new(&batch.keys[at], &set().info().value_space, &batch.conditioning[at]),
                image: Arc::new(images[at].clone()),
                label: Label::Hard(0),
                index: at,
                variant: 0,
                seconds: 0.0,
            })
            .collect();
        self.cache.images(&self.fingerprint().unwrap())?.commit(&rows, &[])?;
        Ok(vec![RgbImage::new(2, 2, vec![77; 12])?; batch.len()])
    }
}

#[test]
fn what_another_process_committed_first_is_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let late = Late { cache: cache.clone() };
    let mut loader = Loader::builder(set())
        .refiner(late)
        .cache(cache)
        .batch_size(4)
        .shuffle(true)
        .seed(7)
        .build()
        .unwrap();
    let expected = plain(builder(&Inverter::default()).build().unwrap().iter());
    assert!(plain(loader.iter()) == expected);
}

/// Each has its own view of the cache, as processes have.
#[test]
fn who_refines_at_the_same_time_shares_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let inverter = Inverter { delay: Duration::from_millis(20), ..Inverter::default() };
    let refine = || {
        let cache = Cache::open(folder.path()).unwrap();
        let mut refinery = Refinery::new(set(), inverter.clone(), Some(&cache)).unwrap();
        refinery.run(0..SAMPLES, &CancelToken::new(), &Silent).unwrap().refined
    };
    let stream = || {
        let cache = Cache::open(folder.path()).unwrap();
        plain(builder(&inverter).cache(cache).build().unwrap().epoch(0)).len()
    };
    std::thread::scope(|scope| {
        let bulk: Vec<_> = (0..4).map(|_| scope.spawn(refine)).collect();
        let streams: Vec<_> = (0..2).map(|_| scope.spawn(stream)).collect();
        let refined: usize = bulk.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(streams.into_iter().all(|thread| thread.join().unwrap() > 0));
        assert!(refined <= SAMPLES);
    });
    assert_eq!(inverter.refined.load(Ordering::SeqCst), SAMPLES, "each sample once");
    let cache = Cache::open(folder.path()).unwrap();
    assert_eq!(cache.images(&inverter.fingerprint().unwrap()).unwrap().len(), SAMPLES);
}

#[test]
fn images_can_leave_at_another_size() {
    let mut loader = builder(&Inverter::default())
        .image_size(3, 5)
        .mix(Mix::constant(0.5).unwrap())
        .batch_size(SAMPLES)
        .build()
        .unwrap();
    let batch = loader.iter().next().unwrap().unwrap();
    assert_eq!(batch.shape(), [SAMPLES, 3, 3, 5]);
    let normalize = set().info().normalize;
    for (slot, index) in batch.indices().iter().enumerate() {
        let grey = *index as f32 / 32.0;
        let expected = if batch.refined()[slot] { ((1.0 - grey) * 255.0).round() / 255.0 } else { grey };
        for value in &batch.images::<f32>().unwrap()[slot * 45..][..15] {
            assert!((value - normalize.apply(0, expected)).abs() < 1e-5);
        }
    }
}

/// What a set says of its own classes holds: `classes` may repeat it, and name more.
#[test]
fn a_list_that_contradicts_the_classes_of_the_set_is_refused() {
    let map = |indices: &[usize]| ClassMap::indices(indices.to_vec()).unwrap();
    let named = || {
        let info = SourceInfo {
            class_map: map(&[0, 217, 482, 491]),
            classes: Some(["tench", "springer", "cassette", "saw"].map(String::from).to_vec()),
            ..set().info().clone()
        };
        let labels = (0..SAMPLES).map(|i| Label::Hard(i % 4)).collect();
        MemorySource::new(info, vec![0.5; SAMPLES * 12], labels).unwrap()
    };
    let build = |classes| Loader::builder(named()).refiner(Inverter::default()).classes(classes).build();

    let imagenette = ClassMap::named("imagenette").unwrap();
    assert_eq!(imagenette.as_indices().unwrap()[..4], [0, 217, 482, 491]);
    let loader = build(imagenette).unwrap();
    assert_eq!(loader.info().class_map, map(&[0, 217, 482, 491]), "the list has ten");
    assert!(build(map(&[0, 217, 482, 491])).is_ok());
    assert_eq!(build(ClassMap::identity()).unwrap().info().class_map, ClassMap::identity());
    let loader = Loader::builder(set()).refiner(Inverter::default()).classes(map(&[4, 3, 2, 1])).build();
    assert_eq!(loader.unwrap().info().class_map, map(&[4, 3, 2, 1]), "a set that says nothing");

    for (classes, expected) in [
        (&[217, 0, 482, 491][..], "memory is labelled by another order of these classes: give the list when"),
        (&[9, 0, 217, 482, 491], "memory is labelled by another order of these classes"),
        (&[953, 954, 949, 950], "lacks class 0 (tench), which is label 0 of memory: leave `classes` out"),
        (&[0, 482, 217, 950], "has class 482 at 1, where class 217 (springer) is label 1 of memory"),
        (&[0, 217], "label 2 is beyond the list"),
    ] {
        let error = build(map(classes)).unwrap_err().to_string();
        assert!(error.starts_with("classes: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn options_are_checked_when_the_loader_is_built() {
    let message = |builder: LoaderBuilder| builder.build().unwrap_err().to_string();
    let inverter = Inverter::default();
    assert!(message(builder(&inverter).batch_size(0)).starts_with("batch_size:"));
    assert!(message(builder(&inverter).threads(0)).starts_with("threads:"));
    assert!(message(builder(&inverter).prefetch(0)).starts_with("prefetch:"));
    assert!(message(builder(&inverter).image_size(0, 3)).starts_with("image_size:"));
    assert!(message(builder(&inverter).shard(3, 3)).starts_with("rank:"));
    assert!(message(builder(&inverter).batch_size(64).drop_last(true)).starts_with("batch_size:"));
    assert!(message(builder(&inverter).memory_limit(100)).starts_with("memory_limit: 276 bytes"));
    assert!(message(Loader::builder(set()).mix(Mix::constant(0.1).unwrap())).starts_with("mix:"));
    let short = ClassMap::indices(vec![1, 2]).unwrap();
    assert!(message(builder(&inverter).classes(short)).contains("label 2 is beyond the list"));
    let wrong = ClassMap::indices(vec![1, 2, 1000, 4]).unwrap();
    let error = message(builder(&inverter).classes(wrong));
    assert!(
        error.contains("label 2 cannot be refined") && error.contains("class 1000 is unknown"),
        "{error}"
    );
}

/// Refines in steps.
struct Stepping;

impl Refine for Stepping {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "refiner": "stepping" }))
    }

    fn preferred_batch(&self) -> usize {
        4
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> Result<(), Error> {
        Identity.check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>, Error> {
        for step in 1..=10 {
            std::thread::sleep(Duration::from_millis(2));
            progress.step(step, 10);
        }
        Identity.refine(batch, cancel, &Silent)
    }
}

/// Whether the epoch is one batch or many, and what is asked for comes in calls of its own or with what is ahead.
#[test]
fn what_is_done_of_an_epoch_grows_with_every_call() {
    for (batch, prefetch) in [(1, 1), (2, 4), (5, 4), (7, 1), (SAMPLES, 1)] {
        let loader = Loader::builder(set()).refiner(Stepping).batch_size(batch).prefetch(prefetch);
        let mut loader = loader.shuffle(true).build().unwrap();
        let epoch = loader.start_epoch();
        let (mut taken, mut last) = (0, 0);
        loop {
            match loader.poll_batch(epoch, Duration::from_millis(1)) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(batch)) => taken += batch.unwrap().len(),
                Poll::Pending => {}
            }
            let Some(refining) = loader.stats().refining.filter(|_| taken < SAMPLES) else { continue };
            // What has come is done, and so is little more than what was refined.
            let refined = loader.stats().misses as usize;
            assert!(refining.done + 2 >= taken, "{refining:?}, {taken} taken, batches of {batch}");
            assert!(
                refining.done <= refined.max(refining.done.min(taken)) + 4,
                "{refining:?}, {refined} refined"
            );
            assert!(refining.done >= last);
            last = refining.done;
        }
        assert_eq!(taken, SAMPLES);
    }
}

#[test]
fn it_can_be_seen_how_far_an_epoch_is() {
    let cache = Cache::on(MemoryStore::new());
    let loader = |seed| {
        let loader = Loader::builder(set()).refiner(Stepping).cache(cache.clone()).batch_size(SAMPLES);
        loader.shuffle(true).seed(seed).build().unwrap()
    };
    let mut cold = loader(0);
    assert_eq!(cold.stats().refining, None);
    let epoch = cold.start_epoch();
    let mut seen: Vec<Refining> = Vec::new();
    while cold.poll_batch(epoch, Duration::from_millis(1)).is_pending() {
        seen.extend(cold.stats().refining);
    }
    assert!(seen.iter().all(|refining| refining.total == SAMPLES && refining.done <= SAMPLES));
    assert_eq!(seen[0].done, 0);
    assert!(seen.is_sorted_by_key(|refining| refining.done), "{seen:?}");
    // It does not wait for the end of a call.
    let etas: Vec<f64> = seen.iter().filter_map(|refining| refining.eta_seconds).collect();
    assert!(etas.iter().all(|eta| (0.0..10.0).contains(eta)), "{etas:?}");
    assert!(etas.len() > seen.len() / 2 && etas[0] > etas[etas.len() - 1], "{etas:?}");
    let all = cold.stats().refining.unwrap();
    assert_eq!((all.done, all.eta_seconds), (SAMPLES, Some(0.0)));
    // In the next epoch nothing is left to do.
    assert!(cold.iter().next().unwrap().is_ok());
    assert!(cold.stats().refining.is_none_or(|refining| refining.done == SAMPLES));

    let mut warm = loader(1);
    assert!(warm.iter().next().unwrap().is_ok());
    assert!(warm.stats().refining.is_none_or(|refining| refining.done <= SAMPLES));
    assert_eq!((warm.stats().misses, warm.stats().stages.refine.calls), (0, 0));
    let stages = cold.stats().stages;
    assert_eq!((stages.refine.calls, stages.refine.items, stages.keep.items), (6, 23, 23));
    assert!(stages.refine.p50 > 0.015 && stages.refine.seconds > 0.1, "{stages:?}");
}

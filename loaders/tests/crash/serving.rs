//! A loader at work, whose cache meets with trouble.

use crate::child::maker_of;
use crate::heard::Heard;
use crate::place::leftovers;
use crate::stub::{BATCH, Stub, fingerprint, keys, redone, sample_of, set, times_refined};
use diver_loaders::cache::CacheOptions;
use diver_loaders::{Cache, Loader, Mix};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SAMPLES: usize = 48;
/// Batches until trouble begins, and those of an epoch.
const FIRST: usize = 4;
const BATCHES: usize = SAMPLES / BATCH;
/// A disk that failed is asked again after 1 s, 2 s, 4 s, ...
const PATIENCE: Duration = Duration::from_secs(20);
/// Dead leases are waited for no longer.
const EXPIRY: Duration = Duration::from_secs(2);

pub(crate) struct Show {
    heard: Heard,
    cache: Cache,
    /// The folder whose leftovers are looked for, if there is one.
    folder: Option<PathBuf>,
    log: PathBuf,
    loader: Option<Loader>,
    round: u64,
    /// How many calls the refiner serves: without a bound, it would have done everything when the trouble begins.
    allowed: Arc<AtomicUsize>,
    /// How many rows there were when the trouble began.
    first: usize,
}

impl Show {
    /// Serves from a cache in a folder; what is refined is written down in the folder `logs`.
    pub(crate) fn begin(cache: &Path, logs: &Path) -> Self {
        let opened = Cache::open(cache).unwrap();
        Self::on(opened, Some(cache.to_owned()), logs)
    }

    /// Serves from any cache.
    pub(crate) fn on(cache: Cache, folder: Option<PathBuf>, logs: &Path) -> Self {
        let log = logs.join(format!("log-{}", std::process::id()));
        let _ = std::fs::remove_file(&log);
        let cache = cache.with_options(CacheOptions::new().lease_expiry(EXPIRY)).unwrap();
        let allowed = Arc::new(AtomicUsize::new(FIRST + 1));
        let heard = Heard::listen();
        let mut show = Self { heard, cache, folder, log, loader: None, round: 0, allowed, first: 0 };
        show.open();
        show
    }

    fn open(&mut self) {
        let stub = Stub::new(&self.log, self.round, Duration::from_millis(2)).allowed(&self.allowed);
        let loader = Loader::builder(set(SAMPLES))
            .refiner(stub)
            .cache(self.cache.clone())
            .mix(Mix::constant(1.0).unwrap())
            .batch_size(BATCH)
            .threads(1)
            .prefetch(1);
        self.loader = Some(loader.build().unwrap());
    }

    /// Ends the loader, and serves on with another one.
    pub(crate) fn begin_again(mut self) -> Self {
        self.open();
        self
    }

    pub(crate) fn end_early(&mut self) {
        self.loader = None;
    }

    /// How many samples, from the first one on, were written before the trouble.
    pub(crate) fn served_first(&self) -> usize {
        self.first
    }

    /// Serves the first batches of an epoch, and waits until what is fetched ahead is written, too.
    pub(crate) fn serve_some(&mut self) {
        self.serve(FIRST);
        let (begun, mut before) = (Instant::now(), usize::MAX);
        loop {
            let begun_samples: usize = times_refined(&self.log, self.round, SAMPLES).iter().sum();
            self.first = self.cache.images(&fingerprint(self.round)).unwrap().len();
            if begun_samples == self.first && before == self.first {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{} of {begun_samples} rows are written", self.first);
            before = self.first;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Serves a whole epoch.
    pub(crate) fn serve_all(&mut self) {
        self.allowed.store(usize::MAX, Ordering::Relaxed);
        self.serve(BATCHES);
    }

    fn serve(&mut self, batches: usize) {
        let mut served = 0;
        for batch in self.loader.as_mut().unwrap().epoch(0).take(batches) {
            let batch = batch.unwrap();
            assert!(batch.refined().iter().all(|refined| *refined));
            let images = batch.images::<f32>().unwrap();
            let images = images.chunks(images.len() / BATCH);
            let samples: Vec<usize> = images.map(|image| sample_of(image).expect("a wrong image")).collect();
            assert_eq!(samples, batch.indices(), "each image is its sample's");
            served += 1;
        }
        assert_eq!(served, batches);
    }

    /// The user was told of the trouble, once.
    pub(crate) fn warned_once_of(&self, what: &str) {
        let warnings = self.heard.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(what), "{warnings:?}");
    }

    /// The user was told of trouble with the store, at most once that nothing is read and at most once that nothing is
    /// written, and of nothing else. Says how often.
    pub(crate) fn warned_of_the_store(&self) -> usize {
        let warnings = self.heard.warnings();
        let told = |what: &str| warnings.iter().filter(|warning| warning.contains(what)).count();
        let (read, written) = (told("are not seen until"), told("stay in memory"));
        assert!(read <= 1 && written <= 1 && read + written == warnings.len(), "{warnings:?}");
        warnings.len()
    }

    pub(crate) fn warned_of_nothing(&self) {
        assert_eq!(self.heard.warnings(), [""; 0]);
    }

    /// Waits until the idle loader has written what waited.
    pub(crate) fn wait_until_written(&self) {
        self.wait_until_written_from(0);
    }

    /// The same, but for what was written before and is gone.
    pub(crate) fn wait_until_written_from(&self, first: usize) {
        let (begun, keys) = (Instant::now(), keys(SAMPLES));
        loop {
            let partition = self.cache.images(&fingerprint(self.round)).unwrap();
            if keys[first..].iter().all(|key| partition.contains(key)) {
                for (sample, key) in keys.iter().enumerate().skip(first) {
                    assert!(maker_of(&partition, key, sample).is_some());
                }
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "only {} rows are written", partition.len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the loader: nothing was refined twice, no further warning was given, nothing is left lying about.
    pub(crate) fn end(&mut self) {
        let warnings = self.heard.warnings().len();
        self.serve_all();
        self.end_early();
        assert!(times_refined(&self.log, self.round, SAMPLES).iter().all(|times| *times == 1));
        assert_eq!(redone(&self.log, self.round, SAMPLES), 0);
        assert_eq!(self.heard.warnings().len(), warnings, "{:?}", self.heard.warnings());
        if let Some(folder) = &self.folder {
            let left = leftovers(folder);
            assert!(left.is_empty(), "{left:?}");
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

//! A dataset whose samples are numbered, and a refiner whose images tell which sample they are of and who made them.

use crate::sizes::Random;
use diver_loaders::cache::RowKey;
use diver_loaders::refine::{NoiseKey, Progress, RawBatch};
use diver_loaders::{
    CancelToken, Conditioning, Error, MemorySource, Normalize, Refine, Result, RgbImage, Source as _,
};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Samples that a process refines at once.
pub(crate) const BATCH: usize = 4;
const SIDE: usize = 4;
const BYTES: usize = 3 * SIDE * SIDE;

/// Sample n has the number n in its first four pixel values.
pub(crate) fn set(samples: usize) -> MemorySource {
    let values = (0..samples).flat_map(|n| {
        let mut bytes = [7_u8; BYTES];
        bytes[..4].copy_from_slice(&(n as u32).to_le_bytes());
        bytes.map(|byte| f32::from(byte) / 255.0)
    });
    MemorySource::unit(samples, [3, SIDE, SIDE], values.collect(), vec![0; samples]).unwrap()
}

/// What the images of a set are filed under.
pub(crate) fn keys(samples: usize) -> Vec<RowKey> {
    let set = set(samples);
    let key = |n| {
        let content = set.sample(n).unwrap().digest();
        RowKey::new(&NoiseKey { content, variant: 0 }, &set.info().value_space, &Conditioning::Class(0))
    };
    (0..samples).map(key).collect()
}

/// The fingerprint of a round: each round fills a folder of its own in one cache.
pub(crate) fn fingerprint(round: u64) -> serde_json::Value {
    serde_json::json!({ "refiner": "stub", "round": round })
}

/// The image of a sample as one process makes it: `maker` differs from process to process, so that it shows whose row
/// a reader got.
pub(crate) fn image(sample: u32, maker: u32) -> RgbImage {
    let mut bytes = [0_u8; BYTES];
    bytes[..4].copy_from_slice(&sample.to_le_bytes());
    bytes[4..8].copy_from_slice(&maker.to_le_bytes());
    let mut random = Random::seeded(u64::from(sample) << 32 | u64::from(maker));
    bytes[8..].fill_with(|| random.next() as u8);
    RgbImage::new(SIDE, SIDE, bytes.to_vec()).unwrap()
}

/// Who made an image, if it is whole and of this sample.
pub(crate) fn maker(image: &RgbImage, sample: usize) -> Option<u32> {
    let maker = u32::from_le_bytes(image.as_bytes().get(4..8)?.try_into().ok()?);
    (*image == self::image(sample as u32, maker)).then_some(maker)
}

/// Which sample an image in a batch is of, if it is one of ours, whole, and made by the stub.
pub(crate) fn sample_of(normalized: &[f32]) -> Option<usize> {
    let Normalize { mean, std, .. } = Normalize::IMAGENET;
    let area = SIDE * SIDE;
    let byte = |at: usize, channel: usize| {
        (normalized[channel * area + at] * std[channel] + mean[channel]).mul_add(255.0, 0.5) as u8
    };
    let bytes: Vec<u8> = (0..area).flat_map(|at| (0..3).map(move |channel| byte(at, channel))).collect();
    let image = RgbImage::new(SIDE, SIDE, bytes).ok()?;
    let sample = u32::from_le_bytes(image.as_bytes()[..4].try_into().ok()?) as usize;
    maker(&image, sample).map(|_| sample)
}

/// Refines slowly, and writes down what it begins to refine, one line for each image.
pub(crate) struct Stub {
    log: PathBuf,
    round: u64,
    delay: Duration,
    maker: u32,
    calls: usize,
    /// How many calls are served; the next one waits until there are more.
    allowed: Arc<AtomicUsize>,
}

impl Stub {
    pub(crate) fn new(log: &Path, round: u64, delay: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let maker = Random::seeded(u64::from(std::process::id()) << 32 | u64::from(now)).next() as u32;
        let allowed = Arc::new(AtomicUsize::new(usize::MAX));
        Self { log: log.to_owned(), round, delay, maker, calls: 0, allowed }
    }

    /// One that serves so many calls: a loader has it work ahead.
    pub(crate) fn allowed(self, allowed: &Arc<AtomicUsize>) -> Self {
        Self { allowed: Arc::clone(allowed), ..self }
    }
}

impl Refine for Stub {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(fingerprint(self.round))
    }

    fn preferred_batch(&self) -> usize {
        BATCH
    }

    fn check_conditioning(&self, _conditioning: &Conditioning) -> Result<()> {
        Ok(())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        _: &dyn Progress,
    ) -> Result<Vec<RgbImage>> {
        while self.calls >= self.allowed.load(Ordering::Relaxed) {
            cancel.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.calls += 1;
        let samples: Vec<u32> = batch
            .pixels
            .chunks_exact(BYTES)
            .map(|pixels| u32::from_le_bytes([0, 1, 2, 3].map(|at| (pixels[at] * 255.0).round() as u8)))
            .collect();
        write_down(&self.log, samples.iter().map(|sample| format!("refines {} {sample}\n", self.round)))?;
        std::thread::sleep(self.delay);
        Ok(samples.iter().map(|sample| image(*sample, self.maker)).collect())
    }
}

/// Appends lines to a file that several processes write, in one piece.
pub(crate) fn write_down(log: &Path, lines: impl Iterator<Item = String>) -> Result<()> {
    let text: String = lines.collect();
    let file = File::options().append(true).create(true).open(log);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io(log, "cannot write"))
}

/// How often each sample of a round was begun, by a log.
pub(crate) fn times_refined(log: &Path, round: u64, samples: usize) -> Vec<usize> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let prefix = format!("refines {round} ");
    let mut times = vec![0; samples];
    for line in text.lines() {
        if let Some(sample) = line.strip_prefix(&prefix) {
            times[sample.parse::<usize>().unwrap()] += 1;
        }
    }
    times
}

/// How many refinements of a round were more than the first of their sample.
pub(crate) fn redone(log: &Path, round: u64, samples: usize) -> usize {
    times_refined(log, round, samples).iter().map(|times| times.saturating_sub(1)).sum()
}

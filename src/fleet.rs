//! Refiners on several devices, as one.

use crate::{Error, Refiner, Result};
use diver_loaders::refine::{Progress, RawBatch};
use diver_loaders::{CancelToken, Conditioning, Refine, RgbImage};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Refiners of one backbone and the same settings on several devices, which share every batch.
///
/// ```no_run
/// use diver::{DeviceChoice, Fleet, Loader, Refiner};
///
/// let refiner = |device| Refiner::builder("facebook/DiT-XL-2-256").device(device).build();
/// let refiners = DeviceChoice::list("cuda:all")?.into_iter().map(refiner);
/// let fleet = Fleet::new(refiners.collect::<Result<_, _>>()?)?;
/// let loader = Loader::builder(diver::open("mtt_imagenette_ipc10")?).refiner(fleet).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Fleet<R = Refiner>(Vec<R>);

impl<R: Refine> Fleet<R> {
    /// A fleet of one refiner or more; those without a fingerprint are taken to be alike.
    ///
    /// # Errors
    /// If there is none, or fingerprints say that they would not make the same images.
    pub fn new(refiners: Vec<R>) -> Result<Self> {
        let Some(first) = refiners.first() else {
            return Err(Error::knob("device", "a fleet has one refiner or more"));
        };
        let fingerprint = first.fingerprint();
        if let Some(at) = refiners.iter().position(|refiner| refiner.fingerprint() != fingerprint) {
            let reason = format!("refiner {at} has another backbone, dtype or settings than the first");
            return Err(Error::knob("device", reason));
        }
        Ok(Self(refiners))
    }

    /// The refiners.
    #[must_use]
    pub fn refiners(&self) -> &[R] {
        &self.0
    }
}

impl<R: Refine> Refine for Fleet<R> {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        self.0[0].fingerprint()
    }

    /// As many as all of them take together.
    fn preferred_batch(&self) -> usize {
        self.0.iter().map(Refine::preferred_batch).sum()
    }

    fn num_classes(&self) -> Option<usize> {
        self.0[0].num_classes()
    }

    fn check_conditioning(&self, conditioning: &Conditioning) -> diver_loaders::Result<()> {
        self.0[0].check_conditioning(conditioning)
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> diver_loaders::Result<Vec<RgbImage>> {
        // Equal shares that no refiner would divide further; whoever is done takes the next.
        let least = self.0.iter().map(Refine::preferred_batch).min().unwrap_or(1);
        let share = batch.len().div_ceil(self.0.len()).min(least).max(1);
        let shares = Shares::new(batch.len(), share, cancel.child(), progress);
        std::thread::scope(|scope| {
            for refiner in &mut self.0 {
                scope.spawn(|| shares.work(refiner, batch));
            }
        });
        shares.into_images()
    }

    fn release(&mut self) {
        self.0.iter_mut().for_each(Refine::release);
    }
}

/// Parts in which an image's progress is counted: refiners of a fleet count as they like.
const WHOLE: usize = 1000;

/// A batch that several threads work on.
struct Shares<'a> {
    images: usize,
    share: usize,
    next: AtomicUsize,
    /// Cancelled with the batch, and once a share has failed.
    cancel: CancelToken,
    done: Mutex<Done>,
    progress: &'a dyn Progress,
}

struct Done {
    /// By share; empty until it is done.
    images: Vec<Vec<RgbImage>>,
    /// What failed first; after it, the others were cancelled.
    failure: Option<diver_loaders::Error>,
    /// How much of each share is done, in parts of [`WHOLE`] times its images.
    steps: Vec<usize>,
}

impl<'a> Shares<'a> {
    fn new(images: usize, share: usize, cancel: CancelToken, progress: &'a dyn Progress) -> Self {
        let count = images.div_ceil(share);
        let done = Done { images: vec![Vec::new(); count], failure: None, steps: vec![0; count] };
        Self { images, share, next: AtomicUsize::new(0), cancel, done: Mutex::new(done), progress }
    }

    /// The images of a share.
    fn range(&self, share: usize) -> Range<usize> {
        share * self.share..self.images.min((share + 1) * self.share)
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes share after share, until none is left, one has failed or the batch is cancelled.
    fn work(&self, refiner: &mut impl Refine, batch: &RawBatch<'_>) {
        loop {
            let share = self.next.fetch_add(1, Ordering::Relaxed);
            let images = self.range(share);
            if images.is_empty() {
                return;
            }
            let refine = || self.cancel.check().and_then(|()| self.refine(refiner, batch, share));
            let result = catch_unwind(AssertUnwindSafe(refine))
                .unwrap_or_else(|panic| Err(diver_loaders::Error::panicked("fleet", panic.as_ref())));
            let mut done = self.lock();
            match result {
                Ok(images) => done.images[share] = images,
                Err(error) => {
                    done.failure.get_or_insert(error);
                    self.cancel.cancel();
                    return;
                }
            }
        }
    }

    fn refine(
        &self,
        refiner: &mut impl Refine,
        batch: &RawBatch<'_>,
        share: usize,
    ) -> diver_loaders::Result<Vec<RgbImage>> {
        let images = self.range(share);
        let values = 3 * batch.height * batch.width;
        let part = RawBatch::new(
            &batch.pixels[images.start * values..images.end * values],
            batch.height,
            batch.width,
            &batch.conditioning[images.clone()],
            &batch.keys[images.clone()],
        )?;
        refiner.refine(&part, &self.cancel, &Share { shares: self, share, images: images.len() })
    }

    /// The images of all shares, or what failed.
    fn into_images(self) -> diver_loaders::Result<Vec<RgbImage>> {
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        match done.failure {
            Some(error) => Err(error),
            None => Ok(done.images.into_iter().flatten().collect()),
        }
    }
}

/// Progress of a share, as a part of the batch's.
struct Share<'a> {
    shares: &'a Shares<'a>,
    share: usize,
    images: usize,
}

impl Progress for Share<'_> {
    fn step(&self, done: usize, total: usize) {
        let shares = self.shares;
        // Told under the lock: numbers never go back.
        let mut state = shares.lock();
        state.steps[self.share] = WHOLE * done / total.max(1) * self.images;
        shares.progress.step(state.steps.iter().sum(), WHOLE * shares.images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diver_loaders::refine::{NoiseKey, Silent};
    use diver_loaders::{Digest, Error as EngineError};
    use std::thread::ThreadId;
    use std::time::{Duration, Instant};

    /// Paints each image in the number of its class; fails at one.
    #[derive(Debug, Default)]
    struct Painter {
        preferred: usize,
        fails_at: Option<usize>,
        settings: usize,
        threads: Mutex<Vec<(ThreadId, usize)>>,
    }

    impl Refine for Painter {
        fn fingerprint(&self) -> Option<serde_json::Value> {
            Some(self.settings.into())
        }

        fn preferred_batch(&self) -> usize {
            self.preferred
        }

        fn check_conditioning(&self, _conditioning: &Conditioning) -> diver_loaders::Result<()> {
            Ok(())
        }

        fn refine(
            &mut self,
            batch: &RawBatch<'_>,
            cancel: &CancelToken,
            progress: &dyn Progress,
        ) -> diver_loaders::Result<Vec<RgbImage>> {
            self.threads.lock().unwrap().push((std::thread::current().id(), batch.len()));
            // Counts images, as a `Refiner` does.
            for step in 1..=2 {
                cancel.check()?;
                progress.step(step * batch.len(), 2 * batch.len());
            }
            let paint = |shown: &Conditioning| match shown {
                Conditioning::Class(class) if Some(*class) == self.fails_at => {
                    Err(EngineError::refine("told to fail"))
                }
                Conditioning::Class(class) => RgbImage::new(1, 1, vec![*class as u8; 3]),
                _ => Err(EngineError::Cancelled),
            };
            batch.conditioning.iter().map(paint).collect()
        }
    }

    fn painter(preferred: usize) -> Painter {
        Painter { preferred, ..Painter::default() }
    }

    fn refine(
        fleet: &mut Fleet<impl Refine>,
        images: usize,
        progress: &dyn Progress,
    ) -> diver_loaders::Result<Vec<RgbImage>> {
        let conditioning: Vec<Conditioning> = (0..images).map(Conditioning::Class).collect();
        let keys = vec![NoiseKey { content: Digest::of(b""), variant: 0 }; images];
        let pixels = vec![0.5; 3 * images];
        let batch = RawBatch::new(&pixels, 1, 1, &conditioning, &keys).unwrap();
        fleet.refine(&batch, &CancelToken::new(), progress)
    }

    #[test]
    fn a_batch_is_shared_and_comes_back_in_order() {
        struct Heard(Mutex<Vec<(usize, usize)>>);
        impl Progress for Heard {
            fn step(&self, done: usize, total: usize) {
                self.0.lock().unwrap().push((done, total));
            }
        }
        for (images, preferred) in [(1, 4), (7, 4), (8, 4), (9, 2), (23, 5)] {
            let mut fleet =
                Fleet::new(vec![painter(preferred), painter(preferred), painter(preferred + 1)]).unwrap();
            assert_eq!(fleet.preferred_batch(), 3 * preferred + 1);
            let heard = Heard(Mutex::default());
            let refined = refine(&mut fleet, images, &heard).unwrap();
            let found: Vec<usize> = refined.iter().map(|image| image.as_bytes()[0].into()).collect();
            assert_eq!(found, (0..images).collect::<Vec<_>>());
            let parts: Vec<usize> = fleet
                .refiners()
                .iter()
                .flat_map(|p| p.threads.lock().unwrap().clone())
                .map(|t| t.1)
                .collect();
            assert!(parts.iter().all(|part| *part <= preferred) && parts.iter().sum::<usize>() == images);
            let steps = heard.0.into_inner().unwrap();
            assert!(steps.is_sorted(), "{steps:?}");
            assert_eq!(steps.last(), Some(&(WHOLE * images, WHOLE * images)));
            assert!(steps.iter().all(|(_, total)| *total == WHOLE * images));
        }
    }

    #[test]
    fn a_share_that_fails_fails_the_batch() {
        let failing = || Painter { fails_at: Some(3), ..painter(2) };
        let mut fleet = Fleet::new(vec![failing(), failing()]).unwrap();
        assert!(refine(&mut fleet, 8, &Silent).unwrap_err().to_string().contains("told to fail"));
        assert_eq!(refine(&mut fleet, 3, &Silent).unwrap().len(), 3);
    }

    /// Fails or panics on image 1; works on any other until it is cancelled.
    struct Endless {
        panics: bool,
    }

    impl Refine for Endless {
        fn fingerprint(&self) -> Option<serde_json::Value> {
            None
        }

        fn preferred_batch(&self) -> usize {
            1
        }

        fn check_conditioning(&self, _conditioning: &Conditioning) -> diver_loaders::Result<()> {
            Ok(())
        }

        fn refine(
            &mut self,
            batch: &RawBatch<'_>,
            cancel: &CancelToken,
            _progress: &dyn Progress,
        ) -> diver_loaders::Result<Vec<RgbImage>> {
            let until = Instant::now() + Duration::from_secs(30);
            while batch.conditioning[0] != Conditioning::Class(1) {
                cancel.check()?;
                if Instant::now() > until {
                    return Err(EngineError::refine("never cancelled"));
                }
                std::thread::yield_now();
            }
            assert!(!self.panics, "told to panic");
            Err(EngineError::refine("told to fail"))
        }
    }

    #[test]
    fn a_share_that_fails_ends_the_others() {
        for (panics, expected) in [(false, "told to fail"), (true, "told to panic")] {
            let mut fleet = Fleet::new(vec![Endless { panics }, Endless { panics }]).unwrap();
            let error = refine(&mut fleet, 4, &Silent).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn refiners_that_differ_make_no_fleet() {
        let error = Fleet::new(vec![painter(1), Painter { settings: 1, ..painter(1) }]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device: refiner 1 has another backbone, dtype or settings than the first"
        );
        assert!(Fleet::<Painter>::new(Vec::new()).is_err());
    }
}

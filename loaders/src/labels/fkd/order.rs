//! The order in which torch's `RandomSampler` drew images when the soft labels were made.

use lru::LruCache;
use rand_mt::Mt;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

/// Permutations that are kept: enough for a reader at one epoch's end that looks ahead to the next one, and another.
const KEPT: NonZero<usize> = NonZero::new(4).expect("4 is not 0");

/// How the images of a batch are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By indices in the files.
    Stored,
    /// By the sampler.
    Drawn(Draws),
}

/// How many permutations the sampler draws for each epoch; the first of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Draws {
    /// Older torch.
    One,
    /// torch 1.12 and later.
    Two,
}

impl Draws {
    /// The permutation of `samples` images in `epoch`.
    fn permutation(self, seed: u32, samples: usize, epoch: usize) -> Vec<usize> {
        let before = match self {
            Self::One => epoch,
            Self::Two => 2 * epoch,
        };
        let mut random = Mt::new(seed);
        let draws = samples.saturating_sub(1);
        for _ in 0..before.saturating_mul(draws) {
            random.next_u32();
        }
        // As `torch.randperm` on the CPU.
        let mut permutation: Vec<usize> = (0..samples).collect();
        for place in 0..draws {
            let other = place + random.next_u32() as usize % (samples - place);
            permutation.swap(place, other);
        }
        permutation
    }
}

/// By draws and epoch.
type Kept = LruCache<(Draws, usize), Arc<[usize]>>;

/// The permutations of the last few epochs. All batches of an epoch share one, which takes the draws of all epochs
/// before it.
#[derive(Debug)]
pub(super) struct Permutations {
    seed: u32,
    samples: usize,
    kept: Mutex<Kept>,
}

impl Permutations {
    pub(super) fn new(seed: u32, samples: usize) -> Self {
        Self { seed, samples, kept: Mutex::new(LruCache::new(KEPT)) }
    }

    /// The permutation of `epoch`.
    pub(super) fn get(&self, draws: Draws, epoch: usize) -> Arc<[usize]> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permutation) = kept().get(&(draws, epoch)) {
            return Arc::clone(permutation);
        }
        // Not locked meanwhile: two threads may draw the same, but none waits, and no forked child for good.
        let drawn = Arc::from(draws.permutation(self.seed, self.samples, epoch));
        Arc::clone(kept().get_or_insert((draws, epoch), || drawn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epochs_permutation_is_drawn_once_and_the_last_few_are_kept() {
        let permutations = Permutations::new(42, 1000);
        let first = permutations.get(Draws::Two, 7);
        assert_eq!(*first, Draws::Two.permutation(42, 1000, 7));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(Arc::ptr_eq(&permutations.get(Draws::Two, 7), &first)));
            }
        });
        assert_eq!(*permutations.get(Draws::One, 7), Draws::One.permutation(42, 1000, 7));
        for epoch in 0..10 {
            permutations.get(Draws::Two, epoch);
        }
        assert_eq!(permutations.kept.lock().unwrap().len(), KEPT.get());
    }

    #[test]
    fn permutations_are_torchs() {
        // torch.randperm(1000, generator=torch.Generator().manual_seed(42)), its second and its third call.
        let first = Draws::One.permutation(42, 1000, 0);
        assert_eq!(first[..6], [542, 618, 816, 68, 94, 215]);
        assert_eq!(Draws::Two.permutation(42, 1000, 0), first);
        assert_eq!(Draws::Two.permutation(42, 1000, 1), Draws::One.permutation(42, 1000, 2));
        assert_ne!(Draws::Two.permutation(42, 1000, 1), Draws::One.permutation(42, 1000, 1));
        let mut sorted = first;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!((Draws::One.permutation(42, 0, 3), Draws::Two.permutation(42, 1, 3)), (vec![], vec![0]));
    }
}

//! Orders of an epoch, of which any part is computed without the rest.

use crate::kernels::{LANES, Round, permute};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A permutation of `0..n`, chosen by a seed, of which any entry is computed without the others.
///
/// Swap-or-not shuffle (Hoang, Morris and Rogaway, "An Enciphering Scheme Based on a Card Shuffle", CRYPTO
/// 2012): each round pairs `x` with `key - x (mod n)` and swaps the pair or not by one hashed bit.
///
/// ```
/// use diver_loaders::stream::Permutation;
///
/// let permutation = Permutation::new(5, "readme", 7, 0);
/// let mut order: Vec<_> = (0..5).collect();
/// permutation.send(&mut order);
/// assert_eq!(order[3], permutation.at(3));
/// permutation.fetch(&mut order);
/// assert_eq!(order, [0, 1, 2, 3, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    rounds: [Round; Self::ROUNDS],
    /// The same rounds from the last to the first.
    back: [Round; Self::ROUNDS],
}

impl Permutation {
    /// The paper's bound asks for about 6 log2(n) rounds; this serves sets of a million samples.
    const ROUNDS: usize = 120;

    /// A permutation of `0..n`, `n` at least 1, by `seed` and `epoch`; `purpose` keeps the permutations of
    /// different uses apart.
    pub fn new(n: usize, purpose: &str, seed: u64, epoch: u64) -> Self {
        let n = n as u64;
        let mut hasher = blake3::Hasher::new_derive_key("diver permutation v1");
        hasher
            .update(purpose.as_bytes())
            .update(&[0])
            .update(&seed.to_le_bytes())
            .update(&epoch.to_le_bytes());
        let mut stream = hasher.finalize_xof();
        let mut word = || {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        // A key modulo n is biased by n / 2^64, which no epoch will ever show.
        let rounds = std::array::from_fn(|_| [word() % n, word()]);
        let mut back = rounds;
        back.reverse();
        Self { n, rounds, back }
    }

    /// Where `position`, below `n`, is sent.
    pub fn at(&self, position: usize) -> usize {
        let mut one = [position];
        self.send(&mut one);
        one[0]
    }

    /// Replaces each of some positions, below `n`, by where it is sent: several at once take little more time than one.
    pub fn send(&self, positions: &mut [usize]) {
        self.pass(positions, &self.rounds);
    }

    /// Replaces each of some entries, below `n`, by the position that is sent there: undoes [`send`](Self::send).
    pub fn fetch(&self, entries: &mut [usize]) {
        // Every round undoes itself.
        self.pass(entries, &self.back);
    }

    fn pass(&self, entries: &mut [usize], rounds: &[Round]) {
        for block in entries.chunks_mut(LANES) {
            let mut lanes = [0; LANES];
            for (lane, entry) in lanes.iter_mut().zip(&*block) {
                *lane = *entry as u64;
            }
            permute(&mut lanes, self.n, rounds);
            for (entry, lane) in block.iter_mut().zip(lanes) {
                *entry = lane as usize;
            }
        }
    }
}

/// The permutations that were asked for last: those of an epoch serve all of its batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders(Arc<Mutex<VecDeque<Known>>>);

#[derive(Debug)]
struct Known {
    purpose: &'static str,
    epoch: u64,
    n: usize,
    permutation: Arc<Permutation>,
}

impl Orders {
    /// Two purposes in two epochs, and room for a look ahead.
    const MOST: usize = 6;

    /// As [`Permutation::new`], always with the same `seed`.
    pub(super) fn get(&self, n: usize, purpose: &'static str, seed: u64, epoch: u64) -> Arc<Permutation> {
        // Every update leaves it whole, so a panic elsewhere does not spoil it.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &&Known| (known.purpose, known.epoch, known.n) == (purpose, epoch, n);
        if let Some(found) = known.iter().find(is_it) {
            return Arc::clone(&found.permutation);
        }
        let permutation = Arc::new(Permutation::new(n, purpose, seed, epoch));
        known.truncate(Self::MOST - 1);
        known.push_front(Known { purpose, epoch, n, permutation: Arc::clone(&permutation) });
        permutation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_permutation_sends_every_position_somewhere_else(n in 1_usize..700, seed: u64, epoch: u64) {
            let permutation = Permutation::new(n, "test", seed, epoch);
            let mut sent: Vec<usize> = (0..n).collect();
            permutation.send(&mut sent);
            let mut seen = vec![false; n];
            for (position, entry) in sent.iter().enumerate() {
                prop_assert_eq!(permutation.at(position), *entry);
                prop_assert!(!std::mem::replace(&mut seen[*entry], true));
            }
            permutation.fetch(&mut sent);
            prop_assert!(sent.into_iter().eq(0..n));
        }
    }

    /// Every sample should come first about equally often: chi-squared with 9 degrees of freedom stays below
    /// 27.9 with probability 0.999.
    #[test]
    fn positions_are_uniform() {
        let (n, trials) = (10, 20_000_u32);
        for position in [0, 4, 9] {
            let mut counts = vec![0_u32; n];
            for epoch in 0..u64::from(trials) {
                counts[Permutation::new(n, "test", 1, epoch).at(position)] += 1;
            }
            let expected = f64::from(trials) / n as f64;
            let chi_squared: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
            assert!(chi_squared < 27.9, "position {position}: {counts:?}");
        }
    }

    #[test]
    fn orders_are_stable_across_versions() {
        let order: Vec<_> = (0..8).map(|p| Permutation::new(8, "order", 7, 0).at(p)).collect();
        assert_eq!(order, [4, 7, 1, 5, 3, 2, 0, 6]);
    }
}

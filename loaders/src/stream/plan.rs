//! What every batch of every epoch holds, computed from its number alone.

use super::Mix;
use crate::options::named_enum;
use crate::wording::counted;
use crate::{Error, Result};

named_enum! {
    /// What a rank does where the samples do not divide evenly among the ranks.
    #[derive(Default)]
    Uneven, "uneven" {
        /// The last samples of an epoch's order are left out: all ranks hold equally many.
        Drop = "drop",
        /// The first samples of an epoch's order come again at its end: all ranks hold equally many. Distilled sets are
        /// small, and each of their samples stands for many: none is left out unless that is asked for.
        #[default]
        Pad = "pad",
        /// Every sample comes once: the last ranks hold one sample less, and perhaps one batch less.
        Partial = "partial",
    }
}

/// A permutation of `0..n`, chosen by a seed, of which any entry is computed without the others.
///
/// Swap-or-not shuffle (Hoang, Morris and Rogaway, "An Enciphering Scheme Based on a Card Shuffle", CRYPTO
/// 2012): each round pairs `x` with `key - x (mod n)` and swaps the pair or not by one hashed bit.
///
/// ```
/// use diver_loaders::stream::Permutation;
///
/// let permutation = Permutation::new(5, "readme", 7, 0);
/// let mut order: Vec<_> = (0..5).map(|position| permutation.at(position)).collect();
/// order.sort();
/// assert_eq!(order, [0, 1, 2, 3, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    rounds: [(u64, u64); Self::ROUNDS],
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
        Self { n, rounds: std::array::from_fn(|_| (word() % n, word())) }
    }

    /// Where `position`, below `n`, is sent.
    pub fn at(&self, position: usize) -> usize {
        let mut x = position as u64;
        for (key, salt) in &self.rounds {
            let partner = if x <= *key { key - x } else { key + self.n - x };
            if mix_bits(x.max(partner) ^ salt) & 1 == 1 {
                x = partner;
            }
        }
        x as usize
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the result hangs on every bit of `x`.
fn mix_bits(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A batch of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) epoch: u64,
    pub(super) batch: usize,
}

impl Position {
    /// The one that comes next, where an epoch has so many batches.
    pub(super) fn after(self, batches: usize) -> Self {
        if self.batch + 1 < batches {
            Self { batch: self.batch + 1, ..self }
        } else {
            Self { epoch: self.epoch.saturating_add(1), batch: 0 }
        }
    }
}

/// One place of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Position of the sample in its dataset.
    pub(super) index: usize,
    /// Whether it comes refined.
    pub(super) refined: bool,
}

/// The order of samples for every epoch, as one rank sees it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) samples: usize,
    pub(super) batch_size: usize,
    pub(super) shuffle: bool,
    pub(super) drop_last: bool,
    pub(super) seed: u64,
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) uneven: Uneven,
    pub(super) mix: Mix,
}

impl Plan {
    /// Checks that the parts agree.
    pub(super) fn validated(self) -> Result<Self> {
        if self.world == 0 || self.rank >= self.world {
            let reason = format!("rank {} of {}: ranks run from 0 to world - 1", self.rank, self.world);
            return Err(Error::config("shard", reason));
        }
        if self.samples_here() == 0 {
            let reason = format!(
                "{} leave none for rank {} of {}: take fewer ranks, or pad the epoch",
                counted(self.samples, "sample"),
                self.rank,
                self.world
            );
            return Err(Error::config("shard", reason));
        }
        if self.batches() == 0 {
            let reason = format!(
                "there is no batch of {3} in {0} on rank {1} of {2}: lower the batch size or keep the last batch",
                counted(self.samples_here(), "sample"),
                self.rank,
                self.world,
                self.batch_size
            );
            return Err(Error::config("batch_size", reason));
        }
        Ok(self)
    }

    /// Samples of this rank in an epoch.
    pub(super) fn samples_here(&self) -> usize {
        match self.uneven {
            Uneven::Drop => self.samples / self.world,
            Uneven::Pad => self.samples.div_ceil(self.world),
            Uneven::Partial => self.samples.saturating_sub(self.rank).div_ceil(self.world),
        }
    }

    /// Samples that no rank holds in an epoch, as they do not divide among the ranks.
    pub(super) fn left_out(&self) -> usize {
        match self.uneven {
            Uneven::Drop => self.samples % self.world,
            Uneven::Pad | Uneven::Partial => 0,
        }
    }

    /// Batches of this rank in an epoch.
    pub(super) fn batches(&self) -> usize {
        if self.drop_last {
            self.samples_here() / self.batch_size
        } else {
            self.samples_here().div_ceil(self.batch_size)
        }
    }

    /// Batches of the rank that has most of them in an epoch, the first: with `Uneven::Partial` the last ranks may have
    /// one less.
    pub(super) fn most_batches(&self) -> usize {
        Self { rank: 0, ..self.clone() }.batches()
    }

    /// The samples that may come refined in some epoch, each once.
    pub(super) fn refined_ever(&self) -> Vec<usize> {
        if self.mix.is_raw() {
            return Vec::new();
        }
        if self.shuffle {
            return (0..self.samples).collect();
        }
        let epoch = (0..self.batches()).flat_map(|batch| self.items(0, batch));
        let mut indices: Vec<usize> = epoch.map(|item| item.index).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    /// The samples of batch `batch`, below [`batches`](Self::batches), of `epoch`.
    pub(super) fn items(&self, epoch: u64, batch: usize) -> Vec<Item> {
        let order = Permutation::new(self.samples, "order", self.seed, epoch);
        // A sample is refined if its rank in a second permutation is below the share: exactly
        // round(share * samples) are, and others in every epoch.
        let lots = Permutation::new(self.samples, "mix", self.seed, epoch);
        let refined = (self.mix.share(epoch) * self.samples as f64).round() as usize;
        let first = batch * self.batch_size;
        (first..self.samples_here().min(first + self.batch_size))
            .map(|position| {
                let global = (position * self.world + self.rank) % self.samples;
                let index = if self.shuffle { order.at(global) } else { global };
                Item { index, refined: lots.at(index) < refined }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(samples: usize, batch_size: usize, world: usize, uneven: Uneven) -> Plan {
        Plan {
            samples,
            batch_size,
            shuffle: true,
            drop_last: false,
            seed: 3,
            rank: 0,
            world,
            uneven,
            mix: Mix::constant(0.0).unwrap(),
        }
    }

    fn indices(plan: &Plan, epoch: u64) -> Vec<usize> {
        (0..plan.batches()).flat_map(|b| plan.items(epoch, b)).map(|item| item.index).collect()
    }

    proptest! {
        #[test]
        fn a_permutation_sends_every_position_somewhere_else(n in 1_usize..700, seed: u64, epoch: u64) {
            let permutation = Permutation::new(n, "test", seed, epoch);
            let mut seen = vec![false; n];
            for position in 0..n {
                prop_assert!(!std::mem::replace(&mut seen[permutation.at(position)], true));
            }
        }

        #[test]
        fn ranks_share_an_epoch_out(samples in 1_usize..200, batch in 1_usize..20, world in 1_usize..7, epoch in 0_u64..5) {
            for uneven in [Uneven::Drop, Uneven::Pad, Uneven::Partial] {
                let mut counts = vec![0; samples];
                let mut lengths = Vec::new();
                let mut left_out = 0;
                for rank in 0..world {
                    let plan = Plan { rank, ..plan(samples, batch, world, uneven) };
                    let mine = indices(&plan, epoch);
                    prop_assert_eq!(mine.len(), plan.samples_here());
                    left_out = plan.left_out();
                    lengths.push(plan.batches());
                    for index in mine { counts[index] += 1; }
                }
                prop_assert_eq!(counts.iter().filter(|c| **c == 0).count(), left_out);
                match uneven {
                    Uneven::Drop => prop_assert!(counts.iter().all(|c| *c <= 1)),
                    Uneven::Pad => prop_assert!(counts.iter().all(|c| *c >= 1)),
                    Uneven::Partial => prop_assert!(counts.iter().all(|c| *c == 1)),
                }
                if uneven != Uneven::Partial {
                    prop_assert!(lengths.iter().all(|l| *l == lengths[0]));
                }
            }
        }

        #[test]
        fn without_shuffling_the_same_samples_come_in_every_epoch(
            samples in 1_usize..60, batch in 1_usize..9, rank in 0_usize..4, drop_last: bool, epoch in 0_u64..5
        ) {
            for uneven in [Uneven::Drop, Uneven::Pad, Uneven::Partial] {
                let raw = Plan { rank, shuffle: false, drop_last, ..plan(samples, batch, 4, uneven) };
                prop_assert!(raw.refined_ever().is_empty());
                let refined = Plan { mix: Mix::constant(1.0).unwrap(), ..raw };
                let mut here = indices(&refined, epoch);
                here.sort_unstable();
                here.dedup();
                prop_assert_eq!(here, refined.refined_ever());
            }
        }

        #[test]
        fn exactly_the_share_is_refined(samples in 1_usize..300, share in 0.0_f64..=1.0) {
            let plan = Plan { mix: Mix::constant(share).unwrap(), ..plan(samples, 7, 1, Uneven::Drop) };
            let refined = (0..plan.batches()).flat_map(|b| plan.items(1, b)).filter(|item| item.refined).count();
            prop_assert_eq!(refined, (share * samples as f64).round() as usize);
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let a = plan(100, 10, 1, Uneven::Drop);
        let b = Plan { seed: 4, ..a.clone() };
        assert_ne!(indices(&a, 0), indices(&a, 1));
        assert_ne!(indices(&a, 0), indices(&b, 0));
        assert_eq!(indices(&a, 1), indices(&a, 1));
        let in_order = Plan { shuffle: false, ..a };
        assert_eq!(indices(&in_order, 5), (0..100).collect::<Vec<_>>());
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

    #[test]
    fn impossible_plans_are_refused() {
        assert!(Plan { rank: 2, ..plan(5, 1, 2, Uneven::Drop) }.validated().is_err());
        assert!(Plan { drop_last: true, ..plan(5, 6, 1, Uneven::Drop) }.validated().is_err());
        assert!(plan(2, 1, 3, Uneven::Drop).validated().is_err());
    }
}

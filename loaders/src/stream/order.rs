//! Orders of an epoch, of which any part is computed without the rest.

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
}

#[derive(Clone, Copy, Debug)]
struct Round {
    key: u64,
    salt: u64,
}

impl Round {
    /// `x` or its partner, without a branch, which nobody could foresee.
    fn of(&self, x: u64, n: u64) -> u64 {
        let wrapped = if x <= self.key { 0 } else { n };
        // A lane that no entry is in may hold anything.
        let partner = self.key.wrapping_add(wrapped).wrapping_sub(x);
        let is_swapped = mix_bits(x.max(partner) ^ self.salt) & 1;
        x ^ ((x ^ partner) & is_swapped.wrapping_neg())
    }
}

impl Permutation {
    /// The paper's bound asks for about 6 log2(n) rounds; this serves sets of a million samples.
    const ROUNDS: usize = 120;
    /// The rounds of one entry are a chain; those of so many run side by side, in a tenth of the time.
    const LANES: usize = 16;

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
        Self { n, rounds: std::array::from_fn(|_| Round { key: word() % n, salt: word() }) }
    }

    /// Where `position`, below `n`, is sent.
    pub fn at(&self, position: usize) -> usize {
        self.rounds.iter().fold(position as u64, |x, round| round.of(x, self.n)) as usize
    }

    /// Replaces each of some positions, below `n`, by where it is sent.
    pub fn send(&self, positions: &mut [usize]) {
        self.pass(positions, self.rounds.iter());
    }

    /// Replaces each of some entries, below `n`, by the position that is sent there: undoes [`send`](Self::send).
    pub fn fetch(&self, entries: &mut [usize]) {
        // Every round undoes itself.
        self.pass(entries, self.rounds.iter().rev());
    }

    fn pass<'a>(&self, entries: &mut [usize], rounds: impl Iterator<Item = &'a Round> + Clone) {
        for block in entries.chunks_mut(Self::LANES) {
            let mut lanes = [0; Self::LANES];
            for (lane, entry) in lanes.iter_mut().zip(&*block) {
                *lane = *entry as u64;
            }
            for round in rounds.clone() {
                for x in &mut lanes {
                    *x = round.of(*x, self.n);
                }
            }
            for (entry, lane) in block.iter_mut().zip(lanes) {
                *entry = lane as usize;
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the result hangs on every bit of `x`.
pub(super) fn mix_bits(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
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

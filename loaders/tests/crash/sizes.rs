//! How much is tried, and by which random numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much each test does.
#[cfg_attr(not(feature = "cloud"), allow(dead_code))]
pub(crate) struct Sizes {
    /// Processes that are killed one after the other, in a folder.
    pub(crate) kills: usize,
    /// The same, in a bucket.
    pub(crate) bucket_kills: usize,
    /// Samples that eight processes refine together, in a folder.
    pub(crate) crowd: usize,
    /// The same, in a bucket.
    pub(crate) bucket_crowd: usize,
    /// Each of the eight reads every so many rows from a bucket in the end.
    pub(crate) bucket_reading: usize,
    /// How many of the eight are killed, and started anew.
    pub(crate) crowd_kills: usize,
    /// How long is waited for what the dead ones held: on a busy machine, the living do not stand still for longer.
    pub(crate) expiry: Duration,
    /// Bits of a part that are flipped, one at a time.
    pub(crate) flips: usize,
    /// Every so many lengths of a part are tried.
    pub(crate) truncation_step: usize,
    /// How long a bucket answers 503.
    pub(crate) outage: Duration,
    /// How long a child may take until it is taken for stuck.
    pub(crate) patience: Duration,
}

/// Full sizes with `DIVER_CRASH=full`, small ones otherwise.
pub(crate) fn sizes() -> Sizes {
    if is_full() {
        return Sizes {
            kills: 1000,
            bucket_kills: 1000,
            crowd: 5000,
            bucket_crowd: 5000,
            bucket_reading: 10,
            crowd_kills: 6,
            expiry: Duration::from_secs(3),
            flips: 10_000,
            truncation_step: 1,
            outage: Duration::from_secs(60),
            patience: Duration::from_secs(900),
        };
    }
    Sizes {
        kills: 8,
        bucket_kills: 4,
        crowd: 120,
        bucket_crowd: 48,
        bucket_reading: 2,
        crowd_kills: 2,
        expiry: Duration::from_secs(2),
        flips: 100,
        truncation_step: 97,
        outage: Duration::from_secs(1),
        patience: Duration::from_secs(60),
    }
}

pub(crate) fn is_full() -> bool {
    std::env::var_os("DIVER_CRASH").is_some_and(|size| size == "full")
}

/// Numbers that look random (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// Numbers from a seed that is printed: `DIVER_CRASH_SEED`, or the time.
    pub(crate) fn announced(test: &str) -> Self {
        let given = std::env::var("DIVER_CRASH_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        let seed = given.unwrap_or_else(now);
        println!("{test}: DIVER_CRASH_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A time from 0 up to `longest`.
    pub(crate) fn time(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.below(1 << 20) as f64 / f64::from(1 << 20))
    }
}

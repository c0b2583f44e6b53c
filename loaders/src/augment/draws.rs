//! The random numbers of augmentation: each is computed from its key alone.

use std::f64::consts::TAU;

/// Where the random numbers of one augmentation come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// How many augmentations of the same kind come before this one in the list.
    pub(super) nth: u64,
}

impl Key {
    /// The numbers for `purpose` of the sample at `position` in the epoch's order.
    pub(super) fn draws(self, purpose: &str, position: u64) -> Draws {
        let mut hasher = blake3::Hasher::new_derive_key("diver augment v1");
        hasher.update(purpose.as_bytes()).update(&[0]);
        for number in [self.seed, self.epoch, self.nth, position] {
            hasher.update(&number.to_le_bytes());
        }
        Draws(hasher.finalize_xof())
    }
}

/// A stream of random numbers: the extended output of BLAKE3, 8 bytes a word.
///
/// Functions that IEEE 754 leaves open are those of the crate `libm`, so that every platform draws the same views.
#[derive(Debug)]
pub(super) struct Draws(blake3::OutputReader);

impl Draws {
    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub(super) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high]`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in `0..n`; 0 if `n` is 0. The bias, `n / 2^64`, cannot be observed.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    /// A uniform permutation of `0..n`, by the Fisher-Yates shuffle.
    pub(super) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut entries: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            entries.swap(last, self.below(last + 1));
        }
        entries
    }

    /// From the distribution Beta(alpha, alpha), in [0, 1], for a finite `alpha` above 0.
    pub(super) fn beta(&mut self, alpha: f64) -> f64 {
        if alpha == 1.0 {
            return self.unit();
        }
        // G / (G + G') for two Gamma variables of shape alpha. For a shape below 1, each is one of shape alpha + 1 times
        // u^(1 / alpha). Only the logarithm of G / G' is computed, since a small alpha makes both of them 0 in f64.
        let mut log_ratio = 0.0;
        for sign in [1.0, -1.0] {
            log_ratio += sign * self.log_gamma(if alpha < 1.0 { alpha + 1.0 } else { alpha });
        }
        if alpha < 1.0 {
            let [one, other] = [self.log_unit(), self.log_unit()];
            log_ratio += (one - other) / alpha;
        }
        1.0 / (1.0 + libm::exp(-log_ratio))
    }

    /// The logarithm of `G / d` with `d = shape - 1/3`, for a Gamma variable `G` of a `shape` from 1 up (Marsaglia and
    /// Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS 2000).
    fn log_gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let (v, log_v) = (root * root * root, 3.0 * libm::log(root));
            if self.log_unit() < 0.5 * x * x + d * (1.0 - v + log_v) {
                return log_v;
            }
        }
    }

    /// From the standard normal distribution, by Box and Muller's transform.
    fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * self.log_unit());
        radius * libm::cos(TAU * self.unit())
    }

    /// The logarithm of a number uniform in (0, 1].
    fn log_unit(&mut self) -> f64 {
        libm::log(1.0 - self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draws(position: u64) -> Draws {
        Key { seed: 7, epoch: 2, nth: 0 }.draws("test", position)
    }

    #[test]
    fn numbers_are_stable_across_versions() {
        let mut some = draws(3);
        let units = [some.unit(), some.unit()];
        let integers = [some.below(1000), some.below(1000), some.below(1000)];
        let betas = [some.beta(0.8), some.beta(1.0), some.beta(3.0)];
        let found = (units, integers, some.permutation(8), betas);
        let expected = (
            [0.4641358393419175, 0.47888350592794215],
            [760, 838, 222],
            vec![2, 1, 0, 5, 6, 3, 4, 7],
            [0.841582196041396, 0.0608997974274843, 0.6132486447131663],
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let key = Key { seed: 1, epoch: 2, nth: 0 };
        let numbers = [
            key.draws("flip", 3),
            key.draws("crop", 3),
            key.draws("flip", 4),
            Key { seed: 2, ..key }.draws("flip", 3),
            Key { epoch: 3, ..key }.draws("flip", 3),
            Key { nth: 1, ..key }.draws("flip", 3),
        ]
        .map(|mut draws| draws.word());
        for (at, number) in numbers.iter().enumerate() {
            assert!(!numbers[..at].contains(number), "{at}");
        }
        assert_eq!(key.draws("flip", 3).word(), numbers[0]);
    }

    /// The largest distance between the distribution of 20,000 draws, each from a stream of its own, and `expected`.
    /// Kolmogorov and Smirnov: below 1.95 / sqrt(20,000) with probability 0.999.
    fn distance(draw: impl Fn(&mut Draws) -> f64, expected: impl Fn(f64) -> f64) -> f64 {
        let mut values: Vec<f64> = (0..20_000).map(|position| draw(&mut draws(position))).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let steps = values.iter().enumerate();
        let apart = steps.map(|(below, value)| {
            let (expected, below) = (expected(*value), below as f64);
            (expected - below / count).abs().max((expected - (below + 1.0) / count).abs())
        });
        apart.fold(0.0, f64::max)
    }

    const ALMOST_ALWAYS: f64 = 1.95 / 141.42;

    #[test]
    fn units_are_uniform() {
        assert!(distance(Draws::unit, |x| x) < ALMOST_ALWAYS);
        assert!(distance(|draws| draws.between(-2.0, 6.0), |x| (x + 2.0) / 8.0) < ALMOST_ALWAYS);
    }

    #[test]
    fn betas_follow_their_distribution() {
        // Closed forms: the arcsine law, the uniform one and polynomials.
        let arcsine = |x: f64| 2.0 / std::f64::consts::PI * x.sqrt().asin();
        assert!(distance(|draws| draws.beta(0.5), arcsine) < ALMOST_ALWAYS);
        assert!(distance(|draws| draws.beta(1.0), |x| x) < ALMOST_ALWAYS);
        assert!(distance(|draws| draws.beta(2.0), |x| x * x * (3.0 - 2.0 * x)) < ALMOST_ALWAYS);
        let of_three = |x: f64| x.powi(3) * (10.0 - 15.0 * x + 6.0 * x * x);
        assert!(distance(|draws| draws.beta(3.0), of_three) < ALMOST_ALWAYS);
        // The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
        for alpha in [0.05, 0.2, 0.8, 7.5] {
            let values: Vec<f64> = (0..20_000).map(|position| draws(position).beta(alpha)).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let variance = values.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / 20_000.0;
            assert!((mean - 0.5).abs() < 0.015, "{alpha}: mean {mean}");
            assert!(
                (variance * 4.0 * (2.0 * alpha + 1.0) - 1.0).abs() < 0.04,
                "{alpha}: variance {variance}"
            );
        }
    }

    /// Chi-squared with 23 degrees of freedom stays below 49.7 with probability 0.999.
    #[test]
    fn permutations_are_uniform() {
        let mut counts = std::collections::BTreeMap::<_, f64>::new();
        for position in 0..24_000 {
            *counts.entry(draws(position).permutation(4)).or_default() += 1.0;
        }
        let chi_squared: f64 = counts.values().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(counts.len() == 24 && chi_squared < 49.7, "{chi_squared}");
    }

    proptest! {
        #[test]
        fn numbers_stay_in_their_range(position: u64, n in 1_usize..1 << 40, exponent in -300.0..300.0) {
            let mut draws = draws(position);
            prop_assert!(draws.below(n) < n);
            prop_assert!((0.0..1.0).contains(&draws.unit()));
            // Of any alpha: the most extreme ones are a coin and a half.
            prop_assert!((0.0..=1.0).contains(&draws.beta(10.0_f64.powf(exponent))));
        }
    }
}

//! Loops that every value of a warm epoch passes through, compiled for several processors: the newest that is there is
//! taken when the program runs. All of them give equal results, to the bit.

use half::bf16;
use multiversion::multiversion;

/// One round of a swap-or-not shuffle: its key, and the salt of its hash.
pub(crate) type Round = [u64; 2];

/// How many entries are permuted side by side: the rounds of one are a chain.
pub(crate) const LANES: usize = 32;

/// Sends each entry, below `n`, through the rounds.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn permute(entries: &mut [u64; LANES], n: u64, rounds: &[Round]) {
    for [key, salt] in rounds {
        for x in entries.iter_mut() {
            let wrapped = if *x <= *key { 0 } else { n };
            // A lane that no entry is in may hold anything.
            let partner = key.wrapping_add(wrapped).wrapping_sub(*x);
            let is_swapped = mix_bits((*x).max(partner) ^ salt) & 1;
            // Without a branch, which nobody could foresee.
            *x ^= (*x ^ partner) & is_swapped.wrapping_neg();
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the result hangs on every bit of `x`.
#[inline(always)]
pub(crate) fn mix_bits(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Writes `(byte - zero) * scale` for each byte.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn scale_bytes(bytes: &[u8], zero: f32, scale: f32, out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = (f32::from(*byte) - zero) * scale;
    }
}

/// Writes each normalised value as a byte: `255 * (value * std + mean)`, rounded to nearest, ties to even, and clamped.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn unit_to_bytes(values: &[f32], mean: f32, std: f32, out: &mut [u8]) {
    for (out, value) in out.iter_mut().zip(values) {
        // `as` clamps.
        *out = ((value * std + mean) * 255.0).round_ties_even() as u8;
    }
}

/// Writes each value as bfloat16, rounded to nearest, ties to even.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn round_to_bf16(values: &[f32], out: &mut [bf16]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = bf16::from_f32(*value);
    }
}

/// Whether all values are finite.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn are_finite(values: &[f32]) -> bool {
    // What is not has all bits of its exponent set.
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(0, |found, v| found | u32::from(v.to_bits() & EXPONENT == EXPONENT)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_that_is_not_finite_is_found_anywhere() {
        for len in [1, 7, 64, 129] {
            assert!(are_finite(&vec![f32::MAX; len]));
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![-0.0; len];
                    values[at] = bad;
                    assert!(!are_finite(&values), "{bad} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn every_byte_is_scaled() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut out = vec![0.0; 256];
        scale_bytes(&bytes, 3.0, 0.5, &mut out);
        assert!(out.iter().zip(bytes).all(|(out, byte)| *out == (f32::from(byte) - 3.0) * 0.5));
    }
}

//! The noise of a sample: a function of (`refine_seed`, content, variant) and nothing else, equal on every
//! platform and in every batch.
//!
//! Bit for bit:
//!
//! 1. `material` = `refine_seed` as u64, little-endian (8 bytes) · content digest (32 bytes) · `variant` as u32,
//!    little-endian (4 bytes).
//! 2. `h` = BLAKE3 in its key-derivation mode, context [`CONTEXT`], of `material`: 32 bytes, of which the first 16
//!    are read as four little-endian u32 `h0 h1 h2 h3`.
//! 3. Block `j` (a u64, from 0) = Philox4x32-10 (Salmon et al. 2011) with key `(h0, h1)` and counter
//!    `(low 32 bits of j, high 32 bits of j, h2, h3)`: four u32 `x0 x1 x2 x3`.
//! 4. `u = (((x1·2^32 + x0) >> 11) + 1) · 2^-53`, in (0, 1]; `v = ((x3·2^32 + x2) >> 11) · 2^-53`, in [0, 1).
//! 5. Box-Muller in f64 with the functions of the crate `libm`: `r = sqrt(-2 ln u)`,
//!    `n(2j) = r cos(2 pi v)`, `n(2j+1) = r sin(2 pi v)`, where `2 pi v` is the f64 product `TAU · v`.
//! 6. Each is rounded to the nearest f32. Value `i` of a latent `[C, h, w]`, counted in row-major order, is `n(i)`.
//! 7. A sampler that draws at every step goes on: value `i` of draw `d`, the start's being 0, is `n(d·C·h·w + i)`.

use crate::{Error, Result};
use diver_loaders::Digest;
use diver_loaders::refine::NoiseKey;
use std::f64::consts::TAU;
use tch::Tensor;

/// The context string of step 2.
pub const CONTEXT: &str = "diver-dataset 2026 noise of a refined sample v1";

const TWO_POW_MINUS_53: f64 = 1.0 / (1_u64 << 53) as f64;

/// The first `count` normals of a sample.
///
/// ```
/// use diver::method::normals;
/// use diver_loaders::Digest;
///
/// let content = Digest::of(b"an image");
/// let noise = normals(0, &content, 0, 8);
/// assert_eq!(noise[..4], normals(0, &content, 0, 4));
/// assert_ne!(noise, normals(1, &content, 0, 8));
/// ```
#[must_use]
pub fn normals(refine_seed: u64, content: &Digest, variant: u32, count: usize) -> Vec<f32> {
    normals_from(refine_seed, content, variant, 0, count)
}

/// `count` normals of a sample from the one numbered `first` on.
fn normals_from(refine_seed: u64, content: &Digest, variant: u32, first: usize, count: usize) -> Vec<f32> {
    let mut material = [0; 44];
    material[..8].copy_from_slice(&refine_seed.to_le_bytes());
    material[8..40].copy_from_slice(content.as_bytes());
    material[40..].copy_from_slice(&variant.to_le_bytes());
    let hash = blake3::derive_key(CONTEXT, &material);
    let word =
        |i: usize| u32::from_le_bytes([hash[4 * i], hash[4 * i + 1], hash[4 * i + 2], hash[4 * i + 3]]);
    let key = [word(0), word(1)];
    let (nonce0, nonce1) = (word(2), word(3));

    let (first_block, skipped) = (first / 2, first % 2);
    let last_block = (first + count).div_ceil(2);
    let mut values = Vec::with_capacity(2 * (last_block - first_block));
    for block in first_block as u64..last_block as u64 {
        let bits = philox4x32_10([block as u32, (block >> 32) as u32, nonce0, nonce1], key);
        values.extend(box_muller(bits));
    }
    values.drain(..skipped);
    values.truncate(count);
    values
}

/// The noise of a batch as a CPU tensor, `[B, C, h, w]`, f32; `shape` is `[C, h, w]`.
///
/// ```
/// use diver::method::{latent_noise, normals};
/// use diver_loaders::Digest;
/// use diver_loaders::refine::NoiseKey;
///
/// let key = NoiseKey { content: Digest::of(b"an image"), variant: 0 };
/// let noise = latent_noise(7, &[key], [4, 8, 8])?;
/// assert_eq!(noise.size(), [1, 4, 8, 8]);
/// assert_eq!(noise.double_value(&[0, 0, 0, 1]) as f32, normals(7, &key.content, 0, 2)[1]);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// If memory runs out.
pub fn latent_noise(refine_seed: u64, keys: &[NoiseKey], shape: [i64; 3]) -> Result<Tensor> {
    step_noise(refine_seed, keys, shape, 0)
}

/// The noise of the step that draws for the `draw`th time, the start's being draw 0: the normals of each sample go on
/// where those of the draw before ended.
pub(crate) fn step_noise(
    refine_seed: u64,
    keys: &[NoiseKey],
    shape: [i64; 3],
    draw: usize,
) -> Result<Tensor> {
    let count = usize::try_from(shape.iter().product::<i64>())
        .map_err(|_| Error::tensor("noise", "sides from 0 up", format!("{shape:?}")))?;
    let mut values = Vec::with_capacity(keys.len() * count);
    for key in keys {
        values.extend(normals_from(refine_seed, &key.content, key.variant, draw * count, count));
    }
    let [channels, height, width] = shape;
    Ok(Tensor::f_from_slice(&values)?.f_view([keys.len() as i64, channels, height, width])?)
}

fn box_muller([x0, x1, x2, x3]: [u32; 4]) -> [f32; 2] {
    let bits53 = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)) >> 11;
    let u = (bits53(x0, x1) + 1) as f64 * TWO_POW_MINUS_53;
    let v = bits53(x2, x3) as f64 * TWO_POW_MINUS_53;
    let radius = libm::sqrt(-2.0 * libm::log(u));
    let angle = TAU * v;
    [(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]
}

/// Philox4x32 with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_go_on_where_they_ended() {
        let content = Digest::of(b"an image");
        let all = normals(3, &content, 1, 11);
        for (first, count) in [(0, 11), (1, 4), (4, 5), (7, 4), (10, 1)] {
            assert_eq!(normals_from(3, &content, 1, first, count), all[first..first + count]);
        }
    }

    /// The vectors for `philox4x32 10` in `kat_vectors` of Random123.
    #[test]
    fn philox_gives_the_official_answers() {
        let ones = u32::MAX;
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Computed apart from this code, in Python, from the six steps above.
    #[test]
    fn whole_streams_have_known_answers() {
        let content = Digest::of(b"abc");
        let bits = |seed, variant| {
            normals(seed, &content, variant, 6).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let paper = [0xbf49_9644, 0x3fcf_29a5, 0xbf91_205d, 0xbfa7_d095, 0xbf41_d00b, 0xbee4_c8a9];
        let other = [0x3fcf_6559, 0x3fcf_1b48, 0xbeb8_d243, 0xbf6f_a313, 0x3fa0_e413, 0x3cab_a2c0];
        assert_eq!(bits(0, 0), paper);
        assert_eq!(bits(u64::MAX, 3), other);
    }

    #[test]
    fn the_ends_of_the_uniforms_stay_finite() {
        assert_eq!(box_muller([u32::MAX; 4]), [0.0, -0.0]);
        let [x, y] = box_muller([0; 4]);
        assert!((x - 8.572).abs() < 1e-3 && y == 0.0, "{x} {y}");
    }

    #[test]
    fn values_are_standard_normal() {
        let values = normals(3, &Digest::of(b"statistics"), 0, 100_001);
        let count = values.len() as f64;
        let moment = |p: i32| values.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / count;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02);
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1);
    }

    #[test]
    fn a_batch_is_its_samples() {
        let key = |text: &str, variant| NoiseKey { content: Digest::of(text.as_bytes()), variant };
        let keys = [key("a", 0), key("a", 1), key("b", 0)];
        let batch = latent_noise(7, &keys, [4, 2, 2]).unwrap();
        for (row, key) in keys.iter().enumerate() {
            let values = Vec::<f32>::try_from(batch.get(row as i64).flatten(0, -1)).unwrap();
            assert_eq!(values, normals(7, &key.content, key.variant, 16));
        }
        assert_ne!(normals(7, &keys[0].content, 0, 16), normals(7, &keys[0].content, 1, 16));
    }
}

//! From the pipeline's planes of float32 to what a batch is written as.

use super::dtype::{Dtype, Element};
use super::layout::{Layout, MemoryFormat};
use crate::Normalize;
use crate::kernels::{round_to_bf16, unit_to_bytes};
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

/// Pixels whose channels are brought together at a time: they stay in the processor's first cache.
const STRIP: usize = 1024;

/// Writes normalised images, planar `[B, C, H, W]`, to as many bytes as `layout` has.
pub(super) fn write(images: &[f32], layout: &Layout, normalize: &Normalize, out: &mut [u8]) {
    match layout.dtype {
        Dtype::Float32 => arrange(images, layout, out, |_, from, to: &mut [f32]| to.copy_from_slice(from)),
        Dtype::Float16 => {
            arrange(images, layout, out, |_, from, to: &mut [f16]| to.convert_from_f32_slice(from));
        }
        Dtype::Bfloat16 => arrange(images, layout, out, |_, from, to: &mut [bf16]| round_to_bf16(from, to)),
        Dtype::Uint8 => arrange(images, layout, out, |channel, from, to| {
            unit_to_bytes(from, normalize.mean[channel], normalize.std[channel], to);
        }),
    }
}

/// Converts runs of values of one channel, and puts them where they belong. `convert` gets the channel, the values, and
/// room for as many.
fn arrange<T: Element>(
    images: &[f32],
    layout: &Layout,
    out: &mut [u8],
    convert: impl Fn(usize, &[f32], &mut [T]),
) {
    let [_, channels, height, width] = layout.shape;
    // Chunks of nothing there cannot be.
    let (channels, area) = (channels.max(1), (height * width).max(1));
    let out = T::of_mut(out);
    if layout.memory_format == MemoryFormat::Contiguous || channels == 1 {
        for (plane, (from, to)) in images.chunks_exact(area).zip(out.chunks_exact_mut(area)).enumerate() {
            convert(plane % channels, from, to);
        }
        return;
    }
    let mut strips = vec![T::default(); channels * STRIP];
    let size = channels * area;
    for (image, out) in images.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
        for (number, out) in out.chunks_mut(channels * STRIP).enumerate() {
            let pixels = out.len() / channels;
            for (channel, strip) in strips.chunks_exact_mut(STRIP).enumerate() {
                let from = &image[channel * area + number * STRIP..][..pixels];
                convert(channel, from, &mut strip[..pixels]);
            }
            interleave(&strips, channels, out);
        }
    }
}

/// Puts the values of a pixel beside each other: `strips` has `STRIP` of each channel, of which as many as `out` takes.
fn interleave<T: Copy>(strips: &[T], channels: usize, out: &mut [T]) {
    if channels == 3 {
        // As every image in colour: three at once are twice as fast.
        let (red, rest) = strips.split_at(STRIP);
        let (green, blue) = rest.split_at(STRIP);
        let (pixels, _) = out.as_chunks_mut::<3>();
        for (pixel, ((red, green), blue)) in pixels.iter_mut().zip(red.iter().zip(green).zip(blue)) {
            *pixel = [*red, *green, *blue];
        }
        return;
    }
    for (channel, strip) in strips.chunks_exact(STRIP).enumerate() {
        for (value, converted) in out[channel..].iter_mut().step_by(channels).zip(strip) {
            *value = *converted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What was written, in the order `[B, C, H, W]`.
    fn written<T: Element>(images: &[f32], layout: &Layout, normalize: &Normalize) -> Vec<T> {
        // Aligned for all types.
        let mut room = vec![0_u64; layout.bytes().div_ceil(8)];
        let bytes = &mut bytemuck::cast_slice_mut(&mut room)[..layout.bytes()];
        write(images, layout, normalize, bytes);
        let [batch, channels, height, width] = layout.shape;
        let [by_image, by_channel, by_row, by_column] = layout.strides();
        let values = T::of(bytes);
        let mut planar = Vec::new();
        for (b, c, h, w) in (0..batch).flat_map(|b| {
            let rows = move |c| (0..height).flat_map(move |h| (0..width).map(move |w| (b, c, h, w)));
            (0..channels).flat_map(rows)
        }) {
            planar.push(values[b * by_image + c * by_channel + h * by_row + w * by_column]);
        }
        planar
    }

    fn layout(shape: [usize; 4], dtype: Dtype, memory_format: MemoryFormat) -> Layout {
        Layout { shape, dtype, memory_format }
    }

    /// Shapes whose images need no strip, one, and several that are not full, and values for them.
    fn batches() -> impl Strategy<Value = ([usize; 4], Vec<f32>)> {
        let sides = prop_oneof![(1_usize..5, 1_usize..9), Just((33, 64)), Just((32, 32))];
        // Values that every dtype has to round, some of them halfway between two.
        let value = prop_oneof![
            -4.0_f32..4.0,
            any::<u16>().prop_map(|bits| f32::from_bits((u32::from(bits) << 16) | 0x8000)),
            any::<u16>().prop_map(|bits| f16::from_bits(bits).to_f32() + 2.0_f32.powi(-12)),
        ];
        let value = value.prop_filter("values are finite", |value| value.is_finite());
        (1_usize..4, 1_usize..6, sides).prop_flat_map(move |(batch, channels, (height, width))| {
            let values = proptest::collection::vec(value.clone(), 97);
            values.prop_map(move |few| {
                let count = batch * channels * height * width;
                ([batch, channels, height, width], few.into_iter().cycle().take(count).collect())
            })
        })
    }

    proptest! {
        #[test]
        fn every_value_is_converted_alone(batch in batches()) {
            let (shape, images) = batch;
            let normalize = &Normalize::IMAGENET;
            for format in MemoryFormat::ALL {
                let found: Vec<f32> = written(&images, &layout(shape, Dtype::Float32, *format), normalize);
                prop_assert_eq!(&found, &images);
                let found: Vec<f16> = written(&images, &layout(shape, Dtype::Float16, *format), normalize);
                let bits = |value: &f16| value.to_bits();
                prop_assert!(found.iter().map(bits).eq(images.iter().map(|v| f16::from_f32(*v).to_bits())));
                let found: Vec<bf16> = written(&images, &layout(shape, Dtype::Bfloat16, *format), normalize);
                let bits = |value: &bf16| value.to_bits();
                prop_assert!(found.iter().map(bits).eq(images.iter().map(|v| bf16::from_f32(*v).to_bits())));
                if shape[1] <= 3 {
                    let found: Vec<u8> = written(&images, &layout(shape, Dtype::Uint8, *format), normalize);
                    let area = shape[2] * shape[3];
                    let byte = |(at, value): (usize, &f32)| {
                        let pixel = normalize.invert(at / area % shape[1], *value) * 255.0;
                        pixel.round_ties_even().clamp(0.0, 255.0) as u8
                    };
                    prop_assert!(found.into_iter().eq(images.iter().enumerate().map(byte)));
                }
            }
        }

        #[test]
        fn bytes_that_were_normalised_come_back(
            mean in proptest::array::uniform3(-2.0_f32..2.0),
            std in proptest::array::uniform3(1e-6_f32..2.0),
        ) {
            let normalize = Normalize::new(mean, std).unwrap();
            let bytes: Vec<u8> = (0..3).flat_map(|_| 0..=255).collect();
            let apply = |(at, byte): (usize, &u8)| normalize.apply(at / 256, f32::from(*byte) / 255.0);
            let images: Vec<f32> = bytes.iter().enumerate().map(apply).collect();
            for format in MemoryFormat::ALL {
                let layout = layout([1, 3, 16, 16], Dtype::Uint8, *format);
                prop_assert_eq!(written::<u8>(&images, &layout, &normalize), bytes.clone());
            }
        }
    }

    #[test]
    fn halves_round_to_even_and_overflow_to_infinity() {
        let normalize = &Normalize::IMAGENET;
        // 1 + 2^-11 lies halfway between 1 and 1 + 2^-10; 1 + 3 * 2^-11 between that and 1 + 2^-9.
        let images = [1.0 + 2.0_f32.powi(-11), 1.0 + 3.0 * 2.0_f32.powi(-11), 65_519.0, 65_520.0, -1e9];
        let found: Vec<f16> =
            written(&images, &layout([1, 1, 1, 5], Dtype::Float16, MemoryFormat::Contiguous), normalize);
        let expected = [1.0, 1.0 + 2.0_f32.powi(-9), 65_504.0, f32::INFINITY, f32::NEG_INFINITY];
        assert!(found.iter().map(|value| value.to_f32()).eq(expected));
        // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7; no float32 of a pixel is beyond bfloat16.
        let images = [1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8), 1e38];
        let found: Vec<bf16> =
            written(&images, &layout([1, 1, 1, 3], Dtype::Bfloat16, MemoryFormat::Contiguous), normalize);
        assert_eq!(found[..2], [1.0, 1.0 + 2.0_f32.powi(-6)].map(bf16::from_f32));
        assert!(found[2].is_finite());
    }

    #[test]
    fn bytes_are_clamped() {
        let normalize = Normalize::new([0.5; 3], [0.25; 3]).unwrap();
        let layout = layout([1, 1, 1, 5], Dtype::Uint8, MemoryFormat::Contiguous);
        let images = [-9.0, -2.0, 0.0, 2.0, f32::MAX];
        // 127.5 lies halfway between two bytes.
        assert_eq!(written::<u8>(&images, &layout, &normalize), [0, 0, 128, 255, 255]);
    }
}

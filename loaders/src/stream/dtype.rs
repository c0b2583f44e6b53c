//! What the values of a batch's images are written as.

use crate::options::named_enum;
use half::slice::HalfBitsSliceExt as _;
use half::{bf16, f16};

named_enum! {
    /// What the values of a batch's images are written as. Images are always augmented, and shown to teachers, as
    /// normalised float32; they are converted last.
    ///
    /// ```
    /// use diver_loaders::{Dtype, Loader, MemorySource};
    ///
    /// let pixels = vec![0.0, 0.2, 0.4, 1.0];
    /// let set = MemorySource::unit(1, [1, 2, 2], pixels, vec![0])?;
    /// let mut loader = Loader::builder(set).dtype(Dtype::Uint8).build()?;
    /// let batch = loader.iter().next().unwrap()?;
    /// assert_eq!(batch.images::<u8>()?, [0, 51, 102, 255]);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    #[derive(Default)]
    Dtype, "dtype" {
        /// Normalised values, 4 bytes each.
        #[default]
        Float32 = "float32",
        /// Normalised values, 2 bytes each, rounded to nearest, ties to even. Values beyond 65,504 become infinite, as
        /// they do in torch; normalised pixels lie far below.
        Float16 = "float16",
        /// Normalised values, 2 bytes each, rounded to nearest, ties to even.
        Bfloat16 = "bfloat16",
        /// Pixels from 0 to 255, 1 byte each, which are **not** normalised: the training program does that, on its
        /// device. A normalised value `v` becomes `255 * (v * std + mean)` with the constants of its channel, rounded to
        /// nearest, ties to even, and clamped to [0, 255]. So stored and refined bytes come as they are, unless they are
        /// augmented, blended or resized.
        Uint8 = "uint8",
    }
}

impl Dtype {
    /// Number of bytes of a value.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Uint8 => 1,
        }
    }
}

/// A type that the values of a batch's images may have: `f32`, [`f16`](crate::f16), [`bf16`](crate::bf16) or `u8`.
///
/// ```
/// use diver_loaders::{Dtype, Element, bf16};
///
/// assert_eq!((f32::DTYPE, bf16::DTYPE), (Dtype::Float32, Dtype::Bfloat16));
/// ```
pub trait Element: Copy + Default + Send + Sync + 'static + bytes::AsBytes {
    /// Its name among options.
    const DTYPE: Dtype;
}

/// Bytes as values, for the types above alone.
pub(super) mod bytes {
    pub trait AsBytes: Sized {
        /// The values in `bytes`, which are aligned and of a fitting number: what does not fit is left out.
        fn of(bytes: &[u8]) -> &[Self];

        /// As [`of`](Self::of), to be changed.
        fn of_mut(bytes: &mut [u8]) -> &mut [Self];
    }
}

/// Types that `bytemuck` knows, and those of two bytes, which it sees as `u16`.
macro_rules! element {
    ($type:ty, $dtype:ident, |$values:ident: $plain:ty| $cast:expr, $cast_mut:expr) => {
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }

        impl bytes::AsBytes for $type {
            fn of(bytes: &[u8]) -> &[Self] {
                let (_, $values, _) = bytemuck::pod_align_to::<u8, $plain>(bytes);
                $cast
            }

            fn of_mut(bytes: &mut [u8]) -> &mut [Self] {
                let (_, $values, _) = bytemuck::pod_align_to_mut::<u8, $plain>(bytes);
                $cast_mut
            }
        }
    };
}

element!(f32, Float32, |values: f32| values, values);
element!(u8, Uint8, |values: u8| values, values);
element!(f16, Float16, |values: u16| values.reinterpret_cast(), values.reinterpret_cast_mut());
element!(bf16, Bfloat16, |values: u16| values.reinterpret_cast(), values.reinterpret_cast_mut());

#[cfg(test)]
mod tests {
    use super::bytes::AsBytes as _;
    use super::*;

    #[test]
    fn values_are_read_and_written_in_place() {
        let mut room = [0_u64; 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut room);
        f32::of_mut(bytes)[1] = 1.5;
        assert_eq!(f32::of(bytes)[..2], [0.0, 1.5]);
        f16::of_mut(bytes)[15] = f16::ONE;
        assert_eq!(bytes[30..], f16::ONE.to_ne_bytes());
        bf16::of_mut(bytes)[14] = bf16::NEG_ONE;
        assert_eq!(bf16::of(bytes)[14..], [bf16::NEG_ONE, bf16::from_bits(f16::ONE.to_bits())]);
        assert_eq!((u8::of(bytes).len(), f16::of(bytes).len(), f32::of(bytes).len()), (32, 16, 8));
    }

    #[test]
    fn sizes_are_those_of_the_types() {
        fn is_right<T: Element>() -> bool {
            T::DTYPE.size() == size_of::<T>()
        }
        assert!(is_right::<f32>() && is_right::<f16>() && is_right::<bf16>() && is_right::<u8>());
    }
}

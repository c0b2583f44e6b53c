//! Where a tensor lies in its storage, and how its elements are read.

use std::io::{self, Read};

/// torch allows no more dimensions either.
const MAX_DIMS: usize = 64;
/// Bytes decoded at a time; a multiple of every element's size.
const BLOCK: usize = 1 << 16;

/// The element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl DType {
    /// From the class that torch pickles, as in `FloatStorage`.
    pub(crate) fn from_storage_class(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// A storage, as a tensor names it: `numel` elements under `key` in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageRef {
    pub(crate) key: String,
    pub(crate) dtype: DType,
    pub(crate) numel: u64,
}

impl StorageRef {
    /// Its size in bytes, if that is a number.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.numel.checked_mul(self.dtype.size())
    }
}

/// A tensor that has not been read: a strided view into a storage, checked to lie inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorRef {
    storage: StorageRef,
    shape: Vec<usize>,
    /// In elements; 0 where the dimension has fewer than two entries, which makes it irrelevant.
    stride: Vec<usize>,
    offset: u64,
    /// From the first element to the last, both included.
    span: usize,
    elements: usize,
}

impl TensorRef {
    /// A view of `shape` and `stride` that begins `offset` elements into `storage`.
    pub(crate) fn new(
        storage: StorageRef,
        offset: u64,
        shape: &[u64],
        stride: &[u64],
    ) -> Result<Self, String> {
        if shape.len() != stride.len() || shape.len() > MAX_DIMS {
            return Err(format!("a tensor of {} sizes and {} strides", shape.len(), stride.len()));
        }
        let outside = || {
            format!(
                "a tensor of shape {shape:?}, stride {stride:?} and offset {offset} does not fit its storage \
                 of {} elements",
                storage.numel
            )
        };
        let elements = shape.iter().try_fold(1_u64, |n, size| n.checked_mul(*size)).ok_or_else(outside)?;
        let mut span = u64::from(elements > 0);
        for (size, step) in shape.iter().zip(stride) {
            if elements > 0 {
                let reach = (size - 1).checked_mul(*step).ok_or_else(outside)?;
                span = span.checked_add(reach).ok_or_else(outside)?;
            }
        }
        // An expanded tensor has more elements than its storage: nothing that methods save, and with it the
        // size of the file would no longer bound what reading it allocates.
        let end = offset.checked_add(span).ok_or_else(outside)?;
        if end > storage.numel || elements > storage.numel {
            return Err(outside());
        }
        let to_usize = |n: u64| usize::try_from(n).map_err(|_| outside());
        Ok(Self {
            shape: shape.iter().map(|n| to_usize(*n)).collect::<Result<_, _>>()?,
            stride: shape
                .iter()
                .zip(stride)
                .map(|(size, step)| if *size < 2 { Ok(0) } else { to_usize(*step) })
                .collect::<Result<_, _>>()?,
            offset,
            span: to_usize(span)?,
            elements: to_usize(elements)?,
            storage,
        })
    }

    /// The storage that it views.
    pub(crate) fn storage(&self) -> &StorageRef {
        &self.storage
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn dtype(&self) -> DType {
        self.storage.dtype
    }

    fn is_contiguous(&self) -> bool {
        if self.elements == 0 {
            return true; // The product of its other sizes may be anything.
        }
        let mut expected = 1;
        self.shape.iter().zip(&self.stride).rev().all(|(size, stride)| {
            let fits = *size < 2 || *stride == expected;
            expected *= size.max(&1);
            fits
        })
    }

    /// A tensor that fills its storage from the start, in row-major order; `None` if it does not fit.
    pub(crate) fn contiguous(storage: StorageRef, shape: &[u64]) -> Option<Self> {
        let mut stride = vec![1_u64; shape.len()];
        for dimension in (1..shape.len()).rev() {
            stride[dimension - 1] = stride[dimension].checked_mul(shape[dimension].max(1))?;
        }
        Self::new(storage, 0, shape, &stride).ok()
    }

    /// The same elements with their dimensions in reverse.
    pub(crate) fn transposed(mut self) -> Self {
        self.shape.reverse();
        self.stride.reverse();
        self
    }

    /// Entry `row` along the first dimension.
    ///
    /// # Panics
    /// If there is no such entry.
    pub(crate) fn row(&self, row: usize) -> Self {
        assert!(row < self.shape[0], "row {row} of {}", self.shape[0]);
        let (shape, stride) = (self.shape[1..].to_vec(), self.stride[1..].to_vec());
        let elements = self.elements / self.shape[0];
        // Inside the storage, as the whole is.
        let reach: usize = shape.iter().zip(&stride).map(|(size, step)| size.saturating_sub(1) * step).sum();
        let offset = self.offset + (row * self.stride[0]) as u64;
        let span = if elements > 0 { reach + 1 } else { 0 };
        Self { storage: self.storage.clone(), shape, stride, offset, span, elements }
    }

    /// The same elements with their dimensions in another order: dimension `i` is the former `order[i]`.
    pub(crate) fn permuted<const N: usize>(&self, order: [usize; N]) -> Self {
        let shape = order.map(|from| self.shape[from]).to_vec();
        let stride = order.map(|from| self.stride[from]).to_vec();
        Self { shape, stride, ..self.clone() }
    }

    /// Where its first element begins in the storage.
    pub(crate) fn first_byte(&self) -> u64 {
        self.offset * self.dtype().size()
    }

    /// Reads the elements in row-major order. `storage` yields the storage's bytes from its start; it is read
    /// to its end.
    pub(crate) fn read<T: Element>(&self, mut storage: impl Read) -> io::Result<Vec<T>> {
        skip(&mut storage, self.first_byte())?;
        let values = self.read_span(&mut storage)?;
        io::copy(&mut storage, &mut io::sink())?;
        Ok(values)
    }

    /// As [`read`](Self::read), where `storage` yields bytes from the first element on, and no more are read than
    /// lie between it and the last.
    pub(crate) fn read_span<T: Element>(&self, mut storage: impl Read) -> io::Result<Vec<T>> {
        let size = self.dtype().size();
        let mut values = Vec::with_capacity(self.span);
        let mut block = vec![0; BLOCK];
        let mut left = self.span * size as usize;
        while left > 0 {
            let bytes = &mut block[..left.min(BLOCK)];
            storage.read_exact(bytes)?;
            T::decode(self.dtype(), bytes, &mut values);
            left -= bytes.len();
        }
        Ok(if self.is_contiguous() { values } else { self.gather(&values) })
    }

    fn gather<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let mut gathered = Vec::with_capacity(self.elements);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..self.elements {
            gathered.push(values[at]);
            for (i, (size, stride)) in index.iter_mut().zip(self.shape.iter().zip(&self.stride)).rev() {
                *i += 1;
                at += stride;
                if *i < *size {
                    break;
                }
                *i = 0;
                at -= size * stride;
            }
        }
        gathered
    }
}

fn skip(reader: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A type that tensors can be read as.
pub(crate) trait Element: Copy {
    /// Appends the little-endian elements of `bytes`.
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>);
}

fn extend<const N: usize, T>(out: &mut Vec<T>, bytes: &[u8], from: impl Fn([u8; N]) -> T) {
    out.extend(bytes.as_chunks().0.iter().map(|element| from(*element)));
}

impl Element for f32 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) {
        match dtype {
            DType::F64 => extend(out, bytes, |b| f64::from_le_bytes(b) as f32),
            DType::F32 => extend(out, bytes, f32::from_le_bytes),
            DType::F16 => extend(out, bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            DType::BF16 => extend(out, bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            DType::I64 => extend(out, bytes, |b| i64::from_le_bytes(b) as f32),
            DType::I32 => extend(out, bytes, |b| i32::from_le_bytes(b) as f32),
            DType::I16 => extend(out, bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => extend(out, bytes, |b| i8::from_le_bytes(b).into()),
            DType::U8 => extend(out, bytes, |[b]: [u8; 1]| b.into()),
            DType::Bool => extend(out, bytes, |[b]: [u8; 1]| f32::from(b != 0)),
        }
    }
}

/// For byte tensors: other elements are truncated to 0 to 255.
impl Element for u8 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) {
        if dtype == DType::U8 {
            out.extend_from_slice(bytes);
        } else {
            let mut values: Vec<f32> = Vec::new();
            f32::decode(dtype, bytes, &mut values);
            out.extend(values.into_iter().map(|value| value as u8));
        }
    }
}

/// Floats are truncated toward zero.
impl Element for i64 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) {
        match dtype {
            DType::F64 => extend(out, bytes, |b| f64::from_le_bytes(b) as i64),
            DType::F32 => extend(out, bytes, |b| f32::from_le_bytes(b) as i64),
            DType::F16 => extend(out, bytes, |b| half::f16::from_le_bytes(b).to_f32() as i64),
            DType::BF16 => extend(out, bytes, |b| half::bf16::from_le_bytes(b).to_f32() as i64),
            DType::I64 => extend(out, bytes, i64::from_le_bytes),
            DType::I32 => extend(out, bytes, |b| i32::from_le_bytes(b).into()),
            DType::I16 => extend(out, bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => extend(out, bytes, |b| i8::from_le_bytes(b).into()),
            DType::U8 => extend(out, bytes, |[b]: [u8; 1]| b.into()),
            DType::Bool => extend(out, bytes, |[b]: [u8; 1]| i64::from(b != 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(numel: u64) -> StorageRef {
        StorageRef { key: "0".into(), dtype: DType::U8, numel }
    }

    #[test]
    fn strides_and_offsets_are_honoured() {
        let bytes: Vec<u8> = (0..12).collect();
        let read = |offset, shape: &[u64], stride: &[u64]| {
            TensorRef::new(storage(12), offset, shape, stride).unwrap().read::<i64>(&bytes[..]).unwrap()
        };
        assert_eq!(read(0, &[3, 4], &[4, 1]), (0..12).collect::<Vec<_>>());
        assert_eq!(read(1, &[3, 2], &[4, 2]), [1, 3, 5, 7, 9, 11]);
        assert_eq!(read(0, &[4, 3], &[1, 4]), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(read(5, &[2, 1], &[6, u64::MAX]), [5, 11]);
        assert_eq!(read(11, &[], &[]), [11]);
        assert_eq!(read(12, &[0, 4], &[4, 1]), [] as [i64; 0]);
    }

    #[test]
    fn rows_are_what_the_whole_has() {
        let bytes: Vec<u8> = (0..24).collect();
        for (offset, shape, stride) in [
            (0, &[4, 3, 2][..], &[6, 2, 1][..]),
            (0, &[2, 3, 4], &[1, 2, 6]),
            (3, &[3, 5], &[7, 1]),
            (2, &[5], &[3]),
            (1, &[4, 0], &[2, 1]),
        ] {
            let whole = TensorRef::new(storage(24), offset, shape, stride).unwrap();
            let mut rows = Vec::new();
            for row in (0..whole.shape()[0]).map(|row| whole.row(row)) {
                rows.extend(row.read_span::<i64>(&bytes[row.first_byte() as usize..]).unwrap());
            }
            assert_eq!(rows, whole.read::<i64>(&bytes[..]).unwrap(), "{shape:?} {stride:?}");
        }
        let nhwc = TensorRef::new(storage(24), 0, &[2, 2, 2, 3], &[12, 6, 3, 1]).unwrap();
        let nchw = nhwc.permuted([0, 3, 1, 2]);
        assert_eq!(nchw.shape(), [2, 3, 2, 2]);
        let first = nchw.row(0).read_span::<i64>(&bytes[..]).unwrap();
        assert_eq!(first, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for (offset, shape, stride) in [
            (0, &[13][..], &[1][..]),
            (1, &[12], &[1]),
            (0, &[2, 2], &[11, 1]),
            (0, &[1 << 40], &[0]),
            (u64::MAX, &[1], &[1]),
            (0, &[u64::MAX, u64::MAX], &[1, 1]),
            (0, &[2], &[u64::MAX]),
            (0, &[2, 2], &[1]),
        ] {
            assert!(TensorRef::new(storage(12), offset, shape, stride).is_err(), "{shape:?} {stride:?}");
        }
    }
}

//! Where a tensor lies in its storage, and how its elements are read.

use super::dtype::{DType, Element};
use std::io::{self, Read};

/// torch allows no more dimensions either.
const MAX_DIMS: usize = 64;
/// Bytes decoded at a time; a multiple of every element's size.
const BLOCK: usize = 1 << 16;
/// Most elements of a view for each of its storage's, and as many as any view may have: an expanded view has more
/// elements than are stored, and what reading it allocates must stay bounded by the size of the file.
const MOST_REPEATED: u64 = 16;
const MOST_EXPANDED: u64 = 1 << 24;

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
    /// Whether the storage's elements begin with their most significant byte.
    is_big_endian: bool,
}

impl TensorRef {
    /// A view of `shape` and `stride` that begins `offset` elements into `storage`.
    ///
    /// # Errors
    /// If it does not lie inside, or has far more elements than are stored; with what it is, as in "a tensor that ...".
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
                "a tensor of shape {shape:?}, stride {stride:?} and offset {offset} that does not fit its storage \
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
        let end = offset.checked_add(span).ok_or_else(outside)?;
        if end > storage.numel {
            return Err(outside());
        }
        if elements > MOST_EXPANDED.max(storage.numel.saturating_mul(MOST_REPEATED)) {
            return Err(format!(
                "an expanded tensor of shape {shape:?}, of which {} elements are stored (save `tensor.clone()` instead)",
                storage.numel
            ));
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
            is_big_endian: false,
        })
    }

    /// The same view of a storage whose elements begin with their most significant byte.
    pub(crate) fn big_endian(self) -> Self {
        Self { is_big_endian: true, ..self }
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
        let (storage, is_big_endian) = (self.storage.clone(), self.is_big_endian);
        Self { storage, shape, stride, offset, span, elements, is_big_endian }
    }

    /// The same elements with their dimensions in another order: dimension `i` is the former `order[i]`.
    pub(crate) fn permuted<const N: usize>(&self, order: [usize; N]) -> Self {
        let shape = order.map(|from| self.shape[from]).to_vec();
        let stride = order.map(|from| self.stride[from]).to_vec();
        Self { shape, stride, ..self.clone() }
    }

    /// The same elements with one more dimension, of size 1, at `place`.
    pub(crate) fn with_dimension(&self, place: usize) -> Self {
        let mut view = self.clone();
        view.shape.insert(place, 1);
        view.stride.insert(place, 0);
        view
    }

    /// Where its first element begins in the storage.
    pub(crate) fn first_byte(&self) -> u64 {
        self.offset * self.dtype().size()
    }

    /// Where entry `row` along the first dimension begins in the storage, in bytes, if it is so many floats that lie one
    /// after the other as they do in memory.
    pub(crate) fn place_of_row(&self, row: usize, elements: usize) -> Option<u64> {
        let is_native = self.is_big_endian == cfg!(target_endian = "big");
        let count = *self.shape.first()?;
        (self.dtype() == DType::F32
            && is_native
            && row < count
            && self.elements == count.checked_mul(elements)?)
        .then_some(())?;
        let mut expected = 1;
        for (size, stride) in self.shape.iter().zip(&self.stride).skip(1).rev() {
            if *size > 1 && *stride != expected {
                return None;
            }
            expected *= size;
        }
        Some((self.offset + (row * self.stride[0]) as u64) * self.dtype().size())
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
            if self.is_big_endian {
                bytes.chunks_exact_mut(size as usize).for_each(<[u8]>::reverse);
            }
            T::decode(self.dtype(), bytes, &mut values)?;
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
    fn expanded_views_and_both_byte_orders_are_read() {
        let bytes = [1, 2, 3, 4];
        let expanded = TensorRef::new(storage(4), 1, &[2, 3, 2], &[0, 1, 0]).unwrap();
        let values = [2, 2, 3, 3, 4, 4, 2, 2, 3, 3, 4, 4];
        assert_eq!(expanded.read::<i64>(&bytes[..]).unwrap(), values);

        let shorts = StorageRef { key: "0".into(), dtype: DType::U16, numel: 2 };
        let view = TensorRef::new(shorts, 0, &[2], &[1]).unwrap();
        assert_eq!(view.read::<i64>(&bytes[..]).unwrap(), [0x0201, 0x0403]);
        let view = view.big_endian();
        assert_eq!(view.read::<i64>(&bytes[..]).unwrap(), [0x0102, 0x0304]);
        assert_eq!(view.row(1).read_span::<i64>(&bytes[2..]).unwrap(), [0x0304]);
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
            (0, &[1 << 25], &[0]),
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

//! Element types, and how their bytes become numbers.

use std::io;

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
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// Each type with its name, which torch and numpy share, and the class of torch's storages of it, if there is one.
const TYPES: [(DType, &str, &str); 13] = [
    (DType::F64, "float64", "DoubleStorage"),
    (DType::F32, "float32", "FloatStorage"),
    (DType::F16, "float16", "HalfStorage"),
    (DType::BF16, "bfloat16", "BFloat16Storage"),
    (DType::I64, "int64", "LongStorage"),
    (DType::I32, "int32", "IntStorage"),
    (DType::I16, "int16", "ShortStorage"),
    (DType::I8, "int8", "CharStorage"),
    (DType::U64, "uint64", ""),
    (DType::U32, "uint32", ""),
    (DType::U16, "uint16", ""),
    (DType::U8, "uint8", "ByteStorage"),
    (DType::Bool, "bool", "BoolStorage"),
];

impl DType {
    /// From the class that torch pickles, as in `FloatStorage`.
    pub(crate) fn from_storage_class(class: &str) -> Option<Self> {
        TYPES.iter().find(|(_, _, of)| !of.is_empty() && *of == class).map(|(dtype, ..)| *dtype)
    }

    /// From its name, as in `float32`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|(_, of, _)| *of == name).map(|(dtype, ..)| *dtype)
    }

    /// From numpy's code without the byte order, as in `f4`.
    pub(crate) fn from_numpy(code: &str) -> Option<Self> {
        Some(match code {
            "f8" => Self::F64,
            "f4" => Self::F32,
            "f2" => Self::F16,
            "i8" => Self::I64,
            "i4" => Self::I32,
            "i2" => Self::I16,
            "i1" => Self::I8,
            "u8" => Self::U64,
            "u4" => Self::U32,
            "u2" => Self::U16,
            "u1" => Self::U8,
            "b1" => Self::Bool,
            _ => return None,
        })
    }

    /// The name that torch and numpy give it.
    pub(crate) fn name(self) -> &'static str {
        TYPES.iter().find(|(dtype, ..)| *dtype == self).map_or("", |(_, name, _)| name)
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// A type that tensors can be read as.
pub(crate) trait Element: Copy {
    /// Appends the little-endian elements of `bytes`.
    ///
    /// # Errors
    /// Of the kind [`InvalidData`](io::ErrorKind::InvalidData), if this is an integer type that cannot hold an element:
    /// 0.5, NaN, or a number out of its range. Floats are rounded to the nearest `f32`.
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) -> io::Result<()>;
}

fn extend<const N: usize, T>(out: &mut Vec<T>, bytes: &[u8], from: impl Fn([u8; N]) -> T) -> io::Result<()> {
    out.extend(bytes.as_chunks().0.iter().map(|element| from(*element)));
    Ok(())
}

fn try_extend<const N: usize, T>(
    out: &mut Vec<T>,
    bytes: &[u8],
    from: impl Fn([u8; N]) -> io::Result<T>,
) -> io::Result<()> {
    bytes.as_chunks().0.iter().try_for_each(|element| {
        out.push(from(*element)?);
        Ok(())
    })
}

fn invalid(value: impl std::fmt::Display, expected: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{value} is not {expected}"))
}

impl Element for f32 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) -> io::Result<()> {
        match dtype {
            DType::F64 => extend(out, bytes, |b| f64::from_le_bytes(b) as f32),
            DType::F32 => extend(out, bytes, f32::from_le_bytes),
            DType::F16 => extend(out, bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            DType::BF16 => extend(out, bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            DType::I64 => extend(out, bytes, |b| i64::from_le_bytes(b) as f32),
            DType::I32 => extend(out, bytes, |b| i32::from_le_bytes(b) as f32),
            DType::I16 => extend(out, bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => extend(out, bytes, |b| i8::from_le_bytes(b).into()),
            DType::U64 => extend(out, bytes, |b| u64::from_le_bytes(b) as f32),
            DType::U32 => extend(out, bytes, |b| u32::from_le_bytes(b) as f32),
            DType::U16 => extend(out, bytes, |b| u16::from_le_bytes(b).into()),
            DType::U8 => extend(out, bytes, |[b]: [u8; 1]| b.into()),
            DType::Bool => extend(out, bytes, |[b]: [u8; 1]| f32::from(b != 0)),
        }
    }
}

/// For byte tensors, and others whose elements are integers from 0 to 255.
impl Element for u8 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) -> io::Result<()> {
        if dtype == DType::U8 {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let mut values: Vec<i64> = Vec::new();
        i64::decode(dtype, bytes, &mut values)?;
        values.into_iter().try_for_each(|value| {
            out.push(u8::try_from(value).map_err(|_| invalid(value, "an integer from 0 to 255"))?);
            Ok(())
        })
    }
}

impl Element for i64 {
    fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<Self>) -> io::Result<()> {
        match dtype {
            DType::F64 => try_extend(out, bytes, |b| integer(f64::from_le_bytes(b))),
            DType::F32 => try_extend(out, bytes, |b| integer(f32::from_le_bytes(b).into())),
            DType::F16 => try_extend(out, bytes, |b| integer(half::f16::from_le_bytes(b).into())),
            DType::BF16 => try_extend(out, bytes, |b| integer(half::bf16::from_le_bytes(b).into())),
            DType::I64 => extend(out, bytes, i64::from_le_bytes),
            DType::I32 => extend(out, bytes, |b| i32::from_le_bytes(b).into()),
            DType::I16 => extend(out, bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => extend(out, bytes, |b| i8::from_le_bytes(b).into()),
            DType::U64 => try_extend(out, bytes, |b| {
                let value = u64::from_le_bytes(b);
                i64::try_from(value).map_err(|_| invalid(value, "a signed 64-bit integer"))
            }),
            DType::U32 => extend(out, bytes, |b| u32::from_le_bytes(b).into()),
            DType::U16 => extend(out, bytes, |b| u16::from_le_bytes(b).into()),
            DType::U8 => extend(out, bytes, |[b]: [u8; 1]| b.into()),
            DType::Bool => extend(out, bytes, |[b]: [u8; 1]| i64::from(b != 0)),
        }
    }
}

fn integer(value: f64) -> io::Result<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-BEYOND..BEYOND).contains(&value) {
        Ok(value as i64)
    } else {
        Err(invalid(value, "an integer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_or_refused() {
        let read = |dtype, bytes: &[u8]| {
            let mut values: Vec<i64> = Vec::new();
            i64::decode(dtype, bytes, &mut values).map(|()| values)
        };
        assert_eq!(read(DType::F32, &3.0_f32.to_le_bytes()).unwrap(), [3]);
        assert_eq!(read(DType::U64, &u64::from(u32::MAX).to_le_bytes()).unwrap(), [i64::from(u32::MAX)]);
        assert_eq!(read(DType::U32, &[0xff; 4]).unwrap(), [i64::from(u32::MAX)]);
        assert_eq!(read(DType::U16, &[0xff; 2]).unwrap(), [65_535]);
        for (dtype, bytes) in [
            (DType::U64, &u64::MAX.to_le_bytes()[..]),
            (DType::F64, &0.5_f64.to_le_bytes()),
            (DType::F64, &f64::NAN.to_le_bytes()),
            (DType::F64, &9.3e18_f64.to_le_bytes()),
        ] {
            assert_eq!(read(dtype, bytes).unwrap_err().kind(), io::ErrorKind::InvalidData, "{dtype:?}");
        }
        let mut bytes: Vec<u8> = Vec::new();
        assert!(u8::decode(DType::I16, &[0, 1], &mut bytes).is_err());
        u8::decode(DType::I16, &[255, 0], &mut bytes).unwrap();
        assert_eq!(bytes, [255]);
    }

    #[test]
    fn types_are_found_by_each_of_their_names() {
        for (dtype, name, class) in TYPES {
            assert_eq!((DType::from_name(name), dtype.name()), (Some(dtype), name));
            assert_eq!(DType::from_storage_class(class), Some(dtype).filter(|_| !class.is_empty()));
        }
    }
}

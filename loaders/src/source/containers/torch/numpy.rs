//! numpy's element types, scalars and arrays, from what their pickles hold.

use super::super::tensor::{DType, Element, StorageRef, TensorRef};
use super::object::{Arena, Id, NumpyType, Object};
use super::sizes::sizes;

/// Longest code of a type that is kept.
const MAX_CODE: usize = 16;

/// `numpy.dtype(code, ...)`. Its byte order follows in its state.
pub(super) fn dtype(arena: &Arena, code: Id) -> Object {
    let code = match arena.get(code) {
        Object::Str(code) => code.as_str(),
        // Python 2's text.
        Object::Bytes(code) => std::str::from_utf8(code).unwrap_or_default(),
        // JAX's bfloat16 is a class.
        Object::Global(named) => named.name.rsplit('.').next().unwrap_or_default(),
        _ => "",
    };
    let dtype = if code == "bfloat16" { Some(DType::BF16) } else { DType::from_numpy(code) };
    let code = code.chars().take(MAX_CODE).collect();
    Object::NumpyType(NumpyType { dtype, is_big_endian: false, code })
}

/// The state `(version, byte order, subarray, names, fields, ...)` of a type.
pub(super) fn set_type(arena: &mut Arena, target: Id, state: Id) {
    let Object::Tuple(state) = arena.get(state) else { return };
    let is = |index: usize, text: &str| match state.get(index).map(|id| arena.get(*id)) {
        Some(Object::Str(found)) => found == text,
        Some(Object::Bytes(found)) => found == text.as_bytes(),
        _ => false,
    };
    let is_none = |index: usize| state.get(index).is_none_or(|id| matches!(arena.get(*id), Object::None));
    let (is_big, is_plain) = (is(1, ">"), is_none(2) && is_none(3) && is_none(4));
    if let Object::NumpyType(of) = arena.get_mut(target) {
        of.is_big_endian = is_big;
        of.dtype = of.dtype.filter(|_| is_plain);
    }
}

/// `scalar(dtype, bytes)`
pub(super) fn scalar(arena: &Arena, dtype: Id, bytes: Id) -> Object {
    let Object::NumpyType(of) = arena.get(dtype) else {
        return Object::Opaque("a numpy scalar".into());
    };
    let read = || {
        let Object::Bytes(bytes) = arena.get(bytes) else { return None };
        let dtype = of.dtype.filter(|dtype| dtype.size() == bytes.len() as u64)?;
        let mut bytes = bytes.clone();
        if of.is_big_endian {
            bytes.reverse();
        }
        let (mut floats, mut integers) = (Vec::<f32>::new(), Vec::<i64>::new());
        Some(match dtype {
            DType::F64 => Object::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            DType::Bool => Object::Bool(bytes != [0]),
            dtype if dtype.is_float() => {
                f32::decode(dtype, &bytes, &mut floats).ok()?;
                Object::Float(floats[0].into())
            }
            dtype => {
                i64::decode(dtype, &bytes, &mut integers).ok()?;
                Object::Int(integers[0])
            }
        })
    };
    read().unwrap_or_else(|| Object::Opaque(format!("a numpy scalar of type {}", of.code).into()))
}

/// The state `(version, shape, dtype, is Fortran's order, bytes)` of an array; subclasses add more behind it.
pub(super) fn set_array(arena: &mut Arena, target: Id, state: Id) -> Result<(), String> {
    let parts = match arena.get(state) {
        Object::Tuple(parts) => parts.first_chunk().copied(),
        _ => None,
    };
    let made = match parts {
        Some([_, shape, dtype, order, bytes]) => {
            let is_fortran = matches!(arena.get(order), Object::Bool(true) | Object::Int(1));
            array(arena, bytes, dtype, shape, if is_fortran { Order::Fortran } else { Order::C })?
        }
        None => Object::Opaque("a numpy array of an unknown state".into()),
    };
    *arena.get_mut(target) = made;
    Ok(())
}

/// `_frombuffer(bytes, dtype, shape, order[, axes])`
pub(super) fn from_buffer(arena: &mut Arena, args: [Id; 4], axes: Option<Id>) -> Result<Object, String> {
    let [bytes, dtype, shape, order] = args;
    let order = match (arena.get(order), axes) {
        (Object::Str(order), _) if order == "F" => Order::Fortran,
        (Object::Str(order), Some(axes)) if order == "K" => Order::Axes(sizes(arena, axes)?),
        _ => Order::C,
    };
    array(arena, bytes, dtype, shape, order)
}

/// How the elements of an array follow each other.
enum Order {
    /// The last dimension varies fastest.
    C,
    /// The first does.
    Fortran,
    /// As in C, but of the array whose dimensions these are the places of.
    Axes(Vec<u64>),
}

impl Order {
    /// Shape and strides of an array whose elements lie in this order; `shape` is as it is pickled.
    fn strides(&self, shape: &[u64]) -> Option<Vec<(u64, u64)>> {
        let mut step = 1_u64;
        let of = |size: &u64| {
            let stride = step;
            step = step.checked_mul((*size).max(1))?;
            Some((*size, stride))
        };
        if let Self::Fortran = self {
            return shape.iter().map(of).collect();
        }
        let mut strides = shape.iter().rev().map(of).collect::<Option<Vec<_>>>()?;
        strides.reverse();
        let Self::Axes(axes) = self else { return Some(strides) };
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        let is_whole = sorted.iter().copied().eq(0..shape.len() as u64);
        is_whole.then(|| axes.iter().map(|axis| strides[*axis as usize]).collect())
    }
}

fn array(arena: &mut Arena, bytes: Id, dtype: Id, shape: Id, order: Order) -> Result<Object, String> {
    let Object::NumpyType(of) = arena.get(dtype) else {
        return Ok(Object::Opaque("a numpy array of an unknown type".into()));
    };
    let Some(dtype) = of.dtype else {
        let what = match &*of.code {
            "O8" | "O4" => "a numpy array of Python objects".to_owned(),
            code => format!("a numpy array of type {code}"),
        };
        return Ok(Object::Opaque(what.into()));
    };
    let is_big_endian = of.is_big_endian;
    let length = match arena.get(bytes) {
        Object::Bytes(bytes) => bytes.len() as u64,
        Object::Blob(blob) => blob.length,
        _ => return Ok(Object::Opaque("a numpy array whose data is not in the file".into())),
    };
    let shape = sizes(arena, shape)?;
    let size = shape.iter().try_fold(dtype.size(), |product, size| product.checked_mul(*size));
    if size != Some(length) {
        // Damage matters to whoever reads this array.
        let name = dtype.name();
        let what = format!("a damaged numpy array: {length} bytes for {name} and shape {shape:?}");
        return Ok(Object::Opaque(what.into()));
    }
    let storage = StorageRef { key: arena.storage_key(bytes, 0), dtype, numel: length / dtype.size() };
    let layout = order.strides(&shape).ok_or("a numpy array of a layout that does not exist")?;
    let (shape, stride): (Vec<u64>, Vec<u64>) = layout.into_iter().unzip();
    Ok(match TensorRef::new(storage, 0, &shape, &stride) {
        Ok(tensor) => Object::Tensor(Box::new(if is_big_endian { tensor.big_endian() } else { tensor })),
        Err(what) => Object::Opaque(what.into()),
    })
}

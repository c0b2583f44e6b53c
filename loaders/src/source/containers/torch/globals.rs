//! The functions and classes that a torch file may name, and what calling them gives.
//!
//! Each is carried out here, in Rust; there is no way from a pickle to any other code.

use super::super::tensor::{DType, StorageRef, TensorRef};
use super::object::{Id, Object};

/// Longest storage key, and most dimensions (torch's own bound): each tensor copies them, so they must not be
/// large.
const MAX_COPIED: usize = 64;

/// Longest code of a numpy type that is kept.
const MAX_CODE: usize = 8;

/// An allowed `GLOBAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(DType),
    /// `collections.OrderedDict()`
    OrderedDict,
    /// `argparse.Namespace()`: the settings of a training, beside its weights.
    Namespace,
    /// `numpy.core.multiarray.scalar(dtype, bytes)`: integers and floats are read.
    Scalar,
    /// `numpy.dtype(code, align, copy)`
    Dtype,
    /// `_codecs.encode(text, 'latin1')`: how protocol 2 spells bytes.
    Encode,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Result<Self, String> {
        let known = match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", class) => DType::from_storage_class(class).map(Self::Storage),
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("argparse", "Namespace") => Some(Self::Namespace),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Some(Self::Scalar),
            ("numpy", "dtype") => Some(Self::Dtype),
            ("_codecs", "encode") => Some(Self::Encode),
            _ => None,
        };
        known.ok_or_else(|| {
            let name: String = format!("{module}.{name}").chars().take(100).collect();
            format!("refuses `{name}`: not something that torch.save writes for tensors")
        })
    }
}

/// What a call gives.
pub(super) enum Outcome {
    New(Object),
    /// One of the arguments, unchanged.
    Same(Id),
}

/// `function(*args)`.
pub(super) fn call(objects: &[Object], function: Global, args: &[Id]) -> Result<Outcome, String> {
    let object = |i: usize| args.get(i).map(|id| &objects[id.0 as usize]);
    let new = match (function, args.len()) {
        (Global::RebuildTensor, 6 | 7) => {
            let (Some(Object::Storage(storage)), Some(Object::Int(offset))) = (object(0), object(1)) else {
                return Err("a tensor without storage and offset".into());
            };
            let offset = u64::try_from(*offset).map_err(|_| format!("a tensor of offset {offset}"))?;
            let (shape, stride) = (sizes(objects, args[2])?, sizes(objects, args[3])?);
            Object::Tensor(Box::new(TensorRef::new((**storage).clone(), offset, &shape, &stride)?))
        }
        (Global::RebuildParameter, 3) if matches!(object(0), Some(Object::Tensor(_))) => {
            return Ok(Outcome::Same(args[0]));
        }
        (Global::OrderedDict, 0) => Object::Dict(Vec::new()),
        (Global::Namespace, 0) => Object::Opaque("a namespace"),
        (Global::Dtype, 3) => match object(0) {
            Some(Object::Str(code)) if code.len() <= MAX_CODE => Object::Dtype(code.clone()),
            _ => Object::Opaque("a dtype"),
        },
        // Other texts than latin-1's bytes come from no numpy.
        (Global::Encode, 2) => match object(0) {
            Some(Object::Str(text)) if text.len() <= MAX_COPIED => {
                let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                bytes.map_or(Object::Opaque("bytes"), Object::Bytes)
            }
            _ => Object::Opaque("bytes"),
        },
        (Global::Scalar, 2) => scalar(object(0), object(1)),
        (_, count) => {
            return Err(format!("a call of {function:?} with {count} arguments that it does not take"));
        }
    };
    Ok(Outcome::New(new))
}

/// A numpy scalar of a kind that is read, in the little-endian order of every machine that torch runs on.
fn scalar(dtype: Option<&Object>, bytes: Option<&Object>) -> Object {
    if let (Some(Object::Dtype(code)), Some(Object::Bytes(bytes))) = (dtype, bytes)
        && let Ok(eight) = <[u8; 8]>::try_from(bytes.as_slice())
    {
        match code.as_str() {
            "i8" => return Object::Int(i64::from_le_bytes(eight)),
            "f8" => return Object::Float(f64::from_le_bytes(eight)),
            _ => {}
        }
    }
    Object::Opaque("a numpy scalar")
}

/// `object.__setstate__(state)`: that of a numpy dtype, and the attributes that torch gives an `OrderedDict`,
/// mean nothing here.
pub(super) fn build(target: &Object) -> Result<(), String> {
    match target {
        Object::Dict(_) | Object::Dtype(_) | Object::Opaque(_) => Ok(()),
        _ => Err("a state set on an object that takes none".into()),
    }
}

/// The storage that a persistent id `('storage', class, key, location, numel[, view])` names.
pub(super) fn storage(objects: &[Object], id: Id) -> Result<Object, String> {
    let Object::Tuple(items) = &objects[id.0 as usize] else {
        return Err("a persistent id that is no tuple".into());
    };
    let object = |i: usize| items.get(i).map(|id| &objects[id.0 as usize]);
    let (
        Some(Object::Str(kind)),
        Some(Object::Global(Global::Storage(dtype))),
        Some(Object::Str(key)),
        Some(Object::Int(numel)),
    ) = (object(0), object(1), object(2), object(4))
    else {
        return Err("a persistent id that is no storage".into());
    };
    if kind != "storage" || key.len() > MAX_COPIED {
        return Err("a persistent id that is no storage".into());
    }
    if !matches!(object(5), None | Some(Object::None)) {
        return Err("a view of a storage, as torch before 1.0 wrote them: save the file again".into());
    }
    let numel = u64::try_from(*numel).map_err(|_| format!("a storage of {numel} elements"))?;
    Ok(Object::Storage(Box::new(StorageRef { key: key.clone(), dtype: *dtype, numel })))
}

fn sizes(objects: &[Object], id: Id) -> Result<Vec<u64>, String> {
    let Object::Tuple(items) = &objects[id.0 as usize] else {
        return Err("a tensor whose size or stride is no tuple".into());
    };
    if items.len() > MAX_COPIED {
        return Err(format!("a tensor of {} dimensions", items.len()));
    }
    let size = |id: &Id| match &objects[id.0 as usize] {
        Object::Int(n) => u64::try_from(*n).map_err(|_| format!("a tensor of size or stride {n}")),
        _ => Err("a tensor whose size or stride is no integer".into()),
    };
    items.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_globals_are_refused_by_name() {
        let refused = Global::find("os", "system").unwrap_err();
        assert_eq!(refused, "refuses `os.system`: not something that torch.save writes for tensors");
        assert!(Global::find("torch", "load").is_err());
        assert!(Global::find("torch", "ComplexFloatStorage").is_err());
    }
}

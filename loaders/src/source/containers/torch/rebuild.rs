//! torch's storages and tensors, from what their pickles hold.

use super::super::tensor::{DType, StorageRef, TensorRef};
use super::names::Global;
use super::nested;
use super::object::{Arena, Elements, IN_BYTES, Id, Object, Stored};
use super::sizes::sizes;

/// Longest storage key: each tensor copies it.
const MAX_KEY: usize = 64;

/// What a persistent id means: `('storage', class, key, location, numel[, view])` is a storage, and
/// `('module', class, file, source)`, of the legacy container, a class.
pub(super) fn persistent(arena: &mut Arena, id: Id) -> Result<Id, String> {
    let items = match arena.get(id) {
        Object::Tuple(items) => items.iter().take(6).copied().collect(),
        _ => Vec::new(),
    };
    let kind = match items.first().map(|id| arena.get(*id)) {
        Some(Object::Str(kind)) => kind.as_str(),
        Some(Object::Bytes(kind)) => std::str::from_utf8(kind).unwrap_or_default(),
        _ => "",
    };
    match (kind, items.as_slice()) {
        ("storage", [_, class, key, _, numel, view @ ..]) => {
            if view.first().is_some_and(|view| !matches!(arena.get(*view), Object::None)) {
                return Err("a view of a storage, as torch before 1.0 wrote them: save the file again".into());
            }
            let stored = storage(arena, *class, *key, *numel)?;
            arena.push(Object::Storage(Box::new(stored)))
        }
        ("module", [_, class, ..]) => Ok(*class),
        _ => arena.opaque("an object that is not in this file"),
    }
}

fn storage(arena: &Arena, class: Id, key: Id, numel: Id) -> Result<Stored, String> {
    let Object::Global(class) = arena.get(class) else { return Err("a storage without a class".into()) };
    let key = match arena.get(key) {
        Object::Str(key) if key.len() <= MAX_KEY && !key.starts_with(IN_BYTES) => key.clone(),
        _ => return Err("a storage without a key".into()),
    };
    let numel = match arena.get(numel) {
        Object::Int(numel) => u64::try_from(*numel).map_err(|_| format!("a storage of {numel} elements"))?,
        _ => return Err("a storage without a size".into()),
    };
    Ok(Stored { key, numel, elements: elements(class.global) })
}

fn elements(class: Global) -> Elements {
    match class {
        Global::Storage(dtype) => Elements::Of(dtype),
        Global::UntypedStorage => Elements::Untyped,
        Global::OtherStorage(name, size) => Elements::Other(name, Some(size)),
        _ => Elements::Other("unknown", None),
    }
}

/// The storage that `_load_from_bytes(bytes)` finds.
pub(super) fn from_bytes(arena: &mut Arena, bytes: Id) -> Option<Object> {
    let found = match arena.get(bytes) {
        Object::Bytes(bytes) => nested::storage(bytes, bytes.len() as u64),
        Object::Blob(blob) => nested::storage(&blob.head, blob.length),
        _ => None,
    };
    let found = found?;
    let key = arena.storage_key(bytes, found.data);
    Some(Object::Storage(Box::new(Stored { key, numel: found.numel, elements: elements(found.class) })))
}

/// Whether the values of a tensor with this metadata are not those in its storage.
pub(super) fn is_changed(arena: &Arena, metadata: Id) -> bool {
    let Object::Dict(entries) = arena.get(metadata) else { return false };
    let is_true = |id: Id| !matches!(arena.get(id), Object::Bool(false) | Object::None);
    let is_view = |id: Id| matches!(arena.get(id), Object::Str(key) if key == "neg" || key == "conj");
    entries.iter().any(|(key, value)| is_view(*key) && is_true(*value))
}

/// A view of a storage; of untyped ones, `dtype` says what their bytes are.
pub(super) fn tensor(
    arena: &mut Arena,
    [storage, offset, shape, stride]: [Id; 4],
    dtype: Option<Id>,
) -> Result<Object, String> {
    let stored = match arena.get(storage) {
        Object::Storage(stored) => stored,
        Object::Instance(_) => return Ok(Object::Opaque("a tensor of an unknown storage".into())),
        _ => return Ok(Object::Opaque("a tensor whose data is not in this file".into())),
    };
    let other = |name: &str| Ok(Object::Opaque(format!("a tensor of {name} numbers").into()));
    let named = dtype.map(|dtype| match arena.get(dtype) {
        Object::Global(named) => named.name.strip_prefix("torch.").unwrap_or(&named.name),
        _ => "unknown",
    });
    let dtype = match (stored.elements, named) {
        (Elements::Other(name, _), _) => return other(name),
        (Elements::Of(dtype), None) => dtype,
        (Elements::Untyped, None) => DType::U8,
        (_, Some(name)) => match DType::from_name(name) {
            Some(dtype) => dtype,
            None => return other(name.get(..MAX_KEY).unwrap_or(name)),
        },
    };
    let key = stored.key.clone();
    let numel = stored.bytes().map_or(0, |bytes| bytes / dtype.size());
    let Object::Int(offset) = *arena.get(offset) else { return Err("a tensor without an offset".into()) };
    let offset = u64::try_from(offset).map_err(|_| format!("a tensor of offset {offset}"))?;
    arena.charge(key.len())?;
    let (shape, stride) = (sizes(arena, shape)?, sizes(arena, stride)?);
    let is_big_endian = arena.is_big_endian;
    // Damage matters to whoever reads this tensor.
    Ok(match TensorRef::new(StorageRef { key, dtype, numel }, offset, &shape, &stride) {
        Ok(tensor) => Object::Tensor(Box::new(if is_big_endian { tensor.big_endian() } else { tensor })),
        Err(what) => Object::Opaque(what.into()),
    })
}

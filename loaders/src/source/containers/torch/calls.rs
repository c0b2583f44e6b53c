//! What the calls of a pickle give. Each that means something is carried out here, in Rust; all others give an object that
//! knows its class and nothing else. There is no way from a pickle to any other code.

use super::names::Global;
use super::object::{Arena, Id, Instance, Object};
use super::{numpy, rebuild};

/// Most arguments that a function is looked at for.
const MAX_ARGS: usize = 8;
/// Longest name of a class in a class.
const MAX_NAME: usize = 1 << 10;

/// `function(*args)`; `is_new` if it is `function.__new__`, of a class.
pub(super) fn call(arena: &mut Arena, function: Id, args: Id, is_new: bool) -> Result<Id, String> {
    let Object::Tuple(items) = arena.get(args) else {
        return Err("a call without a tuple of arguments".into());
    };
    let items: Vec<Id> = items.iter().take(MAX_ARGS).copied().collect();
    let (global, class) = match arena.get(function) {
        Object::Global(named) => (named.global, function),
        // A class that another call gave, as nested ones are.
        Object::Instance(of) => (Global::Other, of.class),
        Object::Opaque(_) => return Ok(function),
        _ => return Err("a call of something that is not a function".into()),
    };
    match (global, items.as_slice()) {
        (Global::RebuildTensor, [_, _, _, _, _, _, metadata, ..])
        | (Global::RebuildTensorV3, [_, _, _, _, _, _, _, metadata, ..])
            if rebuild::is_changed(arena, *metadata) =>
        {
            arena.opaque(
                "a tensor whose values are negated or conjugated on access (save `tensor.resolve_neg()`)",
            )
        }
        (Global::RebuildTensor, [storage, offset, shape, stride, ..]) => {
            let tensor = rebuild::tensor(arena, [*storage, *offset, *shape, *stride], None)?;
            arena.push(tensor)
        }
        (Global::RebuildTensorV3, [storage, offset, shape, stride, _, _, dtype, ..]) => {
            let tensor = rebuild::tensor(arena, [*storage, *offset, *shape, *stride], Some(*dtype))?;
            arena.push(tensor)
        }
        // Of no function that does the same, so that this goes no deeper.
        (Global::RebuildFromType, [function, _, args, ..])
            if !is(arena, *function, Global::RebuildFromType) =>
        {
            call(arena, *function, *args, false)
        }
        (Global::First, [first, ..]) => Ok(*first),
        (Global::OtherTensor(what), _) => arena.opaque(what),
        (Global::LoadFromBytes, [bytes]) => match rebuild::from_bytes(arena, *bytes) {
            Some(storage) => arena.push(storage),
            None => instance(arena, class, args, is_new),
        },
        (Global::OrderedDict, []) | (Global::DefaultDict, [] | [_]) => arena.push(Object::Dict(Vec::new())),
        (Global::OrderedDict, [pairs]) => ordered(arena, *pairs, class, args),
        (Global::Set, []) => arena.push(Object::Set(Vec::new())),
        (Global::Set, [items]) => set(arena, *items, class, args),
        (Global::Bytes, []) => arena.push(Object::Bytes(Vec::new())),
        (Global::Bytes | Global::Encode, [text, ..]) => bytes(arena, *text, class, args),
        (Global::GetAttr, [of, name]) => match (arena.get(*of), arena.get(*name)) {
            (Object::Global(of), Object::Str(name)) if of.name.len() + name.len() <= MAX_NAME => {
                let name = format!("{}.{name}", of.name);
                arena.named(name, Global::Other)
            }
            _ => instance(arena, class, args, is_new),
        },
        (Global::Reconstructor, [class, _, content]) if matches!(arena.get(*class), Object::Global(_)) => {
            made(arena, *class, args, true, Some(*content))
        }
        (Global::NumpyType, [code, ..]) => arena.push(numpy::dtype(arena, *code)),
        (Global::NumpyScalar, [dtype, bytes]) => arena.push(numpy::scalar(arena, *dtype, *bytes)),
        (Global::NumpyArray, _) => arena.push(Object::NumpyArray),
        (Global::NumpyBuffer, [bytes, dtype, shape, order, axes @ ..]) => {
            let axes = axes.first().copied();
            let array = numpy::from_buffer(arena, [*bytes, *dtype, *shape, *order], axes)?;
            arena.push(array)
        }
        _ => instance(arena, class, args, is_new),
    }
}

fn is(arena: &Arena, function: Id, global: Global) -> bool {
    matches!(arena.get(function), Object::Global(named) if named.global == global)
}

fn instance(arena: &mut Arena, class: Id, args: Id, is_new: bool) -> Result<Id, String> {
    made(arena, class, args, is_new, None)
}

fn made(arena: &mut Arena, class: Id, args: Id, is_new: bool, content: Option<Id>) -> Result<Id, String> {
    let (items, entries) = (Vec::new(), Vec::new());
    let instance = Instance { class, args, is_new, content, state: None, items, entries };
    arena.push(Object::Instance(Box::new(instance)))
}

/// `OrderedDict(pairs)`, as Python 2 wrote it.
fn ordered(arena: &mut Arena, pairs: Id, class: Id, args: Id) -> Result<Id, String> {
    let (Object::List(pairs) | Object::Tuple(pairs)) = arena.get(pairs) else {
        return instance(arena, class, args, false);
    };
    let pair = |id: &Id| match arena.get(*id) {
        Object::List(pair) | Object::Tuple(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
        _ => None,
    };
    let count = pairs.len();
    let entries: Option<Vec<(Id, Id)>> =
        pairs.iter().map(|id| pair(id).map(|[key, value]| (key, value))).collect();
    arena.charge(count)?;
    match entries {
        Some(entries) => arena.push(Object::Dict(entries)),
        None => instance(arena, class, args, false),
    }
}

/// `set(list)`, as protocols below 4 write it.
fn set(arena: &mut Arena, items: Id, class: Id, args: Id) -> Result<Id, String> {
    match arena.get(items) {
        Object::List(items) | Object::Tuple(items) => {
            let items = items.clone();
            arena.charge(items.len())?;
            arena.push(Object::Set(items))
        }
        _ => instance(arena, class, args, false),
    }
}

/// The bytes of a text in Latin-1, or bytes as they are.
fn bytes(arena: &mut Arena, text: Id, class: Id, args: Id) -> Result<Id, String> {
    let (length, bytes) = match arena.get(text) {
        Object::Bytes(_) | Object::Blob(_) => return Ok(text),
        Object::Str(text) => (text.len(), text.chars().map(|c| u8::try_from(u32::from(c))).collect()),
        _ => return instance(arena, class, args, false),
    };
    arena.charge(length)?;
    match bytes {
        Ok(bytes) => arena.push(Object::Bytes(bytes)),
        // No writer spells bytes by other letters.
        Err(_) => instance(arena, class, args, false),
    }
}

/// `target.__setstate__(state)`. What means nothing to an object, as the attributes of a dict or a tensor, is left out.
pub(super) fn build(arena: &mut Arena, target: Id, state: Id) -> Result<(), String> {
    match arena.get_mut(target) {
        Object::Instance(instance) => instance.state = Some(state),
        Object::NumpyType(_) => numpy::set_type(arena, target, state),
        Object::NumpyArray => numpy::set_array(arena, target, state)?,
        _ => {}
    }
    Ok(())
}

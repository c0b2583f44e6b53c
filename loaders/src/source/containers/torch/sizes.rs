//! Shapes and strides in a pickle.

use super::object::{Arena, Id, Object};

/// Most dimensions, torch's own bound: each tensor copies them.
const MAX_DIMENSIONS: usize = 64;

/// The sizes that a tuple or a list holds.
pub(super) fn sizes(arena: &mut Arena, id: Id) -> Result<Vec<u64>, String> {
    let count = match arena.get(id) {
        Object::Tuple(items) | Object::List(items) if items.len() <= MAX_DIMENSIONS => items.len(),
        Object::Tuple(items) | Object::List(items) => {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        // numpy writes a single size as it is.
        Object::Int(size) => return u64::try_from(*size).map(|size| vec![size]).map_err(|_| negative(*size)),
        _ => return Err("a tensor whose size or stride is not a tuple".into()),
    };
    arena.charge(count)?;
    let (Object::Tuple(items) | Object::List(items)) = arena.get(id) else { return Ok(Vec::new()) };
    let size = |id: &Id| match arena.get(*id) {
        Object::Int(n) => u64::try_from(*n).map_err(|_| negative(*n)),
        _ => Err("a tensor whose size or stride is not an integer".into()),
    };
    items.iter().map(size).collect()
}

fn negative(size: i64) -> String {
    format!("a tensor of size or stride {size}")
}

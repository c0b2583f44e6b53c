//! What a pickle holds: a flat arena of objects that name each other by index, and a view to walk it.

use super::super::tensor::{StorageRef, TensorRef};
use super::globals::Global;

/// Index of an object in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// One unpickled object.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Tensor(Box<TensorRef>),
    /// numpy's type of this code, as in `i8`.
    Dtype(String),
    /// Of this kind (with an article), and of no use to any format.
    Opaque(&'static str),
    Global(Global),
    Storage(Box<StorageRef>),
}

/// The objects of one pickle. Sharing and cycles are kept as they are, so walking it must not recurse without
/// a bound.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(super) objects: Vec<Object>,
    pub(super) root: Id,
}

impl Pickle {
    pub(crate) fn root(&self) -> Value<'_> {
        Value { objects: &self.objects, id: self.root }
    }

    /// The storages that tensors refer to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }
}

/// One object of a pickle, and through it those that it contains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    objects: &'a [Object],
    id: Id,
}

impl<'a> Value<'a> {
    fn object(self) -> &'a Object {
        &self.objects[self.id.0 as usize]
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// Its Python type, with an article.
    pub(crate) fn kind(self) -> &'static str {
        match self.object() {
            Object::None => "None",
            Object::Bool(_) => "a bool",
            Object::Int(_) => "an int",
            Object::Float(_) => "a float",
            Object::Str(_) => "a string",
            Object::Bytes(_) => "bytes",
            Object::Dtype(_) => "a dtype",
            Object::List(_) => "a list",
            Object::Tuple(_) => "a tuple",
            Object::Dict(_) => "a dict",
            Object::Tensor(_) => "a tensor",
            Object::Opaque(kind) => kind,
            Object::Global(_) => "a function",
            Object::Storage(_) => "a storage",
        }
    }

    /// The entry of a dict under a string key.
    pub(crate) fn get(self, key: &str) -> Option<Self> {
        let Object::Dict(entries) = self.object() else { return None };
        let entry = entries.iter().rev().find(|(k, _)| self.at(*k).as_str() == Some(key));
        entry.map(|(_, value)| self.at(*value))
    }

    /// The entries of a dict under keys that are strings; of entries under one key, the last counts.
    pub(crate) fn entries(self) -> Option<impl Iterator<Item = (&'a str, Self)>> {
        let Object::Dict(entries) = self.object() else { return None };
        Some(entries.iter().filter_map(move |(key, value)| Some((self.at(*key).as_str()?, self.at(*value)))))
    }

    /// The keys of a dict that are strings.
    pub(crate) fn keys(self) -> Option<impl Iterator<Item = &'a str>> {
        let Object::Dict(entries) = self.object() else { return None };
        Some(entries.iter().filter_map(move |(key, _)| self.at(*key).as_str()))
    }

    /// The items of a list or a tuple.
    pub(crate) fn items(self) -> Option<impl ExactSizeIterator<Item = Self> + DoubleEndedIterator> {
        match self.object() {
            Object::List(items) | Object::Tuple(items) => Some(items.iter().map(move |id| self.at(*id))),
            _ => None,
        }
    }

    /// The two items of a list or a tuple of two.
    pub(crate) fn pair(self) -> Option<[Self; 2]> {
        let mut items = self.items().filter(|items| items.len() == 2)?;
        Some([items.next()?, items.next()?])
    }

    pub(crate) fn as_tensor(self) -> Option<&'a TensorRef> {
        match self.object() {
            Object::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> Option<&'a str> {
        match self.object() {
            Object::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_none(self) -> bool {
        matches!(self.object(), Object::None)
    }

    pub(crate) fn as_int(self) -> Option<i64> {
        match self.object() {
            Object::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_float(self) -> Option<f64> {
        match self.object() {
            Object::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_bool(self) -> Option<bool> {
        match self.object() {
            Object::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

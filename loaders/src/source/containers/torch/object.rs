//! What a pickle holds: a flat arena of objects that name each other by index.

use super::super::tensor::{DType, Place, TensorRef};
use super::names::Global;
use std::collections::{BTreeMap, HashMap};

/// Most objects of a pickle: each costs far more memory than its byte or two in a hostile file.
pub(super) const MAX_OBJECTS: usize = 1 << 22;
/// Most functions and classes that a pickle may name: real ones name some dozens.
const MAX_GLOBALS: usize = 1 << 12;
/// What calls may copy of what was read, in elements or bytes: a sound file has every byte copied once at most, but one
/// that calls a function again and again on the same long list would grow without it.
const MOST_COPIED: u64 = 16;
/// As much is copied in any case.
const ALWAYS_COPIED: u64 = 1 << 12;

/// Index of an object in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Long bytes, which stay in the file.
    Blob(Box<Blob>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Tensor(Box<TensorRef>),
    Storage(Box<Stored>),
    NumpyType(NumpyType),
    /// An array of numpy's before its state is set.
    NumpyArray,
    Global(Box<Named>),
    Instance(Box<Instance>),
    /// Nothing that can be read, and what it is, with an article.
    Opaque(Box<str>),
}

/// Bytes from `start` to `start + length` of the file.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) start: u64,
    pub(super) length: u64,
    /// What it begins with.
    pub(super) head: Vec<u8>,
}

/// A function or a class.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) global: Global,
    /// With its module, as in `torch.nn.modules.linear.Linear`.
    pub(super) name: String,
}

/// An object of a class that means nothing here, or what a function gave that does.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its class, or the function: a [`Named`].
    pub(super) class: Id,
    /// The tuple that it was made from.
    pub(super) args: Id,
    /// Whether it is known to be an object of the class.
    pub(super) is_new: bool,
    /// The list, dict or tuple that an object of a class derived from one of these was made from.
    pub(super) content: Option<Id>,
    pub(super) state: Option<Id>,
    /// What was appended or added to it.
    pub(super) items: Vec<Id>,
    /// What was set in it by key.
    pub(super) entries: Vec<(Id, Id)>,
}

/// A storage that a persistent id names.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) numel: u64,
    pub(super) elements: Elements,
}

/// What a storage holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Elements {
    Of(DType),
    /// Bytes of numbers whose type the tensor knows.
    Untyped,
    /// Numbers that are not read, by name, with their size if it is known.
    Other(&'static str, Option<u64>),
}

impl Stored {
    /// Its size in bytes, if that is known and a number.
    pub(super) fn bytes(&self) -> Option<u64> {
        let size = match self.elements {
            Elements::Of(dtype) => dtype.size(),
            Elements::Untyped => 1,
            Elements::Other(_, size) => size?,
        };
        self.numel.checked_mul(size)
    }
}

/// An element type of numpy's.
#[derive(Debug)]
pub(super) struct NumpyType {
    /// None if such elements are not read.
    pub(super) dtype: Option<DType>,
    pub(super) is_big_endian: bool,
    /// As in `f4`.
    pub(super) code: Box<str>,
}

/// The objects of a pickle while they are made.
#[derive(Debug)]
pub(super) struct Arena {
    objects: Vec<Object>,
    globals: HashMap<String, Id>,
    copied: u64,
    /// Bytes of the pickle that were read so far.
    pub(super) read: u64,
    /// Whether torch's storages have their most significant byte first.
    pub(super) is_big_endian: bool,
    /// The bytes that are storages, from this place on.
    viewed: BTreeMap<Id, u64>,
}

/// None, False, True and the integers 0 to 255 are there once, whatever names them: labels may be lists of millions.
const SHARED: usize = 3 + 256;

impl Arena {
    pub(super) fn new(is_big_endian: bool) -> Self {
        let mut objects = vec![Object::None, Object::Bool(false), Object::Bool(true)];
        objects.extend((0..256).map(Object::Int));
        let (globals, viewed) = (HashMap::new(), BTreeMap::new());
        Self { objects, globals, copied: 0, read: 0, is_big_endian, viewed }
    }

    pub(super) fn get(&self, id: Id) -> &Object {
        &self.objects[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id.0 as usize]
    }

    pub(super) fn push(&mut self, object: Object) -> Result<Id, String> {
        match object {
            Object::None => return Ok(Id(0)),
            Object::Bool(value) => return Ok(Id(1 + u32::from(value))),
            Object::Int(value @ 0..256) => return Ok(Id(3 + value as u32)),
            _ => {}
        }
        if self.objects.len() >= MAX_OBJECTS + SHARED {
            return Err(format!(
                "more than {MAX_OBJECTS} objects: save arrays or tensors, not lists of numbers"
            ));
        }
        let id = Id(self.objects.len() as u32);
        self.objects.push(object);
        Ok(id)
    }

    /// Something that cannot be read: `what`, with an article.
    pub(super) fn opaque(&mut self, what: impl Into<Box<str>>) -> Result<Id, String> {
        self.push(Object::Opaque(what.into()))
    }

    /// A function or class, which is the same object however often it is named.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<Id, String> {
        self.named(format!("{module}.{name}"), Global::find(module, name))
    }

    /// As [`global`](Self::global), by the whole name.
    pub(super) fn named(&mut self, name: String, global: Global) -> Result<Id, String> {
        if let Some(id) = self.globals.get(&name) {
            return Ok(*id);
        }
        if self.globals.len() >= MAX_GLOBALS {
            return Err(format!("more than {MAX_GLOBALS} functions and classes"));
        }
        let id = self.push(Object::Global(Box::new(Named { global, name: name.clone() })))?;
        self.globals.insert(name, id);
        Ok(id)
    }

    /// Counts what is about to be copied.
    pub(super) fn charge(&mut self, elements: usize) -> Result<(), String> {
        self.copied = self.copied.saturating_add(elements as u64);
        if self.copied > ALWAYS_COPIED + self.read.saturating_mul(MOST_COPIED) {
            return Err(format!("far more data than its {} bytes hold", self.read));
        }
        Ok(())
    }

    /// The key of the storage that these bytes are, from `start` on.
    pub(super) fn storage_key(&mut self, bytes: Id, start: u64) -> String {
        self.viewed.insert(bytes, start);
        format!("{IN_BYTES}{}", bytes.0)
    }

    /// The pickle whose object is `root`, and where the data of its arrays lies.
    pub(super) fn finish(mut self, root: Id) -> Pickle {
        let mut places = HashMap::new();
        for (id, from) in self.viewed {
            let object = &mut self.objects[id.0 as usize];
            let place = match object {
                // Python has one object for all bytes that are empty or one byte.
                Object::Bytes(bytes) if bytes.len() < 2 => Place::InMemory(bytes.clone()),
                Object::Bytes(bytes) => {
                    let place = Place::InMemory(bytes.split_off(bytes.len().min(from as usize)));
                    *object = Object::Opaque("bytes".into());
                    place
                }
                Object::Blob(blob) => {
                    let bytes = blob.length.saturating_sub(from);
                    Place::InFile { start: blob.start + from, bytes, crc32: None }
                }
                _ => continue,
            };
            places.insert(format!("{IN_BYTES}{}", id.0), place);
        }
        self.objects.shrink_to_fit();
        Pickle { objects: self.objects, root, places }
    }
}

/// What the keys of storages in bytes begin with, and no key of torch's does.
pub(super) const IN_BYTES: char = '#';

/// The objects of one pickle. Sharing and cycles are kept as they are, so walking it must not recurse without
/// a bound.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(super) objects: Vec<Object>,
    pub(super) root: Id,
    /// Of the storages that are bytes of the pickle: numpy's arrays, and what `pickle.dump` wrote of tensors.
    pub(super) places: HashMap<String, Place>,
}

impl Pickle {
    /// The storages that tensors refer to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Stored> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }
}

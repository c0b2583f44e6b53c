//! One object of a pickle, and through it those that it contains.

use super::super::tensor::TensorRef;
use super::object::{Id, Instance, Object, Pickle};

/// Longest list that a `range` stands for.
const LONGEST_RANGE: i64 = 1 << 24;

impl Pickle {
    pub(crate) fn root(&self) -> Value<'_> {
        Value { objects: &self.objects, id: self.root }
    }
}

/// One object of a pickle. What it is can be asked in many ways; each answers `None` where it does not apply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    objects: &'a [Object],
    id: Id,
}

impl<'a> Value<'a> {
    pub(super) fn object(self) -> &'a Object {
        &self.objects[self.id.0 as usize]
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    fn instance(self) -> Option<&'a Instance> {
        match self.object() {
            Object::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    /// Its Python type, with an article. [`describe`](Self::describe) says more.
    pub(crate) fn kind(self) -> &'static str {
        match self.object() {
            Object::None => "None",
            Object::Bool(_) => "a bool",
            Object::Int(_) => "an int",
            Object::Float(_) => "a float",
            Object::Str(_) => "a string",
            Object::Bytes(_) | Object::Blob(_) => "bytes",
            Object::List(_) => "a list",
            Object::Tuple(_) => "a tuple",
            Object::Set(_) => "a set",
            Object::Dict(_) => "a dict",
            Object::Tensor(_) => "a tensor",
            Object::Storage(_) => "a storage",
            Object::NumpyType(_) => "a numpy dtype",
            Object::NumpyArray => "a numpy array",
            Object::Global(_) => "a function or class",
            Object::Instance(_) | Object::Opaque(_) => "an object",
        }
    }

    /// The class of an object that is not read, as in `torch.utils.data.dataset.TensorDataset`, or the function that made
    /// it; of a function or a class itself, its name.
    pub(crate) fn class(self) -> Option<&'a str> {
        let class = match self.object() {
            Object::Instance(instance) => self.at(instance.class).object(),
            object => object,
        };
        match class {
            Object::Global(named) => Some(&named.name),
            _ => None,
        }
    }

    /// Whether nothing but its class or kind can be known of it.
    pub(crate) fn is_opaque(self) -> bool {
        matches!(
            self.object(),
            Object::Instance(_) | Object::Opaque(_) | Object::Global(_) | Object::NumpyArray
        )
    }

    /// An attribute of an object, as `dataset.tensors`.
    pub(crate) fn attribute(self, name: &str) -> Option<Self> {
        self.attributes()?.filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    /// The attributes of an object that is not read, by their names.
    pub(crate) fn attributes(self) -> Option<impl Iterator<Item = (&'a str, Self)>> {
        let state = self.at(self.instance()?.state?);
        // With slots, the state is a pair of dicts, either of which may be None.
        let dicts = match state.object() {
            Object::Tuple(dicts) if dicts.len() == 2 => [self.at(dicts[0]), self.at(dicts[1])].to_vec(),
            _ => vec![state],
        };
        Some(dicts.into_iter().filter_map(Self::entries).flatten())
    }

    /// What an object that is not read was made from: the arguments of its class or function.
    pub(crate) fn args(self) -> Option<impl ExactSizeIterator<Item = Self> + DoubleEndedIterator> {
        let instance = self.instance()?;
        self.at(instance.content.unwrap_or(instance.args)).items()
    }

    /// An object of a class derived from a list, a dict or a tuple as that.
    fn content(self) -> &'a Object {
        match self.instance().and_then(|instance| instance.content) {
            Some(content) => self.at(content).object(),
            None => self.object(),
        }
    }

    /// Keys and values of a dict, or of an object whose class is derived from it.
    fn pairs(self) -> Option<&'a [(Id, Id)]> {
        match self.content() {
            Object::Dict(entries) => Some(entries),
            Object::Instance(instance) if !instance.entries.is_empty() => Some(&instance.entries),
            _ => None,
        }
    }

    /// The entry of a dict under a key of text or bytes; of entries under one key, the last counts.
    pub(crate) fn get(self, key: &str) -> Option<Self> {
        let entry = self.pairs()?.iter().rev().find(|(k, _)| self.at(*k).as_str() == Some(key));
        entry.map(|(_, value)| self.at(*value))
    }

    /// The entries of a dict under keys of text or bytes; of entries under one key, the last counts.
    pub(crate) fn entries(self) -> Option<impl Iterator<Item = (&'a str, Self)>> {
        let pairs = self.pairs()?.iter();
        Some(pairs.filter_map(move |(key, value)| Some((self.at(*key).as_str()?, self.at(*value)))))
    }

    /// The keys of a dict that are text or bytes.
    pub(crate) fn keys(self) -> Option<impl Iterator<Item = &'a str>> {
        Some(self.entries()?.map(|(key, _)| key))
    }

    /// The items of a list, a tuple or a set, or of an object whose class is derived from a list.
    pub(crate) fn items(self) -> Option<impl ExactSizeIterator<Item = Self> + DoubleEndedIterator> {
        let items = match self.content() {
            Object::List(items) | Object::Tuple(items) | Object::Set(items) => items,
            Object::Instance(instance) if !instance.items.is_empty() => &instance.items,
            _ => return None,
        };
        Some(items.iter().map(move |id| self.at(*id)))
    }

    /// The two items of a list or a tuple of two.
    pub(crate) fn pair(self) -> Option<[Self; 2]> {
        let mut items = self.items().filter(|items| items.len() == 2)?;
        Some([items.next()?, items.next()?])
    }

    /// A tensor of torch's or an array of numpy's.
    pub(crate) fn as_tensor(self) -> Option<&'a TensorRef> {
        match self.object() {
            Object::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Text, or bytes that are text: Python 2 had one type for both.
    pub(crate) fn as_str(self) -> Option<&'a str> {
        match self.object() {
            Object::Str(text) => Some(text),
            Object::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Bytes, of fewer than 4096: longer ones stay in the file, and are read as arrays alone.
    #[allow(dead_code, reason = "for formats that have text or encoded images as bytes")]
    pub(crate) fn as_bytes(self) -> Option<&'a [u8]> {
        match self.object() {
            Object::Bytes(bytes) => Some(bytes),
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

    /// A float, or an integer as one.
    pub(crate) fn as_float(self) -> Option<f64> {
        match self.object() {
            Object::Float(value) => Some(*value),
            Object::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    #[allow(dead_code, reason = "for formats with switches")]
    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.object() {
            Object::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The integers of a list, a tuple, a set or a `range`, if it holds nothing else.
    pub(crate) fn integers(self) -> Option<Vec<i64>> {
        if let Some(items) = self.items() {
            return items.map(Self::as_int).collect();
        }
        let is_range = matches!(self.class(), Some("builtins.range" | "__builtin__.xrange"));
        let args: Vec<i64> = self.args().filter(|_| is_range)?.map(Self::as_int).collect::<Option<_>>()?;
        let [start, stop, step] = <[i64; 3]>::try_from(args).ok()?;
        let end = |value: i64| if step > 0 { value < stop } else { value > stop };
        let count = i128::from(stop) - i128::from(start);
        if step == 0 || count / i128::from(step) > i128::from(LONGEST_RANGE) {
            return None;
        }
        Some(
            std::iter::successors(Some(start), |value| value.checked_add(step))
                .take_while(|v| end(*v))
                .collect(),
        )
    }
}

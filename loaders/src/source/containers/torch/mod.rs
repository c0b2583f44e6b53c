//! Reads the files of `torch.save` and `pickle.dump` without torch and without executing them.
//!
//! [`open`] reads the object; a tensor's data is read when it is asked for.

mod calls;
mod dataset;
mod file;
mod input;
mod legacy;
mod names;
mod nested;
mod numpy;
mod object;
mod pickle;
mod plain;
mod rebuild;
mod sizes;
mod state_dict;
mod text;
mod value;
mod words;
mod zip;

pub(crate) use dataset::{Rows, rows};
pub(crate) use file::{is_pickle, is_torch, open};
pub(crate) use object::Pickle;
pub use state_dict::StateDict;
pub(crate) use value::Value;
pub(crate) use words::{tensor, unexpected};

#[cfg(test)]
mod tests;

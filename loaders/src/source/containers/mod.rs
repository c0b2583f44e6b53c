//! Files that hold named tensors or entries, read without an idea of distillation.

pub(crate) mod archive;
pub(crate) mod arrow;
mod arrow_body;
mod bytes;
mod listing;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod parquet;
pub(crate) mod picture;
pub(crate) mod safetensors;
pub(crate) mod table;
pub(crate) mod tar;
pub(crate) mod tensor;
pub(crate) mod torch;
pub(crate) mod zip;

//! Files that hold named tensors or entries, read without an idea of distillation.

pub(crate) mod npz;
pub(crate) mod tensor;
pub(crate) mod torch;

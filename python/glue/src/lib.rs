//! What both Python extensions of diver share.
//!
//! - [`errors`]: the engine's errors as exceptions of the package `diver`;
//! - [`messages`]: what the engine logs, in Python's `logging`;
//! - [`tensor`]: tensors that leave and enter by DLPack, without a copy;
//! - [`wait`]: waiting for a thread without holding the interpreter, and without missing Ctrl-C.

pub mod errors;
pub mod messages;
pub mod tensor;
pub mod wait;

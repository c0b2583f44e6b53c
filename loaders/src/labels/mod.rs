//! Labels of images: those that lie beside them in a set, and soft labels that lie apart.

pub mod fkd;
mod named;
mod stored;
mod targets;

pub(crate) use named::{Named, refuse_first_label};
pub(crate) use stored::{Labels, MAX_CLASSES, integers};
pub use targets::Targets;
pub(crate) use targets::write_softmax;

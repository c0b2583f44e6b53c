//! Sources made of other sources, or of what a container holds.

mod canvases;
mod encoded;
mod formations;
mod in_memory;
mod joined;
mod unwhitened;

pub(super) use canvases::{Canvases, along};
pub(crate) use encoded::{Encoded, EncodedSet};
pub(crate) use formations::Formations;
pub use in_memory::MemorySource;
pub(crate) use in_memory::{check, check_finite};
pub(crate) use joined::Joined;
pub(crate) use unwhitened::Unwhitened;

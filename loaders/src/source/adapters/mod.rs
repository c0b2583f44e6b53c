//! Sources made of other sources, or of what a container holds.

mod canvases;
mod concat;
mod encoded;
mod formations;
mod in_memory;
mod joined;
mod resize;
mod subset;
mod tensor_set;
mod unwhitened;

pub(crate) use canvases::{Canvases, along};
pub use concat::Concat;
pub(crate) use encoded::{Encoded, EncodedSet};
pub(crate) use formations::Formations;
pub use in_memory::MemorySource;
pub(crate) use in_memory::{check, check_pixels, write};
pub use joined::Joined;
pub(crate) use resize::Resize;
pub use subset::Subset;
pub(crate) use tensor_set::Images;
pub(crate) use unwhitened::Unwhitened;

//! Looking into a cache, and tidying it.

mod any;
mod compact;
mod explain;
mod gathering;
mod gc;
mod listing;
mod verify;
mod whole;

pub use compact::Compacted;
pub use explain::{Difference, Explanation, Neighbour};
pub(super) use gathering::Gathering;
pub(super) use gc::keep_within;
pub use gc::{Evicted, Rules};
pub use listing::{Holds, Listing};
pub use verify::Verified;

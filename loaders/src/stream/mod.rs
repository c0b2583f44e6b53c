//! Samples to batches: what an epoch holds, and how it gets there in time.
//!
//! The plan says, as a pure function of (seed, epoch, position), which sample comes when and as what. A batch of it passes
//! through stages: its pixels are fetched, from the set, the cache or the refiner; its targets are made, of stored labels or a
//! teacher's; it is augmented; and it is written to a sink as its dtype. Threads made once for each loader carry the stages
//! out: a few assemble batches ahead of the consumer, and beside them what is missing is refined. The order of batches does
//! not depend on them.

mod background;
mod batch;
mod build;
mod builder;
mod convert;
mod draw;
mod dtype;
mod held;
mod layout;
mod loader;
mod mix;
mod options;
mod order;
mod pick;
mod pipeline;
mod places;
mod plan;
mod pool;
mod progress;
pub(crate) mod ranks;
mod recipe;
mod shared;
pub mod sink;
mod skip;
mod stages;
mod state;
mod want;
mod worker;

pub use batch::Batch;
pub use builder::LoaderBuilder;
pub use dtype::{Dtype, Element};
pub use layout::MemoryFormat;
pub use loader::{Batches, Epoch, Loader};
pub use mix::Mix;
pub use options::{LoaderOptions, OnMiss};
pub use order::Permutation;
pub use pick::Pick;
pub use places::MixMode;
pub use plan::Uneven;
pub use ranks::Ranks;
pub use skip::OnError;
pub use stages::Per;
pub use state::LoaderState;

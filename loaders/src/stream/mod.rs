//! Samples to batches: what an epoch holds, and how it gets there in time.
//!
//! The plan says, as a pure function of (seed, epoch, position), which sample comes when and whether refined or
//! raw. Threads made once for each loader carry the plan out: a few assemble batches ahead of the consumer, one
//! owns the refiner. The order of batches does not depend on them.

mod ahead;
mod batch;
mod builder;
mod loader;
mod mix;
mod options;
mod pipeline;
mod plan;
mod pool;
pub(crate) mod ranks;
mod state;

pub use batch::Batch;
pub use builder::LoaderBuilder;
pub use loader::{Batches, Epoch, Loader};
pub use mix::Mix;
pub use options::{LoaderOptions, OnMiss};
pub use plan::{Permutation, Uneven};
pub use ranks::Ranks;
pub use state::LoaderState;

//! The loading engine of **diver**: distilled datasets on disk become batches, refined lazily through a
//! [`Refine`] implementation and cached as Parquet.
//!
//! The crate knows neither torch nor Python. The parts, in the order in which data flows:
//!
//! - [`source`]: a distilled dataset on disk becomes [`Sample`]s, with the values that its method stored;
//! - [`labels`]: soft labels that lie apart from the images;
//! - [`refine`]: the [`Refine`] trait, a batch of raw pixels in, refined images out;
//! - [`teach`]: the [`Teach`] trait, a batch of normalised images in, logits out;
//! - [`cache`]: refined images as Parquet parts, shared by every later epoch, run and process;
//! - [`augment`]: seeded views of a batch: cropped, flipped, recoloured, mixed;
//! - [`stream`]: the seeded plan of an epoch, mixing, prefetch, batches and resume.
//!
//! # Example
//!
//! A set of two images, refined by the identity and streamed in one batch:
//!
//! ```
//! use diver_loaders::{Identity, Loader, MemorySource, Mix};
//!
//! let set = MemorySource::unit(2, [3, 4, 4], vec![0.5; 96], vec![0, 1])?;
//! let mut loader = Loader::builder(set).refiner(Identity).mix(Mix::constant(1.0)?).batch_size(2).build()?;
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!(batch.shape(), [2, 3, 4, 4]);
//!     assert_eq!(batch.refined(), [true, true]);
//! }
//! # Ok::<(), diver_loaders::Error>(())
//! ```

pub mod augment;
pub mod cache;
pub mod cards;
mod classes;
#[cfg(feature = "cli")]
pub mod cli;
mod digest;
mod error;
pub mod export;
mod hub_table;
mod kernels;
pub mod labels;
pub mod method;
pub mod options;
mod parquet_file;
pub mod paths;
mod pixels;
mod planes;
mod preview;
pub mod refine;
mod said;
mod sheet;
pub mod source;
mod stats;
pub mod stream;
pub mod teach;
mod text;
pub mod wording;

pub use cache::Cache;
pub use classes::{ClassMap, imagenet};
pub use digest::Digest;
pub use error::{Error, Result};
/// The two types of two bytes that images may have ([`Dtype`]), from the crate `half`.
pub use half::{bf16, f16};
pub use labels::Targets;
pub use pixels::{Normalize, RgbImage};
pub use preview::Preview;
pub use refine::{CancelToken, Conditioning, Identity, Refine, Refinery, Refining};
pub use sheet::Sheet;
pub use source::{
    Concat, Label, LabelKind, MemorySource, OpenOptions, Sample, Source, SourceInfo, StateDict, StoredPixels,
    ValueSpace, Values, open,
};
pub use stats::{Queues, Stage, Stages, Stats};
pub use stream::{
    Batch, Dtype, Element, Loader, LoaderBuilder, LoaderOptions, LoaderState, MemoryFormat, Mix, MixMode,
    OnError, OnMiss, Per, Pick, Ranks, Uneven,
};
pub use teach::Teach;

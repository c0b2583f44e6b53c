//! Distilled datasets on disk, as samples.
//!
//! A [`Source`] keeps what the distillation method stored: normalised values beyond the pixel range included, because raw
//! training uses them. What a refiner gets is derived from them ([`Sample::to_pixels`]): un-normalised and clamped to
//! [0, 1].
//!
//! Data goes one way: `containers` turn bytes into named tensors or entries, `formats` know which of them are images and
//! labels, `facts` settles what the files do not say, `adapters` make sources of other sources, and `detect` tells which
//! format lies at a path.

mod adapters;
mod class_list;
mod columns;
pub mod conformance;
pub(crate) mod containers;
mod datasets;
mod detect;
pub(crate) mod facts;
mod format;
mod formats;
pub(crate) mod info;
mod names;
pub(crate) mod options;
mod place;
mod portion;
mod roles;
mod sample;
mod settings;
mod shards;
mod sidecar;
mod traits;

pub use adapters::{Concat, Joined, MemorySource, Subset};
pub(crate) use class_list::ClassList;
pub use columns::Columns;
pub use containers::torch::StateDict;
pub use detect::open;
pub use info::{Fact, Format, Right, SourceInfo};
pub use options::{Fit, OpenOptions, Values};
pub use portion::Portion;
pub use sample::{Label, LabelKind, Sample, StoredPixels, ValueSpace};
pub(crate) use sidecar::{NAME as SIDECAR, Sidecar, VALUES};
pub use traits::Source;

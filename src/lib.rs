//! **diver** turns a distilled dataset into a data loader of refined images.
//!
//! A distilled dataset is a few synthetic images for each class, made so that a network trained on them does nearly
//! as well as on the real set. Most of them overfit the small network they were distilled on. DIVER (arXiv
//! 2605.12649) repairs them with frozen models alone: encode each image with an autoencoder, noise the latent, run a
//! class-conditional diffusion model back to a clean latent while pulling it toward the distilled one, decode.
//!
//! This crate is that method on libtorch, beside the engine of [`diver_loaders`], which reads the sets, caches what
//! was refined and streams it:
//!
//! - [`open`] and [`Loader`] (of the engine): a set on disk, and its batches; [`BatchExt`] makes them tensors;
//! - [`method`]: the paper as pure tensor code;
//! - [`backbone`]: the frozen networks: DiT, SiT, Stable Diffusion and their autoencoder;
//! - [`hub`]: how a backbone is named, and fetched from the Hugging Face hub;
//! - [`Refiner`]: pixels in, refined pixels out, for the engine's [`Refine`];
//! - [`Teacher`]: images in, logits out, for the engine's [`Teach`]; [`loss`]: what networks are trained on them with;
//! - [`eval`]: what a set teaches to networks that it was not distilled on.
//!
//! ```no_run
//! use diver::{BatchExt, Cache, Loader, Refiner};
//! use tch::Device;
//!
//! let refiner = Refiner::from_pretrained("DiT-XL-2-256")?;
//! let mut loader = Loader::builder(diver::open("mtt_imagenette_ipc10")?)
//!     .refiner(refiner)
//!     .cache(Cache::open("~/.cache/diver")?)
//!     .shuffle(true)
//!     .build()?;
//! // The refiner has done so already; without one, CUDA is loaded before libtorch is asked about it.
//! let device = diver::load_cuda().map_or(Device::Cpu, |()| Device::cuda_if_available());
//! for epoch in 0..300 {
//!     for batch in loader.epoch(epoch) {
//!         let (images, targets) = batch?.to_tch(device)?;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! libtorch is a shared library. The binaries of this package find it by themselves; a package that depends on this
//! one needs an rpath of its own (in its `build.rs`, `cargo:rustc-link-arg=-Wl,-rpath,` and the folder
//! `$LIBTORCH/lib`) or `LD_LIBRARY_PATH`.

pub mod backbone;
mod batch;
mod conditions;
mod demo;
mod device;
mod error;
pub mod eval;
mod fleet;
mod halving;
mod host;
pub mod hub;
pub mod loss;
mod memory;
pub mod method;
mod refiner;
mod teacher;

pub use batch::BatchExt;
pub use conditions::Conditions;
pub use device::{DeviceChoice, Precision, load_cuda};
pub use error::{Error, Result};
pub use fleet::Fleet;
pub use host::TchHost;
pub use method::{
    Chain, ChainKind, Family, Flow, FlowStart, Gradient, Grid, Knobs, KnobsBuilder, Mapping, Mode,
    NoiseSchedule, Sigma, Solver, Start, WindowEnds,
};
pub use refiner::{Noise, Refiner, RefinerBuilder};
pub use teacher::{ResNet, Teacher, TeacherBuilder};

/// The engine, for what is not named below: its error type and its modules.
pub use diver_loaders;
pub use diver_loaders::augment::Augment;
pub use diver_loaders::{
    Batch, Cache, CancelToken, ClassMap, Concat, Conditioning, Digest, Dtype, Identity, Label, Loader,
    LoaderBuilder, LoaderOptions, LoaderState, MemoryFormat, MemorySource, Mix, MixMode, Normalize, OnError,
    OnMiss, OpenOptions, Per, Pick, Ranks, Refine, Refinery, RgbImage, Sample, Sheet, Source, SourceInfo,
    Stats, StoredPixels, Targets, Teach, Uneven, ValueSpace, Values, imagenet, open,
};

/// The examples of the README, for the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Judging a distilled dataset by what it teaches: small networks, a fixed training recipe, accuracy over
//! seeds, and the pictures.
//!
//! A distilled dataset overfits the network that it was distilled on, so a fair judgement trains several
//! [`Architecture`]s on it, each from several seeds, under one [`Recipe`] for every dataset compared:
//!
//! ```
//! use diver::eval::{Architecture, Network, Recipe, Summary, accuracy, train};
//! use tch::{Device, Kind, Tensor};
//!
//! // Two classes, told apart by their brightness.
//! let images = Tensor::stack(&[Tensor::full([3, 32, 32], -1.0, (Kind::Float, Device::Cpu)), Tensor::ones([3, 32, 32], (Kind::Float, Device::Cpu))], 0);
//! let targets = Tensor::eye(2, (Kind::Float, Device::Cpu));
//! let stream = || std::iter::repeat_with(|| Ok::<_, diver_loaders::Error>((images.copy(), targets.copy())));
//!
//! let mut scores = Vec::new();
//! for seed in 0..2 {
//!     let mut network = Network::new(Architecture::Mlp, 32, 2, seed, Device::Cpu)?;
//!     train(&mut network, stream(), &Recipe { steps: 5, seed, ..Recipe::default() })?;
//!     scores.push(100.0 * accuracy(&network, &images, &Tensor::from_slice(&[0_i64, 1]))?);
//! }
//! assert_eq!(Summary::of(&scores).to_string(), "100.0 ± 0.0");
//! # Ok::<(), diver_loaders::Error>(())
//! ```
//!
//! Networks and recipe are those of a small-scale protocol (32 x 32 images, a hundred steps on a CPU core): right
//! for comparing versions of one set with one another, not for comparison with published figures, which
//! come from wider networks, hundreds of epochs and each method's own augmentation.

mod augment;
mod data;
mod nets;
mod schedule;
mod table;
mod train;

pub use data::{endless, labelled};
pub use nets::{Architecture, Network};
pub use schedule::OneCycle;
pub use table::{Summary, Table};
pub use train::{Recipe, accuracy, train};

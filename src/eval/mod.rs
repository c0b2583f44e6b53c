//! Judging a distilled dataset by what it teaches: small networks, a fixed training recipe, accuracy over
//! seeds, and the pictures.
//!
//! A distilled dataset overfits the network that it was distilled on, so a fair judgement trains several
//! [`Architecture`]s on it, each from several seeds, under one [`Recipe`] for every dataset compared. [`Judge`] does
//! that for several sets at once; its parts are there too:
//!
//! ```
//! use diver::eval::{Architecture, Network, Recipe, Summary, accuracy, train};
//! use tch::{Device, Kind, Tensor};
//!
//! // Two classes, told apart by their brightness.
//! let images = Tensor::from_slice(&[-1.0_f32, 1.0]).view([2, 1, 1, 1]).expand([2, 3, 32, 32], false);
//! let targets = Tensor::eye(2, (Kind::Float, Device::Cpu));
//! let batch = || Ok::<_, Box<dyn std::error::Error>>((images.copy(), targets.copy()));
//!
//! let mut scores = Vec::new();
//! for seed in 0..2 {
//!     let mut network = Network::new(Architecture::Mlp, 32, 2, seed, Device::Cpu)?;
//!     train(&mut network, std::iter::repeat_with(batch), &Recipe { steps: 5, seed, ..Recipe::default() })?;
//!     scores.push(100.0 * accuracy(&network, &images, &Tensor::from_slice(&[0_i64, 1]))?);
//! }
//! assert_eq!(Summary::of(&scores).to_string(), "100.0 ± 0.0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Networks and recipe are small (32 x 32 images, a hundred steps, one CPU core): good for comparing versions of one
//! set with one another, not with published figures, which come from wider networks, hundreds of epochs and each
//! method's own augmentation. Known answers from PyTorch pin the networks, the schedule and the training steps.

pub(crate) mod augment;
mod data;
mod judge;
mod nets;
pub(crate) mod parallel;
mod schedule;
mod table;
mod train;

pub use data::{endless, labelled};
pub use judge::{Candidate, Judge, Scores};
pub use nets::{Architecture, Network};
pub use schedule::OneCycle;
pub use table::{Summary, Table};
pub use train::{Recipe, accuracy, train};

/// libtorch's error about `what`, for `map_err`. (Left to [`crate::Error::Torch`], it would read as the refiner's.)
fn torch(what: &'static str) -> impl FnOnce(tch::TchError) -> diver_loaders::Error {
    move |error| diver_loaders::Error::config(what, crate::Error::from(error).to_string())
}

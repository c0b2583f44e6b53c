//! Augmentation: random views of a batch, the same for every run with the same seed.
//!
//! [`Augment`] is a list of augmentations. [`Augment::draw`] draws the numbers of a batch, which are plain data
//! ([`Views`]), and [`Views::apply`] changes images and targets by them. Nothing else is random.
//!
//! The numbers of a sample depend on the seed, the epoch and the sample's position in the epoch's order: not on the size
//! of its batch, on threads or on ranks. What a batch shares (the operator of [`Dsa`]; weight, rectangle and partners of
//! [`CutMix`] and [`MixUp`]) depends on the position of its first sample.
//!
//! Images come normalised, `(pixel - mean) / std` for each channel, and leave so.

mod affine;
mod crop;
mod draws;
mod dsa;
mod flip;
mod jitter;
mod mixed;
mod operators;
mod views;

pub use affine::Affine;
pub use crop::{Crop, RandomResizedCrop};
pub use dsa::{Dsa, DsaMode, DsaOperator};
pub use flip::HorizontalFlip;
pub(crate) use flip::mirror;
pub use jitter::{Adjustment, ColorJitter};
pub use mixed::{CutMix, MixUp, Mixed};
pub use operators::{Color, Cutout, Shift};
pub use views::{Step, Views};

use crate::{Error, Result};
use draws::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One augmentation with its options. In JSON, an object of one field, of which each option has a default:
/// `{"horizontal_flip": {"p": 0.5}}`.
///
/// Options that come from JSON are checked when an [`Augment`] is made of them.
///
/// ```
/// use diver_loaders::augment::{Augmentation, CutMix};
///
/// let read: Augmentation = serde_json::from_str(r#"{"cut_mix": {}}"#)?;
/// assert_eq!(read, CutMix::default().into());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Augmentation {
    /// Cuts out a random part of every image.
    RandomResizedCrop(RandomResizedCrop),
    /// Mirrors images left to right.
    HorizontalFlip(HorizontalFlip),
    /// Changes brightness, contrast, saturation and hue.
    ColorJitter(ColorJitter),
    /// The augmentation that distilled sets are evaluated with.
    Dsa(Dsa),
    /// Puts a rectangle of another image into every image.
    CutMix(CutMix),
    /// Averages every image with another one.
    MixUp(MixUp),
}

macro_rules! from {
    ($($kind:ident),+) => {
        $(
            impl From<$kind> for Augmentation {
                fn from(options: $kind) -> Self {
                    Self::$kind(options)
                }
            }
        )+
    };
}

from!(RandomResizedCrop, HorizontalFlip, ColorJitter, Dsa, CutMix, MixUp);

impl Augmentation {
    /// Its name in JSON.
    fn name(&self) -> &'static str {
        match self {
            Self::RandomResizedCrop(_) => "random_resized_crop",
            Self::HorizontalFlip(_) => "horizontal_flip",
            Self::ColorJitter(_) => "color_jitter",
            Self::Dsa(_) => "dsa",
            Self::CutMix(_) => "cut_mix",
            Self::MixUp(_) => "mix_up",
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::RandomResizedCrop(crop) => crop.check(),
            Self::HorizontalFlip(flip) => flip.check(),
            Self::ColorJitter(jitter) => jitter.check(),
            // Its strategy is checked as it is read.
            Self::Dsa(_) => Ok(()),
            Self::CutMix(cut) => cut.check(),
            Self::MixUp(up) => up.check(),
        }
    }

    fn is_mix(&self) -> bool {
        matches!(self, Self::CutMix(_) | Self::MixUp(_))
    }
}

/// Augmentations in the order in which they are applied. The default is empty and changes nothing.
///
/// In JSON, the list of them:
///
/// ```
/// use diver_loaders::Normalize;
/// use diver_loaders::augment::{Augment, CutMix, RandomResizedCrop};
///
/// let json = r#"[{"random_resized_crop": {"scale": [0.5, 1.0]}}, {"cut_mix": {}}]"#;
/// let augment: Augment = serde_json::from_str(json)?;
/// let crop = RandomResizedCrop::new([0.5, 1.0], [0.75, 4.0 / 3.0])?;
/// assert_eq!(augment, Augment::new([crop.into(), CutMix::default().into()])?);
///
/// // The views of two images, of 3 x 8 x 8 values and 10 classes, at the start of epoch 0.
/// let (mut images, mut targets) = (vec![0.0; 2 * 3 * 8 * 8], vec![0.1; 2 * 10]);
/// let views = augment.draw(7, 0, &[0, 1], [8, 8]);
/// views.apply(&mut images, [2, 3, 8, 8], &mut targets, 10, &Normalize::IMAGENET)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Augmentation>", into = "Vec<Augmentation>")]
pub struct Augment(Vec<Augmentation>);

impl Augment {
    /// Must be raised whenever the same list and seed draw other views, or the same views change images in another way.
    const VERSION: u32 = 1;

    /// A list of augmentations. A mix (CutMix or MixUp) must come last, and there can be only one: mixing images that are
    /// mixed already is not what either paper does.
    ///
    /// # Errors
    /// If an option of an augmentation is out of its range, or a mix is not the last augmentation.
    pub fn new(augmentations: impl Into<Vec<Augmentation>>) -> Result<Self> {
        let augmentations = augmentations.into();
        augmentations.iter().try_for_each(|augmentation| {
            augmentation.check().map_err(|error| match error {
                Error::Config { option, reason } => {
                    Error::config(option, format!("{reason} (in `{}`)", augmentation.name()))
                }
                other => other,
            })
        })?;
        let mixes: Vec<&str> =
            augmentations.iter().filter(|each| each.is_mix()).map(Augmentation::name).collect();
        if let [first, second, ..] = mixes[..] {
            let reason = format!("`{first}` and `{second}` both mix images: keep one of them");
            return Err(Error::config("augment", reason));
        }
        if let ([mix], Some(last)) = (&mixes[..], augmentations.last().filter(|last| !last.is_mix())) {
            let reason = format!("`{mix}` must be the last augmentation: move it behind `{}`", last.name());
            return Err(Error::config("augment", reason));
        }
        Ok(Self(augmentations))
    }

    /// The augmentations, in the order in which they are applied.
    pub fn augmentations(&self) -> &[Augmentation] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that decides the views of a batch besides seed, epoch and positions, as a JSON object for fingerprints.
    pub fn recipe(&self) -> Value {
        json!({ "version": Self::VERSION, "augmentations": self.0 })
    }

    /// Draws the views of a batch of images of `size` = `[height, width]` pixels: one for each of `positions`, which are
    /// the samples' places in the order of the whole epoch, over all ranks.
    pub fn draw(&self, seed: u64, epoch: u64, positions: &[u64], size: [usize; 2]) -> Views {
        let Some(first) = positions.first().copied() else { return Views::default() };
        let (mut steps, mut mix) = (Vec::new(), None);
        for (place, augmentation) in self.0.iter().enumerate() {
            let name = augmentation.name();
            let nth = self.0[..place].iter().filter(|before| before.name() == name).count() as u64;
            let key = Key { seed, epoch, nth };
            let draws = positions.iter().map(|position| key.draws(name, *position));
            match augmentation {
                Augmentation::RandomResizedCrop(crop) => {
                    steps.push(Step::Crop(draws.map(|mut draws| crop.draw(&mut draws, size)).collect()));
                }
                Augmentation::HorizontalFlip(flip) if flip.p == 0.0 => {}
                Augmentation::HorizontalFlip(flip) => {
                    steps.push(Step::Flip(draws.map(|mut draws| draws.chance(flip.p)).collect()));
                }
                Augmentation::ColorJitter(jitter) if jitter.is_identity() => {}
                Augmentation::ColorJitter(jitter) => {
                    steps.push(Step::Jitter(draws.map(|mut draws| jitter.draw(&mut draws)).collect()));
                }
                Augmentation::Dsa(dsa) => steps.extend(dsa.draw(key, first, positions, size)),
                Augmentation::CutMix(cut) => {
                    mix = cut.draw(&mut key.draws(name, first), positions.len(), size);
                }
                Augmentation::MixUp(up) => mix = up.draw(&mut key.draws(name, first), positions.len()),
            }
        }
        Views::new(steps, mix)
    }
}

impl TryFrom<Vec<Augmentation>> for Augment {
    type Error = Error;

    fn try_from(augmentations: Vec<Augmentation>) -> Result<Self> {
        Self::new(augmentations)
    }
}

impl From<Augment> for Vec<Augmentation> {
    fn from(augment: Augment) -> Self {
        augment.0
    }
}

/// Refuses a number that is no probability.
fn probability(p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::config("p", format!("{p} must be in [0, 1]")))
}

#[cfg(test)]
mod tests;

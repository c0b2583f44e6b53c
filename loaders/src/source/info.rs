//! What a source says of itself.

use super::sample::{LabelKind, ValueSpace};
use crate::{ClassMap, Error, Normalize};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// The format family of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// The torch file of DC, DSA or DM.
    Dc,
    /// The run folder of MTT, GLaD, EDF or DATM, and the files of DC-BENCH.
    Mtt,
    /// The files of IDC and NCFM.
    Idc,
    /// The npz files of KIP that DC-BENCH has.
    Kip,
    /// Images and labels by name, as torch, numpy or safetensors store them.
    Tensors,
    /// A folder, zip or tar of class folders.
    ImageFolder,
    /// Parquet files.
    Parquet,
    /// Arrow and Feather files.
    Arrow,
    /// Tar files in which the entries of a sample share a key.
    #[serde(rename = "webdataset")]
    WebDataset,
    /// A set that a program made.
    Memory,
    /// Several sets as one.
    Concat,
}

impl Format {
    /// Its name, as JSON and messages have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dc => "dc",
            Self::Mtt => "mtt",
            Self::Idc => "idc",
            Self::Kip => "kip",
            Self::Tensors => "tensors",
            Self::ImageFolder => "image-folder",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::WebDataset => "webdataset",
            Self::Memory => "memory",
            Self::Concat => "concat",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// By what right something is known of a set. An earlier right overrules a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Right {
    /// The caller said so.
    Option,
    /// A `norm.json` beside the data says so.
    Sidecar,
    /// The files say so themselves.
    Embedded,
    /// The path names it.
    Path,
    /// Nothing says so: it is what is usual.
    Guess,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Option => "an option",
            Self::Sidecar => "norm.json",
            Self::Embedded => "the files",
            Self::Path => "the path",
            Self::Guess => "a guess",
        })
    }
}

/// One thing that is known of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// What it is about, as in `mean, std`.
    pub name: &'static str,
    /// What is known, in words.
    pub value: String,
    /// By what right.
    pub right: Right,
}

/// What a source says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceInfo {
    /// The format family.
    pub format: Format,
    /// The method that distilled it, as far as files tell, and by what.
    pub method: Option<String>,
    /// The file or folder. As JSON, what is not text in its name is replaced.
    #[serde(serialize_with = "crate::paths::as_text")]
    pub path: PathBuf,
    /// Number of samples.
    pub num_samples: usize,
    /// Number of classes.
    pub num_classes: usize,
    /// The name of each class, where the source has them.
    pub classes: Option<Vec<String>>,
    /// The refiner's class for each class, where the files or the caller say; as JSON a list, or null for the same.
    pub class_map: ClassMap,
    /// `[C, H, W]` of every sample.
    pub shape: [usize; 3],
    /// The kind of its labels.
    pub labels: LabelKind,
    /// The space of its stored values.
    pub value_space: ValueSpace,
    /// Constants to normalise with where values are not stored normalised; the stored ones otherwise.
    pub normalize: Normalize,
    /// The learning rate that was learned with the images, to train on them with.
    pub learning_rate: Option<f32>,
    /// What is known beyond what every file of the format says, and by what right.
    pub facts: Vec<Fact>,
    /// What the bytes do not say and was assumed, and what was left out, one sentence each.
    pub notes: Vec<String>,
}

impl SourceInfo {
    /// The name of each class; its number where the source has no names.
    pub(crate) fn names(&self) -> Vec<String> {
        let numbers = || (0..self.num_classes).map(|class| class.to_string()).collect();
        self.classes.clone().unwrap_or_else(numbers)
    }

    /// The error for a sample that is not there.
    pub(crate) fn no_sample(&self, index: usize) -> Error {
        Error::sample(&self.path, index, format!("there is no such sample among {}", self.num_samples))
    }
}

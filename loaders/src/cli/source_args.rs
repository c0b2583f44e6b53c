//! Options that say how a dataset is opened.

use crate::{ClassMap, Error, Normalize, OpenOptions, Result, Source, Values};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// The distilled dataset: a .pt file of DC, DSA or DM; a run's folder of MTT, GLaD, EDF, DATM, IDC or NCFM;
    /// images and labels in an npz, safetensors or .pt file; a folder of class folders; Parquet; Arrow or Feather;
    /// or WebDataset
    source: PathBuf,

    /// The dataset that was distilled, for its normalisation constants: cifar10, tinyimagenet, imagenet, ...
    #[arg(long, value_name = "NAME", help_heading = "Dataset")]
    dataset: Option<String>,

    /// Mean that stored values were normalised with: one number or three, comma-separated
    #[arg(long, value_name = "M[,M,M]", value_delimiter = ',', requires = "std", help_heading = "Dataset")]
    mean: Option<Vec<f32>>,

    /// Standard deviation that stored values were normalised with
    #[arg(long, value_name = "S[,S,S]", value_delimiter = ',', requires = "mean", help_heading = "Dataset")]
    std: Option<Vec<f32>>,

    /// Which experiment of a DC, DSA or DM file, from 0; the last by default
    #[arg(long, value_name = "N", help_heading = "Dataset")]
    experiment: Option<usize>,

    /// What the stored values are, where that is another than what is usual for the format
    #[arg(long, value_name = "SPACE", help_heading = "Dataset")]
    values: Option<Values>,

    /// A file with the ZCA transform of stored values, which become pixels: tensors `mean_vector` (or `mean`) and
    /// `transform_inv` (or `inverse`) as kornia's ZCAWhitening has them
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    zca: Option<PathBuf>,

    /// How many images lie along each side of a stored one (multi-formation: IDC, NCFM); 1 for none
    #[arg(long, value_name = "N", help_heading = "Dataset")]
    factor: Option<usize>,

    /// How many images lie along each side of a stored one that is a texture canvas (MTT with --texture); 1 for none
    #[arg(long, value_name = "N", help_heading = "Dataset")]
    canvas: Option<usize>,

    /// The backbone's class for each label: the name of a subset of ImageNet (imagenette, imagefruit, ...), a file
    /// with a class on each line, or indices; labels are the backbone's classes by default
    #[arg(long, value_name = "NAME|FILE|C,C,...", help_heading = "Dataset")]
    classes: Option<String>,
}

impl SourceArgs {
    pub(super) fn open(&self) -> Result<Box<dyn Source>> {
        let mut options = OpenOptions::new();
        if let Some(dataset) = &self.dataset {
            options = options.dataset(dataset);
        }
        if let (Some(mean), Some(std)) = (&self.mean, &self.std) {
            options = options.normalization(Normalize::new(triple("mean", mean)?, triple("std", std)?)?);
        }
        if let Some(experiment) = self.experiment {
            options = options.experiment(experiment);
        }
        if let Some(values) = self.values {
            options = options.values(values);
        }
        if let Some(zca) = &self.zca {
            options = options.zca(zca);
        }
        if let Some(factor) = self.factor {
            options = options.factor(factor);
        }
        if let Some(canvas) = self.canvas {
            options = options.canvas(canvas);
        }
        if let Some(classes) = &self.classes {
            options = options.classes(class_map(classes)?);
        }
        options.open(&self.source)
    }
}

/// Indices, or the name or file of a list.
fn class_map(text: &str) -> Result<ClassMap> {
    let indices: Result<Vec<usize>, _> = text.split(',').map(|index| index.trim().parse()).collect();
    match indices {
        Ok(indices) => ClassMap::indices(indices),
        Err(_) => ClassMap::find(text),
    }
}

fn triple(option: &'static str, values: &[f32]) -> Result<[f32; 3]> {
    match values {
        [one] => Ok([*one; 3]),
        [r, g, b] => Ok([*r, *g, *b]),
        other => Err(Error::config(option, format!("one value or three are expected, not {}", other.len()))),
    }
}

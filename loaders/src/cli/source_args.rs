//! Options that say how a dataset is opened.

use crate::{ClassMap, Error, Normalize, OpenOptions, Result, Source};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// The distilled dataset: a .pt file of DC, DSA or DM, a folder of MTT (images_best.pt, labels_best.pt), a
    /// folder of class folders, or an image dataset in Parquet
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

    /// The backbone's class for each label, comma-separated; labels are the backbone's classes by default
    #[arg(long, value_name = "C,C,...", value_delimiter = ',', help_heading = "Dataset")]
    classes: Option<Vec<usize>>,
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
        options.open(&self.source)
    }

    pub(super) fn classes(&self) -> Result<ClassMap> {
        self.classes.clone().map_or_else(|| Ok(ClassMap::identity()), ClassMap::indices)
    }
}

fn triple(option: &'static str, values: &[f32]) -> Result<[f32; 3]> {
    match values {
        [one] => Ok([*one; 3]),
        [r, g, b] => Ok([*r, *g, *b]),
        other => Err(Error::config(option, format!("{} values: one or three are expected", other.len()))),
    }
}

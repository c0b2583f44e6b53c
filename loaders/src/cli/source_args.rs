//! The dataset that a command works on.

use crate::{OpenOptions, Result, Source};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// The distilled dataset: a .pt file of DC, DSA or DM; a run's folder of MTT, GLaD, EDF, DATM, IDC or NCFM;
    /// images and labels in an npz, safetensors or .pt file; a folder of class folders; Parquet; Arrow or Feather;
    /// or WebDataset
    source: PathBuf,

    #[command(flatten)]
    options: OpenOptions,
}

impl SourceArgs {
    pub(super) fn open(&self) -> Result<Box<dyn Source>> {
        self.options.open(&self.source)
    }
}

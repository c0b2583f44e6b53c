//! The cache that a command works with.

use crate::cache::CacheOptions;
use crate::{Cache, Result};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct CacheArgs {
    /// Folder that keeps refined images, or a URL: s3://bucket/folder, gs://bucket/folder or az://container/folder
    #[arg(long, value_name = "FOLDER|URL", default_value = super::DEFAULT_CACHE, help_heading = "Cache")]
    cache: PathBuf,

    #[command(flatten)]
    options: CacheOptions,
}

impl CacheArgs {
    pub(super) fn open(&self) -> Result<Cache> {
        Cache::open(&self.cache)?.with_options(self.options.clone())
    }
}

//! What a caller says of a cache.

use super::artifact::ImageForm;
use crate::options::{Amount, FilePath, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The options of a [`Cache`](super::Cache) beside its place, set by
/// [`Cache::with_options`](super::Cache::with_options).
///
/// ```
/// use diver_loaders::cache::{CacheOptions, ImageForm};
/// use diver_loaders::options;
///
/// let options: CacheOptions = options::from_json(r#"{"limit": "20GB", "image_form": "webp"}"#)?;
/// assert_eq!(options, CacheOptions::new().limit(20_000_000_000).image_form(ImageForm::Webp));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct CacheOptions {
    /// The most bytes that the cache may have, as in 20GB: while rows are written, the least recently used fingerprints
    /// are deleted, but not those that a process is adding to [default: no limit]
    #[cfg_attr(feature = "cli", arg(long = "cache-limit", value_name = "SIZE", help_heading = "Cache"))]
    pub(super) limit: Option<Amount>,

    /// How long other processes wait for images that a process was refining when it died: at least 0.1 s, and the same
    /// for all processes that share a cache
    #[cfg_attr(
        feature = "cli",
        arg(long = "cache-lease-expiry", value_name = "TIME", default_value = "30s", help_heading = "Cache")
    )]
    #[schemars(extend("minimum" = 0.1))]
    pub(super) lease_expiry: Span,

    /// A folder on this machine for copies of the cache parts that are read, where the cache is in a bucket or on a slow
    /// file system; several processes and caches may share it [default: no copies]
    #[cfg_attr(feature = "cli", arg(long = "cache-local", value_name = "FOLDER", help_heading = "Cache"))]
    pub(super) local: Option<FilePath>,

    /// The most bytes that these copies may have, as in 50GB
    #[cfg_attr(
        feature = "cli",
        arg(long = "cache-local-limit", value_name = "SIZE", default_value = "10GB", help_heading = "Cache")
    )]
    pub(super) local_limit: Amount,

    /// How new images are stored, each without loss: png, webp (smaller, slower to write) or raw (as fast as memory,
    /// and larger). Images of all forms are read, whatever this says
    #[cfg_attr(
        feature = "cli",
        arg(long = "cache-image-form", value_name = "FORM", default_value = "png", help_heading = "Cache")
    )]
    pub(super) image_form: ImageForm,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            limit: None,
            lease_expiry: Span(Duration::from_secs(30)),
            local: None,
            local_limit: Amount(10_000_000_000),
            image_form: ImageForm::default(),
        }
    }
}

impl CacheOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds the cache to so many bytes while it is written to (default: no limit): then the fingerprints that were used
    /// least recently are deleted, but not those that a process is adding to. What is being written may exceed the bound
    /// by itself.
    pub fn limit(self, bytes: u64) -> Self {
        Self { limit: Some(bytes.into()), ..self }
    }

    /// How long other processes wait for what a process was refining when it died (default: 30 s, at least 0.1 s). A
    /// process that stands still for longer is taken for dead, and what it was refining is refined again. All processes
    /// that share a cache should have the same.
    pub fn lease_expiry(self, span: Duration) -> Self {
        Self { lease_expiry: span.into(), ..self }
    }

    /// Keeps copies of the parts that are read in `folder` (default: no copies), for a cache in a bucket or on a slow file
    /// system. Several processes and caches may share the folder.
    pub fn local(self, folder: impl Into<PathBuf>) -> Self {
        Self { local: Some(folder.into().into()), ..self }
    }

    /// The most bytes that these copies may have (default: 10 GB). Copies that this process has used stay, the oldest
    /// others make room, and parts that do not fit are read where they are.
    pub fn local_limit(self, bytes: u64) -> Self {
        Self { local_limit: bytes.into(), ..self }
    }

    /// How new images are stored (default: PNG). Images of all forms are read, whatever this says.
    pub fn image_form(self, form: ImageForm) -> Self {
        Self { image_form: form, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_setter() {
        let options = CacheOptions::new()
            .limit(1)
            .lease_expiry(Duration::from_secs(1))
            .local("copies")
            .local_limit(1)
            .image_form(ImageForm::Raw);
        crate::options::assert_every_one_is_set(&options);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn the_command_line_has_the_same_defaults() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            options: CacheOptions,
        }
        let parsed = <Command as clap::Parser>::parse_from(["diver"]).options;
        assert_eq!(parsed, CacheOptions::default());
    }
}

//! Refined images on disk, as Parquet.
//!
//! A cache is a folder. It holds one folder per *fingerprint*, the canonical JSON of everything that makes
//! pixels ([`crate::Refine::fingerprint`]), with that JSON beside the data:
//!
//! ```text
//! cache/
//!   4be1f0a29c7d3358/            first 16 hex digits of the fingerprint's hash
//!     fingerprint.json
//!     part-00000000.parquet      immutable; written whole; numbered in order of commit
//!     part-00000001.parquet
//! ```
//!
//! A part appears under its name complete and synced, or not at all, and its number is taken by whoever comes
//! first: any number of processes write side by side, a kill loses at most the part being written, and of two
//! rows with one key the first committed wins, for good. Rows are an ordinary Hugging Face image dataset.

mod fingerprint;
mod folder;
mod generation;
mod key;
mod memory;
mod part;

pub use fingerprint::Fingerprint;
pub use generation::Generation;
pub use key::RowKey;
pub(crate) use memory::MemoryCache;
pub use part::Row;

use crate::paths::local;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A folder of refined images, shared by every run and process that is pointed at it.
///
/// ```
/// use diver_loaders::{Cache, Identity, Refine};
///
/// let folder = tempfile::tempdir()?;
/// let cache = Cache::open(folder.path().join("cache"))?;
/// let fingerprint = Identity.fingerprint().expect("the identity has one");
/// let generation = cache.generation(&fingerprint)?;
/// assert!(generation.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in `folder`, which is made if it is not there. A leading `~/` is the home folder.
    ///
    /// It need not be one that can be written to: what others have refined is read all the same, and only what they
    /// lack cannot be kept there.
    ///
    /// # Errors
    /// If the folder is not a local one, or is not there and cannot be made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let root = expand_home(local("cache", folder.as_ref())?);
        std::fs::create_dir_all(&root).map_err(Error::io(&root, "cannot make the cache folder"))?;
        Ok(Self { root })
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the refined images of one fingerprint, a JSON value as [`crate::Refine::fingerprint`] gives it.
    ///
    /// # Errors
    /// If its folder cannot be read, belongs to another fingerprint, or is not there and cannot be made.
    pub fn generation(&self, fingerprint: &serde_json::Value) -> Result<Generation> {
        Generation::open(&self.root, &Fingerprint::new(fingerprint))
    }
}

fn expand_home(folder: &Path) -> PathBuf {
    match (folder.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder.to_owned(),
    }
}

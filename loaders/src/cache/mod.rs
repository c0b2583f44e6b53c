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

mod artifact;
pub mod conformance;
mod fingerprint;
mod index;
mod key;
mod lease;
mod options;
mod outbox;
mod pages;
mod part;
mod partition;
mod resident;
mod store;
mod upkeep;

pub use artifact::{Artifact, ImageForm, ImageRow, LogitForm, LogitRow};
pub use fingerprint::Fingerprint;
pub use key::RowKey;
pub(crate) use lease::Lease;
pub use options::CacheOptions;
pub(crate) use outbox::Outbox;
pub use partition::Partition;
pub(crate) use resident::Resident;
#[cfg(feature = "cloud")]
pub use store::BucketStore;
pub use store::{LocalStore, MemoryStore, PartStore, Stat, WithCopies};
pub use upkeep::{Compacted, Difference, Evicted, Explanation, Holds, Listing, Neighbour, Rules, Verified};

use crate::paths::{expand_home, refused};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The format of parts that this version writes, and the only one with a number that it reads.
const FORMAT: u32 = 2;

/// A folder of refined images, shared by every run and process that is pointed at it.
///
/// ```
/// use diver_loaders::{Cache, Identity, Refine};
///
/// let folder = tempfile::tempdir()?;
/// let cache = Cache::open(folder.path().join("cache"))?;
/// let fingerprint = Identity.fingerprint().expect("the identity has one");
/// let images = cache.images(&fingerprint)?;
/// assert!(images.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    /// The store itself, and as it is used: with copies of its parts.
    bare: Arc<dyn PartStore>,
    store: Arc<dyn PartStore>,
    options: CacheOptions,
}

impl Cache {
    /// Opens the cache in `folder`, which is made if it is not there. A leading `~/` is the home folder. In place of a
    /// folder it may be a URL: `s3://bucket/folder`, `gs://bucket/folder` and `az://container/folder` (feature `cloud`),
    /// whose credentials and endpoints are those of the usual environment variables; `file:///folder`; or
    /// `memory://name`, which lasts as long as the process.
    ///
    /// It need not be one that can be written to: what others have refined is read all the same, and only what they
    /// lack cannot be kept there.
    ///
    /// # Errors
    /// If the folder is not there and cannot be made; if there is no such bucket, it cannot be listed, or credentials are
    /// missing; if the URL has an unknown scheme or names no bucket.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::of(store::open(folder.as_ref())?))
    }

    /// The cache in a store.
    pub fn on(store: impl PartStore + 'static) -> Self {
        Self::of(Arc::new(store))
    }

    fn of(store: Arc<dyn PartStore>) -> Self {
        Self { bare: Arc::clone(&store), store, options: CacheOptions::default() }
    }

    /// The cache with these options, in place of those that it had.
    ///
    /// # Errors
    /// If an option is out of its range; if the folder for local copies cannot be made or written to.
    pub fn with_options(self, options: CacheOptions) -> Result<Self> {
        crate::options::check(&options)?;
        let store = match &options.local {
            Some(folder) => {
                let folder: &Path = folder.as_ref();
                if folder.as_os_str().is_empty() || refused(folder).is_some() {
                    let reason = format!("`{}`: expected a folder on this machine", folder.display());
                    return Err(Error::config("local", reason));
                }
                let folder = expand_home(folder);
                Arc::new(WithCopies::new(Arc::clone(&self.bare), &folder, options.local_limit.0)?)
            }
            None => Arc::clone(&self.bare),
        };
        Ok(Self { bare: self.bare, store, options })
    }

    /// The cache's folder, as users call it.
    pub fn root(&self) -> PathBuf {
        self.store.place("")
    }

    /// Opens the refined images of one fingerprint, a JSON value as [`crate::Refine::fingerprint`] gives it.
    ///
    /// # Errors
    /// If its folder cannot be read, belongs to another fingerprint, or is not there and cannot be made.
    pub fn images(&self, fingerprint: &serde_json::Value) -> Result<Partition<ImageRow>> {
        let partition = Partition::open(self, fingerprint)?;
        partition.stamp();
        Ok(partition)
    }

    /// Opens the logits of one teacher, on views that one recipe makes: both are in the fingerprint, and what the
    /// logits are used for later, as a temperature, is not.
    ///
    /// # Errors
    /// As [`images`](Self::images); if the fingerprint is no JSON object.
    pub fn logits(&self, fingerprint: &serde_json::Value) -> Result<Partition<LogitRow>> {
        let mut fingerprint = fingerprint.clone();
        let Some(fields) = fingerprint.as_object_mut() else {
            return Err(Error::config("fingerprint", "a JSON object is expected"));
        };
        fields.insert(Holds::FIELD.to_owned(), serde_json::json!(Holds::Logits));
        let partition = Partition::open(self, &fingerprint)?;
        partition.stamp();
        Ok(partition)
    }
}

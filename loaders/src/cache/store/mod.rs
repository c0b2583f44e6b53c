//! Where a cache keeps its files.

#[cfg(feature = "cloud")]
mod bucket;
mod copies;
mod local;
mod memory;
mod place;

#[cfg(feature = "cloud")]
pub use bucket::BucketStore;
pub use copies::WithCopies;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub(super) use place::open;

use crate::Result;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A store of files, each written whole, in folders one level deep.
///
/// Names are `folder/file`, in ASCII letters, digits, `-`, `_` and `.`. What one process writes, another sees at once.
/// Every method may be called from several threads.
///
/// ```
/// use diver_loaders::cache::{MemoryStore, PartStore};
///
/// let store = MemoryStore::new();
/// assert!(store.put_if_absent("a/0", b"first")?);
/// assert!(!store.put_if_absent("a/0", b"second")?);
/// assert_eq!(store.get("a/0")?, "first");
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub trait PartStore: Debug + Send + Sync {
    /// What a user calls the file or folder `name`; the store itself for an empty name.
    fn place(&self, name: &str) -> PathBuf;

    /// Makes a folder, if the store has folders and this one is not there.
    ///
    /// # Errors
    /// If it is not there and cannot be made.
    fn make_folder(&self, folder: &str) -> Result<()>;

    /// The names of the folders, in any order.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn folders(&self) -> Result<Vec<String>>;

    /// The names of the files in a folder, without the folder's, in any order. None if the folder is not there.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// The files in a folder, as [`list`](Self::list) names them, with what [`stat`](Self::stat) says of each. A store
    /// that is told both at once should say so here.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn entries(&self, folder: &str) -> Result<Vec<(String, Stat)>> {
        let mut entries = Vec::new();
        for file in self.list(folder)? {
            // What is gone meanwhile counts no more.
            if let Some(stat) = self.stat(&format!("{folder}/{file}"))? {
                entries.push((file, stat));
            }
        }
        Ok(entries)
    }

    /// What the store says of a file; `None` if it is not there.
    ///
    /// # Errors
    /// If the store does not tell.
    fn stat(&self, name: &str) -> Result<Option<Stat>>;

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`crate::Error::Io`], of kind `NotFound` if it is not there.
    fn get(&self, name: &str) -> Result<Bytes>;

    /// Some bytes of a file: as many of `range` as there are.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes>;

    /// The last bytes of a file, `length` of them if it has so many, and its size.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)>;

    /// Writes a file whole and durably, if there is none of this name; says whether it did. Of several at a time one
    /// writes. If the answer is lost, the file may be there all the same.
    ///
    /// # Errors
    /// If it cannot be written. A reader sees no part of it.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool>;

    /// Writes a file whole, replacing one of this name. A power cut may undo it.
    ///
    /// # Errors
    /// If it cannot be written. A reader sees the old file or the new one.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Renames a file, which must not be there under the new name. Nothing happens if it is not there.
    ///
    /// # Errors
    /// If it cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Deletes a file. Nothing happens if it is not there.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delete(&self, name: &str) -> Result<()>;

    /// Deletes a folder, which is empty. Nothing happens if it is not there, or is not empty.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delete_folder(&self, folder: &str) -> Result<()>;

    /// Finds out whether a folder can be written to, before much work is done whose result would be.
    ///
    /// # Errors
    /// If it cannot.
    fn check_writable(&self, folder: &str) -> Result<()>;

    /// How many requests should be made at a time, where many are to be made: more than one if most of a request's time
    /// is the way there.
    fn parallel(&self) -> usize {
        1
    }

    /// How many bytes a read should fetch at least, in bytes.
    fn block(&self) -> usize {
        512
    }
}

/// What a store says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// In bytes.
    pub size: u64,
    /// Since it was written, by the store's own clock as far as it has one.
    pub age: Duration,
    /// Something that is another for a file which takes the place of this one; `None` where the store has no such thing.
    pub version: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn stores() -> Vec<(Arc<dyn PartStore>, Option<tempfile::TempDir>)> {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalStore::open(folder.path().to_owned()).unwrap();
        let copies = tempfile::tempdir().unwrap();
        let copied = WithCopies::new(Arc::new(MemoryStore::new()), copies.path(), 1 << 20).unwrap();
        vec![
            (Arc::new(MemoryStore::new()), None),
            (Arc::new(local), Some(folder)),
            (Arc::new(copied), Some(copies)),
        ]
    }

    #[test]
    fn every_store_passes() {
        for (store, _folder) in stores() {
            crate::cache::conformance::check(&store);
        }
    }
}

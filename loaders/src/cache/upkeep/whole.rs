//! What concerns all partitions of a cache.

use super::any::AnyPartition;
use super::compact::Compacted;
use super::listing::{Listing, flattened, sort_by_use, summaries};
use super::verify::Verified;
use crate::cache::partition::FINGERPRINT;
use crate::cache::{Cache, RowKey};
use crate::refine::Dataset;
use crate::{CancelToken, Result, Source};
use serde_json::Value;
use std::collections::BTreeSet;

impl Cache {
    /// What the cache holds, the fingerprint that was used last first.
    ///
    /// ```
    /// use diver_loaders::Cache;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let cache = Cache::open(folder.path())?;
    /// cache.images(&serde_json::json!({ "steps": 50, "gamma": 0.1 }))?;
    /// cache.images(&serde_json::json!({ "steps": 20, "gamma": 0.1 }))?;
    /// let listed = cache.list()?;
    /// assert!(listed.iter().all(|one| one.rows == 0 && one.differs.keys().eq(["steps"])));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list(&self) -> Result<Vec<Listing>> {
        self.list_with(None, &CancelToken::new())
    }

    /// The same, with how many rows there are of a set.
    ///
    /// # Errors
    /// As [`list`](Self::list); if a sample cannot be read; [`crate::Error::Cancelled`].
    pub fn list_for(&self, set: impl Source + 'static, cancel: &CancelToken) -> Result<Vec<Listing>> {
        let keys = Dataset::new(Box::new(set), None, None, None)?.keys(cancel)?;
        self.list_with(Some(&keys), cancel)
    }

    fn list_with(&self, keys: Option<&BTreeSet<RowKey>>, cancel: &CancelToken) -> Result<Vec<Listing>> {
        let mut listed = summaries(&*self.store)?;
        for listing in &mut listed {
            cancel.check()?;
            listing.wanted = keys.map(BTreeSet::len);
            listing.found = keys.map(|_| 0);
            if let Some(partition) = AnyPartition::open(self, listing)? {
                listing.rows = partition.len();
                listing.found = keys.map(|keys| partition.count(keys));
            }
        }
        let flat: Vec<_> = listed.iter().map(|one| flattened(one.fingerprint.as_ref())).collect();
        for (at, one) in listed.iter_mut().enumerate() {
            let is_shared =
                |path: &String, value: &Value| flat.iter().all(|other| other.get(path) == Some(value));
            one.differs = flat[at]
                .iter()
                .filter(|(path, value)| !is_shared(path, value))
                .map(|(path, value)| (path.clone(), value.clone()))
                .collect();
        }
        sort_by_use(&mut listed);
        Ok(listed)
    }

    /// Decodes every row and compares its digest; damaged parts are set aside. `progress` hears how many parts are done,
    /// and of how many.
    ///
    /// # Errors
    /// If the store cannot be read; [`crate::Error::Cancelled`].
    pub fn verify(&self, cancel: &CancelToken, progress: &dyn Fn(usize, usize)) -> Result<Verified> {
        let mut found = Verified::default();
        let mut opened: Vec<AnyPartition> = Vec::new();
        for listing in summaries(&*self.store)? {
            let place = listing.path.join(FINGERPRINT);
            if let Some(partition) = AnyPartition::open(self, &listing)? {
                for part in partition.skipped() {
                    found.faults.push(format!("{} cannot be read by this version of diver", part.display()));
                }
                opened.push(partition);
                continue;
            }
            match listing.fingerprint {
                Some(_) => found.faults.push(format!(
                    "{} was changed: it does not match the name of its folder",
                    place.display()
                )),
                None => found
                    .faults
                    .push(format!("{} is missing or damaged: its rows cannot be used", place.display())),
            }
        }
        let parts: Vec<(usize, u32)> = opened
            .iter()
            .enumerate()
            .flat_map(|(at, partition)| partition.parts().into_iter().map(move |number| (at, number)))
            .collect();
        for (done, (at, number)) in parts.iter().enumerate() {
            cancel.check()?;
            progress(done, parts.len());
            opened[*at].verify(*number, &mut found)?;
        }
        progress(parts.len(), parts.len());
        Ok(found)
    }

    /// Gathers small parts in large ones, in every partition, while others read and write.
    ///
    /// # Errors
    /// If the store cannot be read or written; [`crate::Error::Cancelled`]. No row is lost.
    pub fn compact(&self, cancel: &CancelToken) -> Result<Compacted> {
        let mut all = Compacted::default();
        for listing in summaries(&*self.store)? {
            if let Some(partition) = AnyPartition::open(self, &listing)? {
                let one = partition.compact(cancel)?;
                all.gathered += one.gathered;
                all.into += one.into;
                all.rows += one.rows;
            }
        }
        Ok(all)
    }
}

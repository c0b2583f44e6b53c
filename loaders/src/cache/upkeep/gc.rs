//! Making room.

use super::listing::{Listing, delete, summaries};
use crate::cache::Cache;
use crate::cache::lease::{self, Leases};
use crate::cache::store::PartStore;
use crate::options::Amount;
use crate::said::warn_once;
use crate::{CancelToken, Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is to go.
///
/// ```
/// use diver_loaders::cache::Rules;
/// use diver_loaders::{Cache, CancelToken};
///
/// let folder = tempfile::tempdir()?;
/// let cache = Cache::open(folder.path())?;
/// cache.images(&serde_json::json!({ "steps": 50 }))?;
/// let rules = Rules { keep_bytes: Some(0), ..Rules::default() };
/// assert_eq!(cache.gc(&rules, true, &CancelToken::new())?.len(), 1);
/// assert!(cache.list()?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The fingerprints used least recently go until no more than so many bytes are left.
    pub keep_bytes: Option<u64>,
    /// Every fingerprint goes that was not used for longer.
    pub unused_for: Option<Duration>,
    /// These fingerprints go: the names of their folders, or how these begin.
    pub fingerprints: Vec<String>,
}

/// A partition that went, or would go.
#[derive(Clone, Debug, Serialize)]
pub struct Evicted {
    /// The name of its folder.
    pub name: String,
    /// The folder, as users call it. As JSON, what is not text in its name is replaced.
    #[serde(serialize_with = "crate::paths::as_text")]
    pub path: PathBuf,
    /// What makes its rows; `None` if `fingerprint.json` is not there or is damaged.
    pub fingerprint: Option<Value>,
    /// The size of all files, in bytes.
    pub bytes: u64,
    /// Seconds since it was last opened, or written; exact to some minutes.
    pub unused_seconds: f64,
    /// Whether it stays, as someone is adding to it.
    pub is_in_use: bool,
}

impl Cache {
    /// Finds what is to go, and deletes it if `apply` says so; else nothing is changed. What someone is adding to stays:
    /// to tell, its leases are watched until they are renewed or expire.
    ///
    /// # Errors
    /// If there is no such fingerprint, or several begin so; if the store cannot be read or written;
    /// [`Error::Cancelled`], and what was deleted before is gone.
    pub fn gc(&self, rules: &Rules, apply: bool, cancel: &CancelToken) -> Result<Vec<Evicted>> {
        let is_in_use = |listing: &Listing| {
            cancel.check()?;
            Leases::new(Arc::clone(&self.store), &listing.name, self.options.lease_expiry.0)
                .is_anyone_working(cancel)
        };
        let mut evicted = Vec::new();
        for (listing, is_in_use) in chosen(summaries(&*self.store)?, rules, is_in_use)? {
            cancel.check()?;
            if apply && !is_in_use {
                delete(&*self.store, &listing.name)?;
            }
            let Listing { name, path, fingerprint, bytes, unused_seconds, .. } = listing;
            evicted.push(Evicted { name, path, fingerprint, bytes, unused_seconds, is_in_use });
        }
        Ok(evicted)
    }
}

/// Those that are to go, and whether each stays all the same, as it is in use: then others go in its place.
fn chosen(
    mut listed: Vec<Listing>,
    rules: &Rules,
    is_in_use: impl Fn(&Listing) -> Result<bool>,
) -> Result<Vec<(Listing, bool)>> {
    listed.sort_by(|a, b| b.unused_seconds.total_cmp(&a.unused_seconds));
    for name in &rules.fingerprints {
        let meant: Vec<&str> =
            listed.iter().map(|one| one.name.as_str()).filter(|one| one.starts_with(name.as_str())).collect();
        if name.is_empty() {
            return Err(Error::config("fingerprint", "must not be empty"));
        }
        if meant.len() != 1 {
            let reason = if meant.is_empty() {
                format!("no fingerprint in the cache begins with `{name}`")
            } else {
                format!(
                    "`{name}` matches {} fingerprints: {}. Write more of the name",
                    meant.len(),
                    meant.join(", ")
                )
            };
            return Err(Error::config("fingerprint", reason));
        }
    }
    let mut left: u64 = listed.iter().map(|one| one.bytes).sum();
    let mut chosen = Vec::new();
    for one in listed {
        let is_named = rules.fingerprints.iter().any(|name| one.name.starts_with(name.as_str()));
        // Without a fingerprint it may be anybody's.
        let is_known = one.fingerprint.is_some();
        let is_old = rules.unused_for.is_some_and(|limit| one.unused_seconds > limit.as_secs_f64());
        // One that is empty makes no room, but goes where nothing is to be kept.
        let is_too_much = rules.keep_bytes.is_some_and(|keep| left > keep);
        if is_named || (is_known && (is_old || is_too_much)) {
            let stays = is_in_use(&one)?;
            left -= if stays { 0 } else { one.bytes };
            chosen.push((one, stays));
        }
    }
    Ok(chosen)
}

/// Makes room for a partition that is being written: others go that were used least recently and that nobody is adding
/// to, until the whole cache is within `limit` bytes.
pub(in crate::cache) fn keep_within(store: &dyn PartStore, limit: u64, own: &str) -> Result<()> {
    let rules = Rules { keep_bytes: Some(limit), ..Rules::default() };
    let is_in_use =
        |listing: &Listing| Ok(listing.name == own || !store.list(&lease::folder(&listing.name))?.is_empty());
    let listed = summaries(store)?;
    let mut left: u64 = listed.iter().map(|one| one.bytes).sum();
    for (listing, _) in chosen(listed, &rules, is_in_use)?.into_iter().filter(|(_, stays)| !stays) {
        tracing::info!("{}: deleted, to keep the cache within {limit} bytes", listing.path.display());
        delete(store, &listing.name)?;
        left -= listing.bytes;
    }
    if left > limit {
        warn_once(&format!(
            "{}: the cache has {}, more than its limit of {}: what is left is in use",
            store.place("").display(),
            Amount(left),
            Amount(limit)
        ));
    }
    Ok(())
}

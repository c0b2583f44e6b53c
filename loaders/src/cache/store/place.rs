//! Which store a user means.

use super::{LocalStore, MemoryStore, PartStore};
use crate::paths::expand_home;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Schemes of object stores; others are none of a cache.
const OBJECT_STORES: [&str; 8] = ["s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss"];

/// The stores in this process's memory, by name.
static IN_MEMORY: Mutex<Option<HashMap<String, Arc<MemoryStore>>>> = Mutex::new(None);

/// The store in a folder, or at a URL.
///
/// # Errors
/// If it cannot be opened, or the URL is none of a store.
pub(in crate::cache) fn open(place: &Path) -> Result<Arc<dyn PartStore>> {
    if place.as_os_str().is_empty() {
        return Err(Error::config("cache", "the path is empty: name a folder, or `.` for the current one"));
    }
    let Some((scheme, rest)) = url(place) else {
        return Ok(Arc::new(LocalStore::open(expand_home(place))?));
    };
    match scheme.as_str() {
        "file" => {
            let rest = match place.to_str().and_then(|text| text.split_once("://")) {
                Some((_, path)) if !path.starts_with('/') => match path.strip_prefix("localhost/") {
                    Some(path) => path.to_owned(),
                    None => {
                        let reason = format!(
                            "`{}`: a file:// URL has three slashes, as in file:///{path}",
                            place.display()
                        );
                        return Err(Error::config("cache", reason));
                    }
                },
                _ => rest,
            };
            Ok(Arc::new(LocalStore::open(PathBuf::from(format!("/{}", rest.trim_start_matches('/'))))?))
        }
        "memory" => {
            // Every update leaves the map whole.
            let mut stores = IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
            let store = stores.get_or_insert_default().entry(rest.trim_matches('/').to_owned()).or_default();
            Ok(Arc::clone(store) as Arc<dyn PartStore>)
        }
        scheme if OBJECT_STORES.contains(&scheme) => bucket(&format!("{scheme}://{rest}")),
        _ => {
            let reason = format!(
                "`{}`: a cache can be a local folder, or lie at s3://, gs://, az://, file:// or memory://; a local \
                 folder called `{scheme}:` is written `./{scheme}:`",
                place.display()
            );
            Err(Error::config("cache", reason))
        }
    }
}

#[cfg(feature = "cloud")]
fn bucket(url: &str) -> Result<Arc<dyn PartStore>> {
    Ok(Arc::new(super::BucketStore::open(url)?))
}

#[cfg(not(feature = "cloud"))]
fn bucket(url: &str) -> Result<Arc<dyn PartStore>> {
    let reason = format!(
        "`{url}`: this build has no object stores: build it with the feature `cloud`, or give a folder"
    );
    Err(Error::config("cache", reason))
}

/// The scheme of a URL, in lower case, and what comes after its slashes; `None` of a path.
fn url(place: &Path) -> Option<(String, String)> {
    crate::paths::refused(place)?;
    let (scheme, rest) = place.to_str()?.split_once(":/")?;
    // `pathlib` leaves one slash of two.
    Some((scheme.to_ascii_lowercase(), rest.strip_prefix('/').unwrap_or(rest).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_folders_lead_to_their_stores() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let by_url = open(Path::new(&format!("file://{}", root.display()))).unwrap();
        by_url.make_folder("a").unwrap();
        assert_eq!(open(&root).unwrap().folders().unwrap(), ["a"]);
        let by_host = format!("file://localhost{}", root.display());
        assert_eq!(open(Path::new(&by_host)).unwrap().folders().unwrap(), ["a"]);
        open(Path::new("memory://one")).unwrap().put("a/b", b"x").unwrap();
        assert_eq!(open(Path::new("memory:/one")).unwrap().get("a/b").unwrap(), "x");
        assert!(open(Path::new("memory://two")).unwrap().folders().unwrap().is_empty());
        for (url, reason) in [
            ("", "empty"),
            ("file://host/x", "file:///host/x"),
            ("ftp://host/x", "s3://"),
            ("hf://datasets/a/b", "s3://"),
            ("https://host/x", "s3://"),
        ] {
            let error = open(Path::new(url)).unwrap_err();
            assert!(
                matches!(error, Error::Config { option: "cache", .. }) && error.to_string().contains(reason)
            );
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_url_without_a_bucket_is_refused() {
        for url in ["s3://", "s3:///x", "gs://"] {
            assert!(open(Path::new(url)).unwrap_err().to_string().contains("bucket"), "{url}");
        }
    }
}

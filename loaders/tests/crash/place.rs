//! Where a test's cache lies: in a folder, or in a bucket whose server keeps it in a folder.

#[cfg(feature = "cloud")]
use crate::bucket::Server;
use crate::child::Job;
use diver_loaders::Cache;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) struct Place {
    folder: tempfile::TempDir,
    #[cfg(feature = "cloud")]
    server: Option<Server>,
}

impl Place {
    pub(crate) fn folder() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            #[cfg(feature = "cloud")]
            server: None,
        }
    }

    #[cfg(feature = "cloud")]
    pub(crate) fn bucket() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), server: Some(Server::start()) }
    }

    /// The cache as this process opens it.
    pub(crate) fn cache(&self) -> Cache {
        #[cfg(feature = "cloud")]
        if let Some(server) = &self.server {
            return Cache::on(server.store(server.port(), "s3://bucket/cache").unwrap());
        }
        Cache::open(self.on_disk()).unwrap()
    }

    /// The folder that holds the cache's files.
    pub(crate) fn on_disk(&self) -> PathBuf {
        #[cfg(feature = "cloud")]
        if let Some(server) = &self.server {
            return server.folder().join("bucket/cache");
        }
        self.folder.path().join("cache")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What a child has to know besides its job.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        #[cfg(feature = "cloud")]
        if let Some(server) = &self.server {
            return server.env();
        }
        Vec::new()
    }

    /// A process's work on this cache.
    pub(crate) fn job(&self, round: u64, samples: usize, expiry: Duration) -> Job {
        let on_disk = self.on_disk().to_str().unwrap().to_owned();
        #[cfg(feature = "cloud")]
        let on_disk = self.server.as_ref().map_or(on_disk, |_| "s3://bucket/cache".to_owned());
        Job {
            cache: on_disk,
            log: self.log(),
            round,
            samples,
            delay: Duration::from_millis(2),
            expiry,
            compacts: false,
            reads: None,
        }
    }
}

/// The names of all files in a folder, hidden ones included, and of its folders that have none.
pub(crate) fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What is deleted meanwhile is not there.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let within = if path.is_dir() { all_files(&path) } else { Vec::new() };
        if within.is_empty() {
            found.push(path);
        }
        found.extend(within);
    }
    found.sort();
    found
}

/// What is in a cache's folder besides parts and what each partition has one of.
pub(crate) fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let is_known = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        matches!(name, "fingerprint.json" | "used" | "gathered")
            || name.starts_with("part-") && name.ends_with(".parquet")
    };
    all_files(folder).into_iter().filter(|path| !is_known(path)).collect()
}

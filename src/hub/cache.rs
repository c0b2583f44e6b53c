//! The folder of a repository in the cache, in the layout of Python's `huggingface_hub`: `blobs/` holds files by their
//! hash, `snapshots/COMMIT/` names them by links, `refs/` says which commit a branch was last seen at.

use super::repository::is_commit;
use super::{Options, Repository};
use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a file that another process downloads is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// After what time it is said that there is something to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A repository's folder in the cache.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(options: &Options, repository: &Repository) -> Self {
        let name = format!("models--{}", repository.id().replace('/', "--"));
        Self { folder: options.cache.join(&name), locks: options.cache.join(".locks").join(name) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a revision stood for when it was last asked for.
    pub(super) fn commit(&self, repository: &Repository) -> Option<String> {
        if let Some(commit) = repository.commit() {
            return Some(commit.to_owned());
        }
        let text = fs::read_to_string(self.reference(repository)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes what a revision stands for, once the files of that commit are there.
    pub(super) fn note(&self, repository: &Repository, commit: &str) -> Result<()> {
        if repository.commit().is_some() || self.commit(repository).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(repository);
        make_parent(&path)?;
        replace(&path, |temporary| fs::write(temporary, commit))
    }

    fn reference(&self, repository: &Repository) -> PathBuf {
        self.folder.join("refs").join(repository.revision())
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Names a blob in a snapshot. The link is relative, so that a cache can be moved.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        if path.exists() {
            return Ok(());
        }
        make_parent(&path)?;
        let mut target = PathBuf::from_iter(file.split('/').map(|_| ".."));
        target.extend(["..", "blobs", etag]);
        let blob = self.blob(etag);
        // Where there are no links (some file systems, Windows), a copy does as well.
        replace(&path, |temporary| {
            symlink(&target, temporary).or_else(|_| fs::copy(&blob, temporary).map(|_| ()))
        })
    }

    /// Waits until this process alone may write a blob, if there are locks. `done` is asked meanwhile, and ends the wait with `None`.
    pub(super) fn lock(
        &self,
        etag: &str,
        options: &Options,
        done: impl Fn() -> bool,
    ) -> Result<Option<Lock>> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let begin = Instant::now();
        let mut is_said = false;
        loop {
            options.check_cancelled()?;
            if done() {
                return Ok(None);
            }
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(Error::io(&path, "cannot open"))?;
            match file.try_lock() {
                // Python may delete the file that it had locked: then this lock is on nothing.
                Ok(()) if !is_deleted(&file) => return Ok(Some(Lock { file: Some(file) })),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    // Some network file systems know no locks. Then every process downloads for itself.
                    tracing::debug!("{}: cannot lock: {error}", path.display());
                    return Ok(Some(Lock::shared()));
                }
            }
            if begin.elapsed() > PATIENCE && !is_said {
                tracing::warn!(
                    "waiting for another process that is downloading {}",
                    self.blob(etag).display()
                );
                is_said = true;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The right to write a blob; the system takes it back when the process ends, however it ends.
pub(super) struct Lock {
    file: Option<File>,
}

impl Lock {
    /// The one where files cannot be locked: other processes may have it too.
    pub(super) fn shared() -> Self {
        Self { file: None }
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}

pub(super) fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(Error::io(folder, "cannot make the folder")),
        None => Ok(()),
    }
}

/// Makes a file whole or not at all, whoever else makes it at the same time.
fn replace(path: &Path, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = std::thread::current().id();
    let temporary = path.with_file_name(format!(".{name}.{}.{thread:?}", std::process::id()));
    let made = match make(&temporary) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Left by a process that had the same number.
            let _ = fs::remove_file(&temporary);
            make(&temporary)
        }
        made => made,
    };
    let renamed = made.and_then(|()| fs::rename(&temporary, path));
    renamed.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, "cannot make the file")(error)
    })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn is_deleted(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|data| data.nlink() == 0)
}

#[cfg(not(unix))]
fn is_deleted(_: &File) -> bool {
    false
}

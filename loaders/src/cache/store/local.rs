//! A store in a folder on disk.

use super::{PartStore, Stat};
use crate::source::containers::tensor::read_at;
use crate::{Error, Result};
use bytes::Bytes;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, SystemTime};

/// How the names of files in the making begin.
const WRITING: &str = ".writing-";

const CANNOT_READ: &str = "cannot read";
const CANNOT_WRITE: &str = "cannot write to the folder";

/// How often a file is begun anew whose folder, or which itself, somebody else deletes meanwhile.
const TRIES: usize = 16;

type SyncFolder = fn(&Path) -> std::io::Result<()>;

/// A folder on disk. A file appears under its name complete and synced, or not at all.
///
/// ```
/// use diver_loaders::cache::{LocalStore, PartStore};
///
/// let folder = tempfile::tempdir()?;
/// let store = LocalStore::open(folder.path().join("cache"))?;
/// store.put("a/0", b"bytes")?;
/// assert_eq!(std::fs::read(folder.path().join("cache/a/0"))?, b"bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    /// Makes renames in a folder durable; another in tests, as no disk at hand refuses it.
    sync: SyncFolder,
    /// Done once a warning says that this store's folders cannot be synced.
    warning: Once,
}

impl LocalStore {
    /// The store in the folder `root`, which is made if it is not there.
    ///
    /// # Errors
    /// If it is not there and cannot be made.
    pub fn open(root: PathBuf) -> Result<Self> {
        if root.is_file() {
            return Err(Error::format(&root, "it is a file; a folder is expected"));
        }
        fs::create_dir_all(&root).map_err(Error::io(&root, "cannot make the folder"))?;
        Ok(Self { root, sync: sync_folder, warning: Once::new() })
    }

    /// Removes what processes that were killed while writing left behind. Who writes a file holds its lock, which ends
    /// with the process: no clock is asked. Where files cannot be locked, leftovers go after a day.
    fn remove_leftovers(folder: &Path) {
        const AGE: Duration = Duration::from_secs(24 * 60 * 60);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(WRITING) {
                continue;
            }
            let path = entry.path();
            let Ok(file) = File::open(&path) else { continue };
            let is_left = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => file.metadata().is_ok_and(|metadata| age(&metadata) > AGE),
            };
            if is_left {
                // Someone else may have been faster; what stays costs room and nothing else.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The names of what is in a folder and is as `wanted`.
    fn names(folder: &Path, wanted: impl Fn(&fs::FileType) -> bool) -> Result<Vec<String>> {
        let failed = || Error::io(folder, "cannot list the folder");
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed())?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            // Names that are not Unicode are none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
                && kind(&entry).is_ok_and(|kind| wanted(&kind))
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// A file, with its path and its size.
    fn open_file(&self, name: &str) -> Result<(PathBuf, File, u64)> {
        let path = self.place(name);
        let file = File::open(&path).map_err(Error::io(&path, "cannot open"))?;
        let size = file.metadata().map_err(Error::io(&path, CANNOT_READ))?.len();
        Ok((path, file, size))
    }

    /// Writes a file beside `path` and has `persist` give it its name. Where locks do not reach other machines, one of
    /// them may take it for a leftover before that: then it is written again.
    fn write<T>(
        &self,
        path: &Path,
        bytes: &[u8],
        persist: impl Fn(tempfile::NamedTempFile) -> std::io::Result<T>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            tries += 1;
            match persist(self.write_temporary(path, bytes)?) {
                Err(error) if error.kind() == ErrorKind::NotFound && tries < TRIES => {}
                other => return other.map_err(Error::io(path, "cannot write")),
            }
        }
    }

    /// A file with `bytes`, beside where it belongs.
    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
        let folder = path.parent().unwrap_or(&self.root);
        let failed = || Error::io(folder, CANNOT_WRITE);
        let mut file = temporary(folder);
        for _ in 0..TRIES {
            match file {
                // The folder may have been deleted meanwhile. Not what it is in, as above.
                Err(Error::Io { ref source, .. }) if source.kind() == ErrorKind::NotFound => {
                    match fs::create_dir(folder) {
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                        other => other.map_err(failed())?,
                    }
                    file = temporary(folder);
                }
                _ => break,
            }
        }
        let mut file = file?;
        file.write_all(bytes).map_err(failed())?;
        Ok(file)
    }

    /// Makes a rename durable, as far as the file system can. The file is there under its name, with its content synced:
    /// what fails here takes nothing away.
    fn sync(&self, path: &Path) {
        let folder = path.parent().unwrap_or(&self.root);
        match (self.sync)(folder) {
            Err(error) if !is_unsupported(&error) => self.warning.call_once(|| {
                let folder = folder.display();
                tracing::warn!(
                    "{folder}: cannot sync the folder: {error}; a power cut may undo what was written last"
                );
            }),
            _ => {}
        }
    }
}

impl PartStore for LocalStore {
    fn place(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        let folder = self.place(folder);
        // Not what it is in: that may be a disk which is not there now.
        let made = match fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        let refused = "the cache has no folder for this refiner, and it cannot be made";
        made.map_err(Error::io(&folder, refused))?;
        Self::remove_leftovers(&folder);
        Ok(())
    }

    fn folders(&self) -> Result<Vec<String>> {
        Self::names(&self.root, fs::FileType::is_dir)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Self::names(&self.place(folder), |kind| !kind.is_dir())
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let path = self.place(name);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(Stat {
                size: metadata.len(),
                age: age(&metadata),
                version: Some(version(&metadata).into()),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, CANNOT_READ)(error)),
        }
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let path = self.place(name);
        fs::read(&path).map(Bytes::from).map_err(Error::io(&path, CANNOT_READ))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let (path, file, size) = self.open_file(name)?;
        read(&file, range.start..range.end.min(size)).map_err(Error::io(&path, CANNOT_READ))
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        let (path, file, size) = self.open_file(name)?;
        let bytes = read(&file, size.saturating_sub(length)..size).map_err(Error::io(&path, CANNOT_READ))?;
        Ok((bytes, size))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.place(name);
        let is_new = self.write(&path, bytes, |file| {
            file.as_file().sync_all()?;
            match file.persist_noclobber(&path) {
                Ok(_) => Ok(true),
                Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(refused) => Err(refused.error),
            }
        })?;
        if is_new {
            self.sync(&path);
        }
        Ok(is_new)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.place(name);
        self.write(&path, bytes, |file| file.persist(&path).map(drop).map_err(|refused| refused.error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let path = self.place(from);
        match fs::rename(&path, self.place(to)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io(&path, "cannot rename")),
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.place(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io(&path, "cannot delete")),
        }
    }

    fn delete_folder(&self, folder: &str) -> Result<()> {
        let path = self.place(folder);
        Self::remove_leftovers(&path);
        match fs::remove_dir(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            other => other.map_err(Error::io(&path, "cannot delete")),
        }
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        temporary(&self.place(folder)).map(drop)
    }
}

/// What an entry of a folder is, or what it links to.
fn kind(entry: &fs::DirEntry) -> std::io::Result<fs::FileType> {
    match entry.file_type()? {
        link if link.is_symlink() => Ok(fs::metadata(entry.path())?.file_type()),
        kind => Ok(kind),
    }
}

/// The bytes of a range, fewer if the file has shrunk meanwhile.
fn read(file: &File, range: Range<u64>) -> std::io::Result<Bytes> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match read_at(file, &mut bytes[filled..], range.start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

/// An empty file in the making, locked for as long as it is open.
fn temporary(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(WRITING);
    // Temporary files are private to their owner by default, but a cache is shared.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let made = || builder.tempfile_in(folder).map_err(Error::io(folder, CANNOT_WRITE));
    let mut file = made()?;
    for _ in 0..TRIES {
        // Before we have the lock, someone may take the file for a leftover.
        let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && file.path().exists() {
            break;
        }
        file = made()?;
    }
    Ok(file)
}

/// Since a file was written. One that a clock puts into the future is new.
fn age(metadata: &Metadata) -> Duration {
    metadata.modified().ok().and_then(|written| written.elapsed().ok()).unwrap_or_default()
}

/// A file that takes another one's place is another file, written at another time.
fn version(metadata: &Metadata) -> String {
    #[cfg(unix)]
    let file = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let file = metadata.len();
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{file}-{}", metadata.modified().map(since).unwrap_or_default())
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    // Windows opens no folders, and its file systems keep renames by themselves.
    if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }
}

/// Whether `error` says that this file system does not sync folders, as those over a network often do not.
fn is_unsupported(error: &std::io::Error) -> bool {
    /// What some say of a descriptor that is not open for writing.
    const EBADF: i32 = 9;
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
        || error.raw_os_error() == Some(EBADF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_the_dead_go_and_files_of_the_living_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path().to_owned()).unwrap();
        store.make_folder("a").unwrap();
        let folder = root.path().join("a");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let dead = folder.join(format!("{WRITING}dead"));
        fs::write(&dead, b"half a par").unwrap();
        let alive = store.write_temporary(&folder.join("part-0"), b"a part").unwrap();
        // Whatever clocks say.
        alive.as_file().set_modified(long_ago).unwrap();
        store.make_folder("a").unwrap();
        assert!(!dead.exists() && alive.path().exists());
        store.delete_folder("a").unwrap();
        assert!(alive.path().exists());
        drop(alive);
        fs::write(&dead, b"").unwrap();
        store.delete_folder("a").unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_file_that_another_machine_took_for_a_leftover_is_written_again() {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path().to_owned()).unwrap();
        let (path, tries) = (root.path().join("a/part-0"), std::cell::Cell::new(0));
        let persist = |file: tempfile::NamedTempFile| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 {
                fs::remove_file(file.path())?;
            }
            file.persist(&path).map(drop).map_err(|refused| refused.error)
        };
        store.write(&path, b"a part", persist).unwrap();
        assert_eq!((fs::read(&path).unwrap(), tries.get()), (b"a part".to_vec(), 3));
    }

    #[test]
    fn files_are_written_while_others_tidy_up_and_delete_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path().to_owned()).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let name = format!("a/{writer}");
                        store.put(&name, b"beat").unwrap();
                        store.delete(&name).unwrap();
                        store.delete_folder("a").unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_file_counts_where_folders_cannot_be_synced() {
        let cases: [(SyncFolder, bool); 4] = [
            (|_| Err(std::io::Error::from_raw_os_error(22)), false), // EINVAL
            (|_| Err(ErrorKind::Unsupported.into()), false),         // ENOTSUP
            (|_| Err(std::io::Error::from_raw_os_error(9)), false),  // EBADF
            (|_| Err(std::io::Error::from_raw_os_error(5)), true),   // EIO
        ];
        for (sync, warns) in cases {
            let root = tempfile::tempdir().unwrap();
            let store = LocalStore { sync, ..LocalStore::open(root.path().join("made")).unwrap() };
            assert!(store.put_if_absent("a/part-0", b"a").unwrap());
            assert_eq!(store.get("a/part-0").unwrap(), "a");
            assert_eq!(store.warning.is_completed(), warns);
        }
    }
}

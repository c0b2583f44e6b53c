//! The files of one fingerprint: how they are listed, written whole, and set aside.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// How the names of files in the making begin.
const WRITING: &str = ".writing-";

const CANNOT_WRITE: &str = "cannot write to the folder";

type SyncFolder = fn(&Path) -> std::io::Result<()>;

/// The folder of one fingerprint.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Makes renames in a folder durable; another in tests, as no disk at hand refuses it.
    sync: SyncFolder,
    /// Done once a warning says that this folder cannot be synced.
    warning: Once,
}

impl Folder {
    /// Makes the folder if it is not there.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let missing = "the cache has no images of this refiner, and their folder cannot be made";
        fs::create_dir_all(&path).map_err(Error::io(&path, missing))?;
        let folder = Self { path, sync: sync_folder, warning: Once::new() };
        folder.remove_leftovers();
        Ok(folder)
    }

    /// Removes what processes that were killed while writing left behind. A younger file may be in the making.
    fn remove_leftovers(&self) {
        const AGE: Duration = Duration::from_secs(24 * 60 * 60);
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let is_old = || entry.metadata()?.modified()?.elapsed().map_err(std::io::Error::other);
            if entry.file_name().to_string_lossy().starts_with(WRITING) && is_old().is_ok_and(|age| age > AGE)
            {
                // Someone else may have been faster; what stays costs room and nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn part_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("part-{number:08}.parquet"))
    }

    /// The numbers of the committed parts, ascending.
    pub(super) fn parts(&self) -> Result<Vec<u64>> {
        Ok(self.numbers()?.into_iter().filter_map(|(number, sound)| sound.then_some(number)).collect())
    }

    /// Commits `bytes` as a new part and returns its number. The number follows every number ever taken, so
    /// numbers order parts by commit.
    pub(super) fn commit_part(&self, bytes: &[u8]) -> Result<u64> {
        let mut file = self.write_temporary(bytes)?;
        let mut number = self.numbers()?.last().map_or(0, |(last, _)| last + 1);
        loop {
            let path = self.part_path(number);
            match file.persist_noclobber(&path) {
                Ok(_) => {
                    self.sync();
                    return Ok(number);
                }
                // Another process took the number between our look and our claim.
                Err(e) if e.error.kind() == ErrorKind::AlreadyExists => {
                    file = e.file;
                    number += 1;
                }
                Err(e) => return Err(Error::io(&path, "cannot commit the part")(e.error)),
            }
        }
    }

    /// Whether something could be written now, as far as can be told before it is tried.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.temporary().map(drop)
    }

    /// Writes the file `name` whole, replacing an older one.
    pub(super) fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        self.write_temporary(bytes)?.persist(&path).map_err(|e| Error::io(&path, "cannot write")(e.error))?;
        self.sync();
        Ok(())
    }

    /// Sets a damaged part aside. Its number stays taken, so that no reader can mistake a later part for it.
    pub(super) fn quarantine(&self, number: u64) -> Result<PathBuf> {
        let (from, to) = (self.part_path(number), self.path.join(format!("part-{number:08}.corrupt")));
        match fs::rename(&from, &to) {
            // Another process was faster.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(to),
            other => other.map(|()| to).map_err(Error::io(&from, "cannot set the damaged part aside")),
        }
    }

    /// Every number taken, ascending, and whether its part is still in use.
    fn numbers(&self) -> Result<Vec<(u64, bool)>> {
        let list = Error::io(&self.path, "cannot list the folder");
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(list)? {
            let entry = entry.map_err(Error::io(&self.path, "cannot list the folder"))?;
            let name = entry.file_name();
            let Some((stem, extension)) =
                name.to_str().and_then(|n| n.strip_prefix("part-")).and_then(|n| n.split_once('.'))
            else {
                continue;
            };
            if let (Ok(number), "parquet" | "corrupt") = (stem.parse(), extension) {
                numbers.push((number, extension == "parquet"));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn write_temporary(&self, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
        let failed = || Error::io(&self.path, CANNOT_WRITE);
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        Ok(file)
    }

    /// An empty file in the making.
    fn temporary(&self) -> Result<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(WRITING);
        // Temporary files are private to their owner by default, but a cache is shared.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(&self.path).map_err(Error::io(&self.path, CANNOT_WRITE))
    }

    /// Makes a rename in the folder durable, as far as the file system can. The file is there under its name, with its
    /// content synced: what fails here takes nothing away.
    fn sync(&self) {
        match (self.sync)(&self.path) {
            Err(error) if !is_unsupported(&error) => self.warning.call_once(|| {
                let path = self.path.display();
                tracing::warn!(
                    "{path}: cannot sync the folder: {error}; a power cut may undo what was written last"
                );
            }),
            _ => {}
        }
    }
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
    fn a_part_counts_where_folders_cannot_be_synced() {
        let cases: [(SyncFolder, bool); 4] = [
            (|_| Err(std::io::Error::from_raw_os_error(22)), false), // EINVAL
            (|_| Err(ErrorKind::Unsupported.into()), false),         // ENOTSUP
            (|_| Err(std::io::Error::from_raw_os_error(9)), false),  // EBADF
            (|_| Err(std::io::Error::from_raw_os_error(5)), true),   // EIO
        ];
        for (sync, warns) in cases {
            let root = tempfile::tempdir().unwrap();
            let folder = Folder { sync, ..Folder::create(root.path().join("made")).unwrap() };
            folder.write_file("fingerprint.json", b"{}").unwrap();
            assert_eq!([folder.commit_part(b"a").unwrap(), folder.commit_part(b"b").unwrap()], [0, 1]);
            assert_eq!(folder.parts().unwrap(), [0, 1]);
            assert_eq!(folder.warning.is_completed(), warns);
        }
    }
}

//! Files of an export.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

/// Creates a file.
pub(super) fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new).map_err(Error::io(path, "cannot write"))
}

/// Ends a file; it is on the disk when this returns.
pub(super) fn close(path: &Path, file: BufWriter<File>) -> Result<()> {
    let io = |e| Error::io(path, "cannot write")(e);
    let file = file.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)
}

/// Gives a temporary folder, which is private, the rights of any other.
#[cfg(unix)]
pub(super) fn make_listable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = folder.parent().unwrap_or(Path::new("."));
    let rights = fs::metadata(parent).map_err(Error::io(parent, "cannot read"))?.permissions().mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(rights & 0o777 | 0o700))
        .map_err(Error::io(folder, "cannot write to"))
}

#[cfg(not(unix))]
pub(super) fn make_listable(_folder: &Path) -> Result<()> {
    Ok(())
}

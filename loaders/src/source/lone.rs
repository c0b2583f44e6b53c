//! A folder with one file that is a set of its own, as an export leaves it, opens as that file.

use super::{folder, plain};
use crate::Result;
use std::path::{Path, PathBuf};

/// The one file in a folder that by its name, and an npz by what it holds, is a set of its own; none if there are
/// several, of which whoever opens them must choose.
///
/// # Errors
/// If the folder cannot be listed.
pub(super) fn find(path: &Path) -> Result<Option<PathBuf>> {
    let is_set = |file: &PathBuf| file.is_file() && is_named_as_set(file);
    let mut sets = folder::names(path)?.into_iter().map(|name| path.join(name)).filter(is_set);
    Ok(sets.next().filter(|_| sets.next().is_none()))
}

fn is_named_as_set(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of_dc = name.starts_with("res_") && name.ends_with(".pt");
    of_dc || name == "data.safetensors" || plain::is_npz(file) && plain::is_pair(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_set_in_a_folder_is_found_and_of_several_none() {
        let folder = tempfile::tempdir().unwrap();
        let npz = |name: &str, arrays: &[&str]| {
            let mut zip = zip::ZipWriter::new(fs::File::create(folder.path().join(name)).unwrap());
            for array in arrays {
                zip.start_file(format!("{array}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            }
            zip.finish().unwrap();
        };
        let found = || find(folder.path()).unwrap().map(|file| folder.path().join(file));
        fs::write(folder.path().join("norm.json"), "").unwrap();
        fs::write(folder.path().join("model.pt"), "").unwrap();
        fs::write(folder.path().join("damaged.npz"), "").unwrap();
        npz("transform.npz", &["mean", "inverse"]);
        assert_eq!(found(), None);
        npz("own.npz", &["images", "labels"]);
        assert_eq!(found(), Some(folder.path().join("own.npz")));
        fs::remove_file(folder.path().join("own.npz")).unwrap();
        for name in ["data.safetensors", "res_DM_CIFAR10_ConvNet_1ipc.pt"] {
            fs::write(folder.path().join(name), "").unwrap();
            assert_eq!(found(), Some(folder.path().join(name)));
            fs::write(folder.path().join("res_DC.pt"), "").unwrap();
            assert_eq!(found(), None, "there are several");
            fs::remove_file(folder.path().join("res_DC.pt")).unwrap();
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

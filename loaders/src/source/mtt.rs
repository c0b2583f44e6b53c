//! MTT, EDF, DATM and GLaD: a folder of `images_{it}.pt` and `labels_{it}.pt`, a bare tensor each.

use super::torch::{TensorRef, TorchFile};
use super::{MemorySource, OpenOptions, normalization, tensors};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The images file of a run: `images_best.pt`, else the one of the highest iteration, in the folder itself or
/// where EDF and DATM put it, in `Normal/`.
pub(super) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    for folder in [folder.to_owned(), folder.join("Normal")] {
        if !folder.is_dir() {
            continue;
        }
        let best = folder.join("images_best.pt");
        if best.is_file() {
            return Ok(Some(best));
        }
        let names = super::folder::names(&folder)?;
        let iteration = |name: &str| images_suffix(name)?.parse::<u64>().ok();
        let latest = names.iter().filter_map(|name| Some((iteration(name)?, name))).max();
        if let Some((_, name)) = latest {
            return Ok(Some(folder.join(name)));
        }
    }
    Ok(None)
}

/// `best` or `5000`, of `images_best.pt` or `images_5000.pt`.
fn images_suffix(name: &str) -> Option<&str> {
    name.strip_prefix("images_")?.strip_suffix(".pt")
}

/// Opens an images file, whose labels lie beside it.
pub(super) fn open(mut file: TorchFile, options: &OpenOptions) -> Result<MemorySource> {
    let path = file.path().to_owned();
    let suffix = path.file_name().and_then(|name| images_suffix(name.to_str()?));
    let Some(suffix) = suffix else {
        let reason = "a bare tensor: of MTT's files, open the run's folder or its images_<iteration>.pt";
        return Err(Error::format(&path, reason));
    };
    if suffix.starts_with("zca") {
        let reason =
            "images with MTT's ZCA undone are not read yet: open images_best.pt, or the run's folder";
        return Err(Error::format(&path, reason));
    }
    let labels_path = path.with_file_name(format!("labels_{suffix}.pt"));
    if !labels_path.is_file() {
        return Err(Error::format(&path, format!("its labels, {}, are missing", labels_path.display())));
    }
    let mut labels_file = TorchFile::open(&labels_path)?;
    let labels = bare_tensor(&labels_file)?;
    let labels = tensors::labels(&mut labels_file, &labels, "labels", options.classes)?;
    let images = bare_tensor(&file)?;
    let (normalize, mut notes) = normalization::stored(&path, "mtt", options)?;
    if let Some(zca) = zca_sibling(&path)? {
        notes.push(format!(
            "{zca} lies beside the images: if the run used --zca, they are whitened as well, which is \
             not undone"
        ));
    }
    tensors::source(&mut file, &images, "images", labels, "mtt", (normalize, notes))
}

fn bare_tensor(file: &TorchFile) -> Result<TensorRef> {
    let root = file.root();
    root.as_tensor().cloned().ok_or_else(|| {
        Error::format(file.path(), format!("holds {}, where a tensor is expected", root.kind()))
    })
}

fn zca_sibling(path: &Path) -> Result<Option<String>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(super::folder::names(folder)?.into_iter().find(|name| name.starts_with("images_zca_")))
}

//! MTT, GLaD, EDF, DATM and DC-BENCH: images and labels as a bare tensor each, in files that go by pairs of names.

use super::adapters::{self, Canvases};
use super::containers::tensor::{TensorFile, TensorRef};
use super::containers::torch::{self, Pickle};
use super::normalization::{self, Space};
use super::tensors::{About, Images};
use super::{LabelKind, OpenOptions, Source, ValueSpace, Values};
use crate::labels::Labels;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The folder in which EDF and DATM put what others put into the run's own.
const NORMAL: &str = "Normal";

/// DATM distils CIFAR and Tiny ImageNet, whitened: at most so many pixels and classes. EDF's smallest images, at 64
/// pixels, are ImageNet's, of a thousand classes.
const LARGEST_OF_DATM: usize = 64;
const MOST_CLASSES_OF_DATM: usize = 200;

const GLAD_CONSTANTS: &str = "; if GLaD made them with space=wp, the constants are mean 0.4377, 0.4438, 0.4728 and \
                              std 0.229, 0.224, 0.225 (of CIFAR-100 0.5 and 0.5): give mean and std then";

/// The images file of a run: `images_best.pt`, else the one of the highest iteration, in the folder itself or
/// where EDF and DATM put it, in `Normal/`; else the one `<name>_images.pt` of DC-BENCH.
pub(super) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    for folder in [folder.to_owned(), folder.join(NORMAL)] {
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
        let mut named = names.iter().filter(|name| images_prefix(name).is_some());
        if let (Some(name), None) = (named.next(), named.next()) {
            return Ok(Some(folder.join(name)));
        }
    }
    Ok(None)
}

/// The images files of a set that DC-BENCH has in parts, `images_best_0.pt` and so on, if there are any in a folder.
///
/// # Errors
/// If a part is missing between others.
pub(super) fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let names = super::folder::names(folder)?;
    let part = |name: &String| images_suffix(name)?.strip_prefix("best_")?.parse::<usize>().ok();
    let count = names.iter().filter(|name| part(name).is_some()).count();
    let paths = (0..count).map(|part| folder.join(format!("images_best_{part}.pt")));
    paths
        .map(|path| match path.is_file() {
            true => Ok(path),
            false => Err(Error::format(&path, "this part of the set is missing, where later ones are there")),
        })
        .collect()
}

/// `best`, `5000`, `zca_5000` or `best_0`, of `images_best.pt` and its like.
fn images_suffix(name: &str) -> Option<&str> {
    name.strip_prefix("images_")?.strip_suffix(".pt")
}

/// `cifar10_IPC1`, of `cifar10_IPC1_images.pt`.
fn images_prefix(name: &str) -> Option<&str> {
    name.strip_suffix("_images.pt").filter(|prefix| !prefix.is_empty())
}

/// Opens an images file, whose labels lie beside it.
pub(super) fn open(file: TensorFile, pickle: &Pickle, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let path = file.path().to_owned();
    let images = Images::new(bare_tensor(&file, pickle)?, file, "images")?.of_floats()?;
    let folder = folder_of(&path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_unwhitened = images_suffix(name).is_some_and(|suffix| suffix.starts_with("zca_"));

    if is_unwhitened && options.zca.is_some() && options.values.is_none() {
        let reason = format!("{} has pixels, with ZCA undone: there is nothing to transform", path.display());
        return Err(Error::config("zca", reason));
    }
    let labels_path = labels_path(&path, name)?;
    let (labels_file, labels_pickle) = torch::open(&labels_path)?;
    let labels = bare_tensor(&labels_file, &labels_pickle)?;
    let labels = Labels::read(&labels_file, &labels, "labels", images.len(), options)?;

    let whitened = if is_unwhitened { None } else { whitened(&folder, &images, &labels)? };
    let usual = match (is_unwhitened, &whitened) {
        (true, _) => Values::Unit,
        (false, Some(_)) => Values::Whitened,
        (false, None) => Values::Normalized,
    };
    // Their name says it, whatever a sidecar says of the whitened ones.
    let values = options.values.or(is_unwhitened.then_some(usual));
    let of_values = OpenOptions { values, ..options.clone() };
    let mut space: Space = normalization::space(&path, "mtt", usual, &of_values)?;
    if let Some(reason) = whitened
        && normalization::told(&path, options)?.is_none()
    {
        space.notes.push(reason);
    }
    let learning_rate = learning_rate(&path, name)?;
    let method = method(&folder, name, labels.kind);
    if method.contains("GLaD")
        && matches!(space.values, ValueSpace::Normalized(_))
        && let Some(assumed) = space.notes.first_mut()
    {
        assumed.push_str(GLAD_CONSTANTS);
    }
    let shape = images.tensor.shape();
    let native = normalization::native_side(&path, "mtt", options);
    let found = native.and_then(|(side, of)| Some((adapters::along([shape[2], shape[3]], side)?, side, of)));
    let canvas = match (options.canvas, found) {
        (Some(along), _) => along,
        (None, Some((along, side, _))) if options.dataset.is_some() => {
            space.notes.push(format!(
                "images of {} pixels a side, of a dataset whose have {side}, are taken for texture canvases, as MTT's \
                 runs with --texture store them, of {along} x {along} images each: give `canvas` if that is wrong (1: \
                 none)",
                shape[2]
            ));
            along
        }
        (None, Some((along, side, dataset))) => {
            space.notes.push(format!(
                "images have {} pixels a side, those of {dataset}, named in the path, {side}: give `canvas` ({along}) \
                 if they are texture canvases, as MTT's runs with --texture store them; they are taken for images",
                shape[2]
            ));
            1
        }
        (None, None) => 1,
    };
    let about = About { format: "mtt", method: Some(method), space, learning_rate };
    let source = images.into_source(labels, about, options)?;
    if canvas == 1 { Ok(source) } else { Ok(Box::new(Canvases::new(source, canvas)?)) }
}

/// Why the images of a run are taken for whitened, if they are.
fn whitened(folder: &Path, images: &Images, labels: &Labels) -> Result<Option<String>> {
    let how = "say what the values are if that is wrong";
    let names = super::folder::names(folder)?;
    if let Some(zca) = names.iter().find(|name| name.starts_with("images_zca_")) {
        return Ok(Some(format!(
            "{zca} lies beside the images, as runs with --zca write it: they are taken to be ZCA-whitened, to be \
             trained on as they are; {zca} has pixels, which can be refined; {how}"
        )));
    }
    let side = images.tensor.shape()[2];
    let is_small = side <= LARGEST_OF_DATM && labels.classes <= MOST_CLASSES_OF_DATM;
    if labels.kind == LabelKind::Logits && folder.ends_with(NORMAL) && is_small {
        return Ok(Some(format!(
            "logits beside images of {side} pixels are DATM's, which are ZCA-whitened by default: they are taken to \
             be, to be trained on as they are; {how}"
        )));
    }
    Ok(None)
}

/// The folder of a file, by its whole name: a relative one may hide that it is `Normal`.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// What wrote the files, as far as their names tell.
fn method(folder: &Path, name: &str, labels: LabelKind) -> String {
    let in_normal = folder.ends_with(NORMAL);
    let five_digits = images_suffix(name).is_some_and(|it| it.len() == 5 && it.starts_with('0'));
    match (labels, in_normal, images_prefix(name)) {
        (LabelKind::Logits, _, _) => "EDF or DATM, by labels that are logits",
        (_, true, _) => "EDF or DATM, by the folder Normal",
        (_, _, Some(_)) => "a selection of DC-BENCH's, by the names of its files",
        _ if five_digits => "GLaD, by an iteration of five digits in the file's name",
        _ => "MTT or GLaD, by the names of its files",
    }
    .to_owned()
}

/// The learning rate that EDF and DATM learn: `lr_best.pt`, a tensor without dimensions.
fn learning_rate(images: &Path, name: &str) -> Result<Option<f32>> {
    let Some(suffix) = images_suffix(name) else { return Ok(None) };
    let suffix = suffix.strip_prefix("zca_").unwrap_or(suffix);
    let path = images.with_file_name(format!("lr_{suffix}.pt"));
    if !path.is_file() {
        return Ok(None);
    }
    let (file, pickle) = torch::open(&path)?;
    let tensor = bare_tensor(&file, &pickle)?;
    match file.read::<f32>(&tensor, "lr")?[..] {
        [rate] if rate.is_finite() => Ok(Some(rate)),
        _ => Err(Error::field(&path, "lr", "one finite number is expected")),
    }
}

fn labels_path(images: &Path, name: &str) -> Result<PathBuf> {
    let candidates = if let Some(suffix) = images_suffix(name) {
        // Labels are not whitened, and have no file of their own for images that no longer are.
        vec![format!("labels_{}.pt", suffix.strip_prefix("zca_").unwrap_or(suffix))]
    } else if let Some(prefix) = images_prefix(name) {
        let bare = prefix.strip_suffix("_normalize").unwrap_or(prefix);
        vec![format!("{prefix}_labels.pt"), format!("{bare}_labels.pt")]
    } else {
        let reason = "a bare tensor: of MTT's files, open the run's folder or its images_<iteration>.pt";
        return Err(Error::format(images, reason));
    };
    let paths: Vec<PathBuf> = candidates.into_iter().map(|name| images.with_file_name(name)).collect();
    if let Some(found) = paths.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(Error::format(images, format!("its labels, {}, are missing", names.join(" or "))))
}

fn bare_tensor(file: &TensorFile, pickle: &Pickle) -> Result<TensorRef> {
    let root = pickle.root();
    root.as_tensor().cloned().ok_or_else(|| {
        Error::format(file.path(), format!("holds {}, where a tensor is expected", root.kind()))
    })
}

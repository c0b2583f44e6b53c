//! IDC and NCFM: `[images, labels]` in one torch file, pixels, several images in each.

use super::adapters::Formations;
use super::containers::tensor::{TensorFile, TensorRef};
use super::containers::torch::Value;
use super::tensors::{About, Images};
use super::{OpenOptions, Source, ValueSpace, Values, normalization};
use crate::labels::Labels;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From this side on, images of IDC are ImageNet's.
const SIDE_OF_IMAGENET: usize = 160;

/// The data file of a run: IDC's `data.pt`, or NCFM's `data_<iteration>.pt` of the highest iteration, or what NCFM
/// starts from, `data_init.pt`.
pub(super) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let names = super::folder::names(folder)?;
    let iteration = |name: &str| name.strip_prefix("data_")?.strip_suffix(".pt")?.parse::<u64>().ok();
    let latest = names.iter().filter_map(|name| Some((iteration(name)?, name))).max();
    let has = |wanted: &&str| names.iter().any(|name| name == wanted);
    let name = ["data.pt"].into_iter().find(has).or(latest.map(|(_, name)| name.as_str()));
    Ok(name.or(["data_init.pt"].into_iter().find(has)).map(|name| folder.join(name)))
}

/// The data files of the phases in which IDC distils ImageNet-100, `<run>_phase0/data.pt` and so on, if there are
/// any in a folder. Each has a part of the classes, by their labels in the whole.
///
/// # Errors
/// If a phase is missing between others.
pub(super) fn phases(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut phases = BTreeMap::new();
    let mut run: Option<String> = None;
    for name in super::folder::names(folder)? {
        let parsed =
            name.rsplit_once("_phase").and_then(|(run, phase)| Some((run, phase.parse::<usize>().ok()?)));
        let data = folder.join(&name).join("data.pt");
        let Some((prefix, phase)) = parsed.filter(|_| data.is_file()) else { continue };
        if run.get_or_insert_with(|| prefix.to_owned()) != prefix || phases.insert(phase, data).is_some() {
            return Err(Error::format(
                folder,
                format!("phases of several runs, {name} among them: leave those of one"),
            ));
        }
    }
    if let Some((missing, _)) = phases.keys().enumerate().find(|(place, phase)| place != *phase) {
        return Err(Error::format(
            folder,
            format!("phase {missing} is missing, whose folder ends in _phase{missing}"),
        ));
    }
    Ok(phases.into_values().collect())
}

/// Why a pair of tensors is not what IDC or NCFM wrote, if so: they save lists, by names of their own.
pub(super) fn other_writer(path: &Path, root: Value<'_>) -> Option<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let iteration = name.strip_prefix("data_").and_then(|rest| rest.strip_suffix(".pt"));
    let is_theirs = name == "data.pt"
        || iteration
            .is_some_and(|it| it == "init" || (!it.is_empty() && it.bytes().all(|b| b.is_ascii_digit())));
    let difference = match (root.kind(), is_theirs) {
        ("a list", true) => return None,
        ("a list", false) => {
            "in a file of another name than IDC's and NCFM's, data.pt and data_<iteration>.pt"
        }
        _ => "in a tuple, where IDC and NCFM save a list",
    };
    Some(format!(
        "images and labels lie {difference}: each stored image is taken for one; give `factor` (2) if each holds 2 x 2, \
         as theirs do"
    ))
}

/// Opens `[images, labels]`.
pub(super) fn open(
    file: TensorFile,
    [images, labels]: [&TensorRef; 2],
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let path = file.path().to_owned();
    let images = Images::new(images.clone(), file, "[0]")?.of_floats()?;
    let labels = Labels::read(&images.file, labels, "[1]", images.len(), options)?;
    let is_idc = path.file_name().is_some_and(|name| name == "data.pt");
    let side = images.tensor.shape()[2];
    let mut space = normalization::space(&path, "idc", Values::Unit, options)?;
    let factor = options.factor.unwrap_or(match space.values {
        ValueSpace::Unit if is_idc && side >= SIDE_OF_IMAGENET => 3,
        ValueSpace::Unit => 2,
        _ => 1,
    });
    if options.factor.is_none() && factor > 1 {
        space.notes.push(format!(
            "each stored image is taken to hold {factor} x {factor} images, as methods with multi-formation do by \
             default: give `factor` if it is another (1: none)"
        ));
    }
    let method = if is_idc { "IDC" } else { "NCFM or IDC" };
    let method = Some(format!("{method}, by the file's name and layout"));
    let about = About { format: "idc", method, space, learning_rate: None };
    let source = images.into_source(labels, about, options)?;
    if factor == 1 { Ok(source) } else { Formations::new(source, factor).map(|source| Box::new(source) as _) }
}

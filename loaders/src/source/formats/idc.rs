//! IDC, DREAM and NCFM: `[images, labels]` in one torch file, pixels, several images in each.

use crate::labels::Labels;
use crate::source::adapters::{Formations, Images, Joined};
use crate::source::containers::tensor::TensorRef;
use crate::source::facts::Facts;
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::options::{OpenOptions, Values};
use crate::source::place::{File, Folder, Pickled, Place};
use crate::source::{Source, ValueSpace};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// From this side on, images of IDC are ImageNet's.
const SIDE_OF_IMAGENET: usize = 160;

/// A list of two tensors, in a file that is called `data`.
pub(crate) struct Idc;

impl Format for Idc {
    fn name(&self) -> &'static str {
        "IDC, DREAM or NCFM"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["factor"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        match place {
            Place::Folder(folder) => probe_folder(folder, options),
            Place::File(file) => {
                let Some(pickled) = file.pickled()? else {
                    return Ok(Probe::miss("it would be a torch file"));
                };
                let root = pickled.pickle.root();
                let Some(tensors) = tensors(pickled) else {
                    let likeness = u8::from(root.items().is_some());
                    return Ok(Probe::near(likeness, "it would be a list of two tensors, images and labels"));
                };
                // Whoever gives a factor means theirs.
                let is_theirs = root.kind() == "a list" && DataFile::parse(file.name()).is_some();
                if !is_theirs && options.factor.is_none() {
                    let reason = "it would be a list called data.pt, data_<iteration>.pt or data_best.pt";
                    return Ok(Probe::near(2, reason));
                }
                Ok(Probe::matched(move || {
                    open(pickled, tensors, Facts::new(info::Format::Idc, file.path(), options)?)
                }))
            }
        }
    }
}

/// The name of a data file; the greatest is taken for the result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DataFile {
    /// `data_init.pt`: what NCFM starts from.
    Initial,
    /// `data.pt`
    Plain,
    /// `data_<iteration>.pt`, and DREAM's `data<iteration>.pt`.
    Iteration(u64),
    /// `data_best.pt`
    Best,
}

impl DataFile {
    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("data")?;
        let rest = rest.strip_suffix(".pt").or_else(|| rest.strip_suffix(".pth"))?;
        match rest.strip_prefix('_').unwrap_or(rest) {
            "" => Some(Self::Plain),
            "init" => Some(Self::Initial),
            "best" => Some(Self::Best),
            number => number.parse().ok().map(Self::Iteration),
        }
    }
}

fn probe_folder<'a>(folder: &'a Folder, options: &'a OpenOptions) -> Result<Probe<'a>> {
    let mut files: Vec<(DataFile, &str)> =
        folder.names().filter_map(|name| Some((DataFile::parse(name)?, name))).collect();
    files.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    match files[..] {
        [] => {}
        [(DataFile::Initial, name), ..] => {
            let reason =
                format!("{name} has the images that a run starts from; open that file if you want them");
            return Ok(Probe::near(3, reason));
        }
        [(_, name), ref others @ ..] => {
            let results = others.iter().filter(|(kind, _)| *kind != DataFile::Initial);
            let over: Vec<&str> = results.map(|(_, name)| *name).collect();
            let path = folder.path().join(name);
            return Ok(Probe::matched(move || {
                let mut facts = Facts::new(info::Format::Idc, &path, options)?;
                if !over.is_empty() {
                    facts.note(format!("{name} was opened; the folder also has {}", over.join(", ")));
                }
                open_file(&File::open(&path)?, facts)
            }));
        }
    }
    let phases = phases(folder)?;
    if phases.is_empty() {
        return Ok(Probe::miss("there is no data.pt, data_<iteration>.pt or data_best.pt"));
    }
    Ok(Probe::matched(move || {
        let part = |path: &PathBuf| {
            open_file(&File::open(path)?, Facts::of_part(info::Format::Idc, path, folder.path(), options)?)
        };
        let parts = phases.iter().map(part).collect::<Result<_>>()?;
        Ok(Box::new(Joined::new(folder.path(), parts)?))
    }))
}

/// The data files of the phases in which IDC distils ImageNet-100, `<run>_phase0/data.pt` and so on, if there are
/// any in a folder. Each has a part of the classes, by their labels in the whole.
fn phases(folder: &Folder) -> Result<Vec<PathBuf>> {
    let mut phases = BTreeMap::new();
    let mut run: Option<&str> = None;
    for name in folder.folders().filter_map(|name| name.to_str()) {
        let Some((prefix, phase)) = name.rsplit_once("_phase") else { continue };
        let Ok(phase) = phase.parse::<usize>() else { continue };
        if !folder.folder(name)?.is_some_and(|inner| inner.has_file("data.pt")) {
            continue;
        }
        let data = folder.path().join(name).join("data.pt");
        if *run.get_or_insert(prefix) != prefix || phases.insert(phase, data).is_some() {
            let reason =
                format!("the folder has phases of several runs ({name} is one): keep those of one run");
            return Err(Error::format(folder.path(), reason));
        }
    }
    if let Some((missing, _)) = phases.keys().enumerate().find(|(place, phase)| place != *phase) {
        let reason = format!("phase {missing} is missing: there is no folder that ends in _phase{missing}");
        return Err(Error::format(folder.path(), reason));
    }
    Ok(phases.into_values().collect())
}

fn tensors(pickled: &Pickled) -> Option<[&TensorRef; 2]> {
    let [images, labels] = pickled.pickle.root().pair()?;
    Some([images.as_tensor()?, labels.as_tensor()?])
}

fn open_file(file: &File, facts: Facts<'_>) -> Result<Box<dyn Source>> {
    match file.pickled()?.and_then(|pickled| Some((pickled, tensors(pickled)?))) {
        Some((pickled, tensors)) => open(pickled, tensors, facts),
        None => {
            let reason = "expected a torch file with a list of two tensors, images and labels";
            Err(Error::format(file.path(), reason))
        }
    }
}

/// Opens `[images, labels]`.
fn open(
    pickled: &Pickled,
    [images, labels]: [&TensorRef; 2],
    mut facts: Facts<'_>,
) -> Result<Box<dyn Source>> {
    let path: &Path = pickled.file.path();
    let options = facts.options();
    let images = Images::new(images, Arc::clone(&pickled.file), "[0]")?.of_floats()?;
    let labels = Labels::read(&images.file, labels, "[1]", images.len(), options)?;
    let is_idc = path.file_name().is_some_and(|name| name == "data.pt");
    let side = images.tensor.shape()[2];
    let space = facts.space(Values::Unit, None);
    let (factor, right) = match (options.factor, space.values) {
        (Some(factor), _) => (factor, Right::Option),
        (None, ValueSpace::Unit) if is_idc && side >= SIDE_OF_IMAGENET => (3, Right::Guess),
        (None, ValueSpace::Unit) => (2, Right::Guess),
        (None, _) => (1, Right::Guess),
    };
    facts.state("factor", factor.to_string(), right);
    if right == Right::Guess && factor > 1 {
        facts.note(format!(
            "each stored image is taken to hold {factor} x {factor} images, as these methods do by default; pass \
             `factor` if that is wrong (1 for single images)"
        ));
    }
    let method = if is_idc { "IDC" } else { "NCFM, DREAM or IDC" };
    let method = Some(format!("{method}, by the file's name and layout"));
    let source = images.into_source(labels, space, (method, None), facts)?;
    if factor == 1 { Ok(source) } else { Ok(Box::new(Formations::new(source, factor)?)) }
}

//! Images and labels by name, in torch, pickle, npz or safetensors files; and KIP's npz.

mod names;
mod pickled;

use crate::labels::Labels;
use crate::source::adapters::Images;
use crate::source::class_list::ClassList;
use crate::source::containers::tensor::{TensorFile, Tensors as Named};
use crate::source::containers::{npz, safetensors};
use crate::source::facts::{Embedded, Facts};
use crate::source::format::{Format, Probe};
use crate::source::info;
use crate::source::options::{OpenOptions, Values};
use crate::source::place::{Kind, Place};
use crate::source::sidecar::{IN_MEMORY, VALUES};
use crate::source::{Label, LabelKind, Source};
use crate::{Error, Result};
use names::{refuse, unused};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The names that labels count, in the metadata of sets that a program holds: arrays have no text.
const NAMES: &str = "diver.names";

/// Arrays by name, or one after the other.
pub(crate) struct Tensors;

impl Format for Tensors {
    fn name(&self) -> &'static str {
        "tensors by name (torch, pickle, npz, safetensors)"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["columns", "split", "experiment"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        match place {
            Place::Folder(_) => Ok(Probe::miss("it would be a file with images and labels")),
            Place::File(file) => match file.kind() {
                Kind::Npz => Ok(Probe::matched(|| open_npz(file.path(), options))),
                Kind::Safetensors => Ok(Probe::matched(|| {
                    open_safetensors(file.path(), safetensors::open(file.path())?, options)
                })),
                _ => match file.pickled()? {
                    Some(pickled) => pickled::probe(file.path(), pickled, options),
                    None => Ok(Probe::miss("it would be a torch, pickle, npz or safetensors file")),
                },
            },
        }
    }
}

/// Opens what would be in a safetensors file.
pub(crate) fn open_bytes(bytes: &[u8], options: &OpenOptions) -> Result<Box<dyn Source>> {
    let path = Path::new(IN_MEMORY);
    open_safetensors(path, safetensors::open_bytes(path, bytes)?, options)
}

/// Opens an npz file: KIP's, as DC-BENCH has them, or one of one's own.
fn open_npz(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let there = npz::names(path)?;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    let (images, labels) = names::names(path, &there, options)?;
    let (file, tensors) = npz::open(path, &[images, labels])?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let format = if name.starts_with("kip_") { info::Format::Kip } else { info::Format::Tensors };
    let mut facts = Facts::new(format, path, options)?;
    facts.notes(unused(&there, [images, labels]));
    open_named(file, &tensors, [images, labels], None, facts)
}

/// Opens a safetensors file, with what its metadata says of values and classes.
fn open_safetensors(
    path: &Path,
    (file, tensors, metadata): (TensorFile, Named, HashMap<String, String>),
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let there: Vec<&str> = tensors.keys().map(String::as_str).collect();
    let (images, labels) = names::names(path, &there, options)?;
    let mut facts = Facts::new(info::Format::Tensors, path, options)?;
    let names = metadata.get(NAMES).map(|names| serde_json::from_str(names)).transpose();
    let names =
        names.map_err(|e| Error::field(path, NAMES, format!("expected a JSON list of names: {e}")))?;
    let values = metadata.get(VALUES).and_then(|values| values.parse().ok());
    let classes = metadata.get(ClassList::KEY).map(|list| ClassList::from_json(path, list)).transpose()?;
    let classes = classes.map(|list| (path.to_owned(), list));
    facts.embed(Embedded { values, classes, is_whitened: false });
    facts.notes(unused(&there, [images, labels]));
    open_named(file, &tensors, [images, labels], names, facts)
}

fn open_named(
    file: TensorFile,
    tensors: &Named,
    [images, labels]: [&str; 2],
    names: Option<Vec<String>>,
    facts: Facts<'_>,
) -> Result<Box<dyn Source>> {
    let file = Arc::new(file);
    let tensor = |name: &str| {
        tensors.get(name).ok_or_else(|| Error::field(file.path(), name, "it is listed, but cannot be found"))
    };
    let images_read = Images::new(tensor(images)?, Arc::clone(&file), images)?;
    let (labels, count, options) = ((tensor(labels)?, labels), images_read.len(), facts.options());
    refuse(file.path(), options, &["experiment"])?;
    let labels = match names {
        None => Labels::read(&file, labels.0, labels.1, count, options)?,
        Some(names) => {
            let read = Labels::read(&file, labels.0, labels.1, count, &OpenOptions::new())?;
            let name = |label: &Label| names.get(label.class()).cloned().unwrap_or_default();
            let labelled: Vec<String> = read.labels.iter().map(name).collect();
            Labels::of_names(file.path(), &labelled, labels.1, options)?
        }
    };
    finish(images_read, labels, facts)
}

/// Settles what the values are, and joins images and labels.
fn finish(images: Images, mut labels: Labels, mut facts: Facts<'_>) -> Result<Box<dyn Source>> {
    let soft_label = facts.options().columns.as_ref().and_then(|columns| columns.soft_label.as_ref());
    if let Some(name) = soft_label.filter(|_| labels.kind == LabelKind::Hard) {
        let reason =
            format!("`soft_label={name}`: it has one class for each image: name it as `label` instead");
        return Err(Error::config("columns", reason));
    }
    if facts.format() == info::Format::Kip {
        labels = labels.hardened(facts.path())?;
        let images = images.of_floats()?;
        let why = "KIP's images are in its own ZCA space and are streamed as they are stored; their labels are the classes of \
                   the largest entries, as in DC-BENCH";
        let space = facts.space(Values::Whitened, Some(why.to_owned()));
        return images.into_source(labels, space, (Some("KIP, by the file's name".to_owned()), None), facts);
    }
    let space = images.space(&mut facts)?;
    images.into_source(labels, space, (None, None), facts)
}

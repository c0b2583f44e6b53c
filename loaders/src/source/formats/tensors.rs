//! Images and labels by name, in torch, pickle, npz or safetensors files; and KIP's npz.

use crate::labels::Labels;
use crate::source::adapters::{Images, Joined, Subset};
use crate::source::class_list::ClassList;
use crate::source::columns::Columns;
use crate::source::containers::tensor::{TensorFile, Tensors as Named};
use crate::source::containers::torch::{self, Rows, Value};
use crate::source::containers::{npz, safetensors};
use crate::source::facts::{Embedded, Facts};
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::options::{OpenOptions, Values};
use crate::source::place::{Kind, Pickled, Place};
use crate::source::roles::{self, Choice, Role};
use crate::source::sidecar::{IN_MEMORY, VALUES};
use crate::source::{Label, LabelKind, Source, settings};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Options that choose among things by name.
const UNNAMED: &[&str] = &["split", "columns"];
/// How many names a message lists.
const LISTED: usize = 12;

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
                    Some(pickled) => probe_pickled(file.path(), pickled, options),
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

fn chosen<'a>(names: impl Iterator<Item = &'a str>, options: &OpenOptions) -> Choice<'a> {
    roles::choose(roles::pairs(names), options.split.as_deref())
}

/// The names of the images and the labels among `names`, of which those that may be either are arrays.
///
/// # Errors
/// If there are none, or several pairs fit.
fn names<'a>(path: &Path, names: &[&'a str], options: &OpenOptions) -> Result<(&'a str, &'a str)> {
    let listed = || {
        let more = if names.len() > LISTED { ", ..." } else { "" };
        let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        if listed.is_empty() { "no arrays".to_owned() } else { format!("{listed}{more}") }
    };
    if let Some(Columns { image, label, soft_label }) = &options.columns {
        let find = |option: &Option<String>, of: &str| {
            let Some(wanted) = option else {
                return Err(Error::config(
                    "columns",
                    format!("it does not name the {of}: write image=NAME,label=NAME"),
                ));
            };
            let found = names.iter().find(|name| *name == wanted).copied();
            found.ok_or_else(|| {
                let reason =
                    format!("`{wanted}` is not an array of {}, which has {}", path.display(), listed());
                Error::config("columns", reason)
            })
        };
        // As in tables, soft labels go before class indices.
        let soft_label = soft_label.is_some().then(|| find(soft_label, "soft label")).transpose()?;
        let label = (label.is_some() || soft_label.is_none()).then(|| find(label, "label")).transpose()?;
        return Ok((find(image, "image")?, soft_label.or(label).unwrap_or_default()));
    }
    match chosen(names.iter().copied(), options) {
        Choice::One { pair, .. } => Ok((pair.images.name, pair.labels.name)),
        Choice::Several(pairs) => {
            let reason = format!(
                "several pairs of images and labels fit: {}. Pass `columns`, as in \"image={},label={}\"",
                roles::listed(&pairs),
                pairs[0].images.name,
                pairs[0].labels.name
            );
            Err(Error::format(path, reason))
        }
        Choice::Initial(pairs) => {
            let pair = &pairs[0];
            let reason = format!(
                "{} is what a method starts from. Pass `columns`, as in \"image={},label={}\", if you want it",
                pair.images.name, pair.images.name, pair.labels.name
            );
            Err(Error::format(path, reason))
        }
        Choice::None if names == ["arr_0", "arr_1"] => Ok((names[0], names[1])),
        Choice::None => {
            let reason = format!(
                "the names do not tell images and labels; there are {}. Pass `columns`, as in \"image=NAME,label=NAME\", \
                 or save them as `images` and `labels`",
                listed()
            );
            Err(Error::format(path, reason))
        }
    }
}

/// Opens an npz file: KIP's, as DC-BENCH has them, or one of one's own.
fn open_npz(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let there = npz::names(path)?;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    let (images, labels) = names(path, &there, options)?;
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
    let (images, labels) = self::names(path, &there, options)?;
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

/// A note on the names in the file that are not `used`.
fn unused(there: &[&str], used: [&str; 2]) -> Option<String> {
    let unused: Vec<&str> = there.iter().filter(|name| !used.contains(name)).copied().collect();
    let are = if unused.len() == 1 { "is" } else { "are" };
    let more = if unused.len() > LISTED { ", ..." } else { "" };
    let listed = unused.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    (!unused.is_empty()).then(|| format!("the file also has {listed}{more}, which {are} not used"))
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

/// # Errors
/// If one of these options is given, which mean nothing to the file.
fn refuse(path: &Path, options: &OpenOptions, meaningless: &[&'static str]) -> Result<()> {
    match options.given_for_formats().into_iter().find(|option| meaningless.contains(option)) {
        Some(option) => {
            let reason = format!(
                "{} has nothing that this option could choose from: leave the option out",
                path.display()
            );
            Err(Error::config(option, reason))
        }
        None => Ok(()),
    }
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

/// What a torch file or a pickle holds.
fn probe_pickled<'a>(path: &'a Path, pickled: &'a Pickled, options: &'a OpenOptions) -> Result<Probe<'a>> {
    let root = pickled.pickle.root();
    if let Some(parts) = torch::rows(&pickled.file, "", root)? {
        refuse(path, options, UNNAMED)?;
        return Ok(Probe::matched(move || open_dataset(path, pickled, parts, options)));
    }
    let open = move |found: Stored<'a>| open_stored(path, pickled, found, options);
    if let Some(keys) = root.keys() {
        // DC's experiments lie in a list of lists.
        let is_data = |value: Value<'_>| value.as_tensor().is_some() || is_list_of_labels(value);
        let there: Vec<&str> =
            keys.filter(|key| options.columns.is_some() || root.get(key).is_some_and(is_data)).collect();
        let is_near =
            options.columns.is_some() || !matches!(chosen(there.iter().copied(), options), Choice::None);
        if !is_near {
            return Ok(match named_but_not_read(path, root) {
                Some(error) => return Err(error),
                None => Probe::near(
                    1,
                    format!("it holds {}, and would have `images` and `labels`", root.describe()),
                ),
            });
        }
        let (images, labels) = names(path, &there, options)?;
        // Tensors and lists may be other labels, which a caller could take for those that are used.
        let may_matter = |value: Value<'_>| value.as_tensor().is_some() || value.items().is_some();
        let beside: Vec<&str> = root.keys().into_iter().flatten().collect();
        let beside: Vec<&str> =
            beside.into_iter().filter(|key| root.get(key).is_some_and(may_matter)).collect();
        let note = unused(&beside, [images, labels]);
        let entry = |name: &str| root.get(name).map(|value| (name.to_owned(), value));
        let (Some(images), Some(labels)) = (entry(images), entry(labels)) else {
            return Ok(Probe::miss("the entries cannot be found"));
        };
        let found = Stored { images, labels, step: None, note };
        return Ok(Probe::matched(move || open(found)));
    }
    if let Some(found) = steps(path, root, options)? {
        refuse(path, options, UNNAMED)?;
        return Ok(Probe::matched(move || open(found)));
    }
    let is_data =
        |value: Value<'_>| value.as_tensor().is_some() || value.items().is_some() || value.is_opaque();
    if let Some([images, labels]) = root.pair()
        && [images, labels].into_iter().all(is_data)
    {
        refuse(path, options, UNNAMED)?;
        let note = "images and labels are a pair in a file that IDC and NCFM would have written as a list called data.pt: \
                    each stored image is read as one image; pass `factor` (2) if each holds 2 x 2";
        let found = Stored {
            images: ("[0]".to_owned(), images),
            labels: ("[1]".to_owned(), labels),
            step: None,
            note: Some(note.to_owned()),
        };
        return Ok(Probe::matched(move || open(found)));
    }
    if root.is_opaque() {
        return Err(torch::unexpected(path, "", root, "images and labels"));
    }
    let is_fkd = root.items().is_some_and(|items| (6..=7).contains(&items.len()));
    Ok(if is_fkd {
        Probe::near(
            5,
            "it may be a batch of FKD's soft labels: open the folder of the images instead, and pass both to SoftLabels",
        )
    } else {
        Probe::near(1, format!("it holds {}", root.describe()))
    })
}

fn open_stored(
    path: &Path,
    pickled: &Pickled,
    found: Stored<'_>,
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    if found.step.is_none() {
        refuse(path, options, &["experiment"])?;
    }
    let mut facts = Facts::new(info::Format::Tensors, path, options)?;
    let is_whitened = settings::say_zca(pickled.pickle.root());
    facts.embed(Embedded { is_whitened, ..Embedded::default() });
    facts.notes(found.note);
    if let Some((step, last)) = found.step {
        let right = if options.experiment.is_some() { Right::Option } else { Right::Guess };
        facts.state("experiment", format!("step {step}, of 0 to {last}"), right);
    }
    let (images_field, labels_field) = (found.images.0, found.labels.0);
    let images = torch::tensor(path, &images_field, found.images.1, "a tensor [N, C, H, W]")?;
    let images = Images::new(images, Arc::clone(&pickled.file), images_field)?;
    let labels = labels(pickled, found.labels.1, &labels_field, images.len(), options)?;
    finish(images, labels, facts)
}

/// Opens a dataset object of torch's, whose parts these are.
fn open_dataset(
    path: &Path,
    pickled: &Pickled,
    parts: Vec<Rows<'_>>,
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let mut sources = Vec::new();
    for part in parts {
        let Ok([images, labels]) = <[Entry<'_>; 2]>::try_from(part.tensors) else {
            return Err(Error::format(path, "expected a dataset of two tensors, images and labels"));
        };
        let source = open_stored(path, pickled, Stored { images, labels, step: None, note: None }, options)?;
        sources.push(match part.rows {
            Some(rows) => Box::new(Subset::new(source, rows)?),
            None => source,
        });
    }
    if sources.len() == 1 { Ok(sources.remove(0)) } else { Ok(Box::new(Joined::new(path, sources)?)) }
}

/// A value with the name under which it was found.
type Entry<'a> = (String, Value<'a>);

/// Whether a value is a list of integers or of names, one for each image.
fn is_list_of_labels(value: Value<'_>) -> bool {
    let mut items = value.items().into_iter().flatten();
    value.integers().is_some()
        || (value.items().is_some_and(|items| items.len() > 1) && items.all(|item| item.as_str().is_some()))
}

/// Images and labels as a pickle holds them.
struct Stored<'a> {
    images: Entry<'a>,
    labels: Entry<'a>,
    /// The step that was chosen, and the last one.
    step: Option<(usize, usize)>,
    note: Option<String>,
}

/// The error for images or labels that are named as such, but are nothing that can be read.
fn named_but_not_read(path: &Path, root: Value<'_>) -> Option<Error> {
    let named = || root.keys().into_iter().flatten().filter_map(|key| Some((roles::Named::parse(key)?, key)));
    let of = |role| named().filter(move |(named, _)| named.role == role).map(|(_, key)| key);
    // DC's experiments are in a list of pairs.
    let are_pairs =
        |value: Value<'_>| value.items().is_some_and(|mut items| items.all(|item| item.pair().is_some()));
    let images = of(Role::Images).find(|key| root.get(key).is_some_and(|value| !are_pairs(value)))?;
    if let Err(error) = torch::tensor(path, images, root.get(images)?, "a tensor [N, C, H, W]") {
        return Some(error);
    }
    Some(match of(Role::Labels).find_map(|key| Some((key, root.get(key)?))) {
        Some((labels, found)) => torch::unexpected(path, labels, found, "a tensor or a list of labels"),
        None => Error::format(
            path,
            format!("there are no labels for `{images}`; the file holds {}", root.describe()),
        ),
    })
}

fn labels(
    pickled: &Pickled,
    value: Value<'_>,
    field: &str,
    samples: usize,
    options: &OpenOptions,
) -> Result<Labels> {
    let path = pickled.file.path();
    if let Some(tensor) = value.as_tensor() {
        return Labels::read(&pickled.file, tensor, field, samples, options);
    }
    let items = || value.items().into_iter().flatten();
    if let Some(numbers) = value.integers() {
        return Labels::listed(path, numbers, field, samples, options);
    }
    let names: Option<Vec<String>> = items().map(|item| item.as_str().map(str::to_owned)).collect();
    match names.filter(|names| names.len() == samples) {
        Some(names) => Labels::of_names(path, &names, field, options),
        None => Err(torch::unexpected(path, field, value, "a tensor or a list of labels")),
    }
}

/// A list of `(images, labels, lr)`, one for each step, as the first dataset distillation wrote them.
fn steps<'a>(path: &Path, root: Value<'a>, options: &OpenOptions) -> Result<Option<Stored<'a>>> {
    let Some(items) = root.items() else { return Ok(None) };
    let steps: Option<Vec<[Value<'a>; 2]>> = items
        .map(|step| {
            let mut fields = step.items().filter(|fields| (2..=3).contains(&fields.len()))?;
            let pair = [fields.next()?, fields.next()?];
            pair.iter().all(|value| value.as_tensor().is_some()).then_some(pair)
        })
        .collect();
    let Some(steps) = steps.filter(|steps| !steps.is_empty()) else { return Ok(None) };
    let last = steps.len() - 1;
    let step = options.experiment.unwrap_or(last);
    let Some([images, labels]) = steps.get(step).copied() else {
        let reason = format!("{step} is out of range: {} holds steps 0 to {last}", path.display());
        return Err(Error::config("experiment", reason));
    };
    let note = (last > 0 && options.experiment.is_none()).then(|| {
        format!("the file has a pair of images and labels for each of {} steps: the last was opened; pass `experiment` \
                 for another", last + 1)
    });
    let field = |item: usize| format!("[{step}][{item}]");
    Ok(Some(Stored {
        images: (field(0), images),
        labels: (field(1), labels),
        step: Some((step, last)),
        note,
    }))
}

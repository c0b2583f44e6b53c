//! Images and labels in what `torch.save` or `pickle` wrote.

use super::finish;
use super::names::{are_near, names, refuse, unused};
use crate::labels::Labels;
use crate::source::adapters::{Images, Joined, Subset};
use crate::source::containers::torch::{self, Rows, Value};
use crate::source::facts::{Embedded, Facts};
use crate::source::format::Probe;
use crate::source::info::{self, Right};
use crate::source::options::OpenOptions;
use crate::source::place::Pickled;
use crate::source::roles::{self, Role};
use crate::source::{Source, settings};
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Options that choose among things by name.
const UNNAMED: &[&str] = &["split", "columns"];

/// What a torch file or a pickle holds.
pub(super) fn probe<'a>(path: &'a Path, pickled: &'a Pickled, options: &'a OpenOptions) -> Result<Probe<'a>> {
    let root = pickled.pickle.root();
    if let Some(parts) = torch::rows(&pickled.file, "", root)? {
        refuse(path, options, UNNAMED)?;
        return Ok(Probe::matched(move || open_dataset(path, pickled, parts, options)));
    }
    let open = move |found: Stored<'a>| open_stored(path, pickled, found, options);
    if root.keys().is_some() {
        return probe_dict(path, pickled, ("", root), options, options.split.as_deref());
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

/// What a dict holds, which is called `prefix` in the file: images and labels, or dicts of these, as one for each split.
fn probe_dict<'a>(
    path: &'a Path,
    pickled: &'a Pickled,
    (prefix, dict): (&str, Value<'a>),
    options: &'a OpenOptions,
    split: Option<&str>,
) -> Result<Probe<'a>> {
    let of_split = OpenOptions { split: split.map(str::to_owned), ..options.clone() };
    let keys = || dict.keys().into_iter().flatten();
    // DC's experiments lie in a list of lists.
    let is_data = |value: Value<'_>| value.as_tensor().is_some() || is_list_of_labels(value);
    let there: Vec<&str> =
        keys().filter(|key| options.columns.is_some() || dict.get(key).is_some_and(is_data)).collect();
    if !are_near(&there, &of_split) {
        let inner = |key| dict.get(key).filter(|value| holds_pair(*value)).map(|value| (key, value));
        let inner: Vec<(&str, Value<'a>)> = keys().filter_map(inner).collect();
        let wanted = match (split, &inner[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(split), _) => inner.iter().find(|(name, _)| name.eq_ignore_ascii_case(split)),
        };
        if let Some((name, value)) = wanted {
            return probe_dict(path, pickled, (&format!("{prefix}{name}."), *value), options, None);
        }
        if let Some((first, _)) = inner.first() {
            let names: Vec<&str> = inner.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "the file has several sets ({}): choose one, as in split=\"{first}\"",
                names.join(", ")
            );
            return Err(Error::format(path, reason));
        }
        return Ok(match named_but_not_read(path, dict) {
            Some(error) => return Err(error),
            None => {
                Probe::near(1, format!("it holds {}, and would have `images` and `labels`", dict.describe()))
            }
        });
    }
    let (images, labels) = names(path, &there, &of_split)?;
    // Tensors and lists may be other labels, which a caller could take for those that are used.
    let may_matter = |value: Value<'_>| value.as_tensor().is_some() || value.items().is_some();
    let beside: Vec<&str> = keys().filter(|key| dict.get(key).is_some_and(may_matter)).collect();
    let note = unused(&beside, [images, labels]);
    let entry = |name: &str| dict.get(name).map(|value| (format!("{prefix}{name}"), value));
    let (Some(images), Some(labels)) = (entry(images), entry(labels)) else {
        return Ok(Probe::miss("the entries cannot be found"));
    };
    let found = Stored { images, labels, step: None, note };
    Ok(Probe::matched(move || open_stored(path, pickled, found, options)))
}

/// Whether a value is a dict with images and labels.
fn holds_pair(value: Value<'_>) -> bool {
    let is_tensor = |key: &&str| value.get(key).is_some_and(|value| value.as_tensor().is_some());
    let names: Vec<&str> = value.keys().into_iter().flatten().filter(is_tensor).collect();
    are_near(&names, &OpenOptions::new())
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
    // DC's experiments are in a list of pairs under `data`, of which that format says more.
    let is_list = |value: Value<'_>| value.items().is_some();
    let is_of_dc = |key: &str, value: Value<'_>| {
        key == "data" && value.items().is_some_and(|mut items| items.all(is_list))
    };
    let images = of(Role::Images).find(|key| root.get(key).is_some_and(|value| !is_of_dc(key, value)))?;
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

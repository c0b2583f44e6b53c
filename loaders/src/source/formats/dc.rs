//! DC, DSA and DM: one torch file with the images and labels of several experiments.

use crate::labels::Labels;
use crate::source::adapters::Images;
use crate::source::containers::torch::{self, Value};
use crate::source::facts::{Embedded, Facts};
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::options::{OpenOptions, Values};
use crate::source::place::{File, Pickled, Place};
use crate::source::{Source, settings};
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// `{'data': [[images, labels], ...], 'accs_all_exps': ...}`
pub(crate) struct Dc;

impl Format for Dc {
    fn name(&self) -> &'static str {
        "DC, DSA or DM"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["experiment"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        match place {
            Place::Folder(folder) => {
                let is_result = |name: &&str| name.starts_with("res_") && name.ends_with(".pt");
                let results: Vec<&str> = folder.names().filter(is_result).collect();
                Ok(match results[..] {
                    [] => Probe::miss("there is no res_*.pt"),
                    [only] => {
                        let path = folder.path().join(only);
                        Probe::matched(move || open_file(&File::open(&path)?, options))
                    }
                    [first, ..] => Probe::near(
                        3,
                        format!(
                            "{} files res_*.pt are sets of their own: open one, as {first}",
                            results.len()
                        ),
                    ),
                })
            }
            Place::File(file) => {
                let Some(pickled) = file.pickled()? else {
                    return Ok(Probe::miss("it would be a torch file"));
                };
                let root = pickled.pickle.root();
                Ok(match root.get("data").map(|data| data.items().is_some()) {
                    Some(true) => Probe::matched(|| open(pickled, options)),
                    Some(false) => Probe::near(2, "`data` is not a list with a pair for each experiment"),
                    None => {
                        let likeness = u8::from(root.keys().is_some());
                        Probe::near(likeness, "it would be a dict with the list `data`")
                    }
                })
            }
        }
    }
}

fn open_file(file: &File, options: &OpenOptions) -> Result<Box<dyn Source>> {
    match file.pickled()? {
        Some(pickled) => open(pickled, options),
        None => Err(Error::format(file.path(), format!("expected a torch file, but {}", file.describe()))),
    }
}

/// Opens the last experiment, as evaluation code takes it, unless the options name another.
fn open(pickled: &Pickled, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let path = pickled.file.path();
    let root = pickled.pickle.root();
    let (index, last, [images, labels]) = experiment(path, root, options.experiment)?;
    let mut facts = Facts::new(info::Format::Dc, path, options)?;
    facts.embed(Embedded { is_whitened: settings::say_zca(root), ..Embedded::default() });
    let space = facts.space(Values::Normalized, None);
    let right = if options.experiment.is_some() { Right::Option } else { Right::Guess };
    facts.state("experiment", format!("{index}, of 0 to {last}"), right);
    let [images_field, labels_field] = [0, 1].map(|item| format!("data[{index}][{item}]"));
    let images = torch::tensor(path, &images_field, images, "a tensor [N, C, H, W]")?;
    let images = Images::new(images, Arc::clone(&pickled.file), images_field)?;
    let images = images.of_floats()?;
    let labels = torch::tensor(path, &labels_field, labels, "a tensor of labels [N]")?;
    let labels = Labels::read(&images.file, labels, &labels_field, images.len(), options)?;
    images.into_source(labels, space, (Some(method(path)), None), facts)
}

/// By the file's name: `res_DM_CIFAR10_ConvNet_10ipc.pt`.
fn method(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = name.strip_prefix("res_").and_then(|rest| rest.split('_').next());
    match named {
        Some(method @ ("DC" | "DSA" | "DM")) => format!("{method}, by the file's name"),
        _ => "DC, DSA or DM, by the file's layout (GLaD writes it, too)".to_owned(),
    }
}

/// The wanted experiment, the last one, and its images and labels.
fn experiment<'a>(
    path: &Path,
    root: Value<'a>,
    wanted: Option<usize>,
) -> Result<(usize, usize, [Value<'a>; 2])> {
    let layout = |field: String, found: Value<'_>| {
        torch::unexpected(path, &field, found, "a list with one pair [images, labels] for each experiment")
    };
    let data = root.get("data").unwrap_or(root);
    let mut experiments = data.items().ok_or_else(|| layout("data".into(), data))?;
    let Some(last) = experiments.len().checked_sub(1) else { return Err(layout("data".into(), data)) };
    let index = wanted.unwrap_or(last);
    let Some(experiment) = experiments.nth(index) else {
        let reason = format!("{index} is out of range: {} holds experiments 0 to {last}", path.display());
        return Err(Error::config("experiment", reason));
    };
    let pair = experiment.pair().ok_or_else(|| {
        torch::unexpected(path, &format!("data[{index}]"), experiment, "a pair [images, labels]")
    })?;
    Ok((index, last, pair))
}

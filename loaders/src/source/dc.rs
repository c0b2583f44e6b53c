//! DC, DSA and DM: one torch file with the images and labels of several experiments.

use super::containers::tensor::{TensorFile, TensorRef};
use super::containers::torch::{Pickle, Value};
use super::tensors::{About, Images};
use super::{OpenOptions, Source, Values, normalization};
use crate::labels::Labels;
use crate::{Error, Result};
use std::path::Path;

const LAYOUT: &str = "a list with one [images, labels] pair for each experiment is expected";

/// Opens `{'data': [[images, labels], ...], 'accs_all_exps': ...}`: the last experiment, as evaluation code
/// takes it, unless the options name another.
pub(super) fn open(file: TensorFile, pickle: &Pickle, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let (index, images, labels) = experiment(file.path(), pickle, options.experiment)?;
    let space = normalization::space(file.path(), "dc", Values::Normalized, options)?;
    let method = method(file.path());
    let images = Images::new(images, file, format!("data[{index}][0]"))?.of_floats()?;
    let labels = Labels::read(&images.file, &labels, &format!("data[{index}][1]"), images.len(), options)?;
    let about = About { format: "dc", method: Some(method), space, learning_rate: None };
    images.into_source(labels, about, options)
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

/// The index, images and labels of the wanted experiment.
fn experiment(path: &Path, pickle: &Pickle, wanted: Option<usize>) -> Result<(usize, TensorRef, TensorRef)> {
    let layout = |field: &str| Error::field(path, field, LAYOUT);
    let mut experiments = pickle.root().get("data").and_then(Value::items).ok_or_else(|| layout("data"))?;
    let Some(last) = experiments.len().checked_sub(1) else { return Err(layout("data")) };
    let index = wanted.unwrap_or(last);
    let Some(experiment) = experiments.nth(index) else {
        let reason = format!("{index}, where {} holds experiments 0 to {last}", path.display());
        return Err(Error::config("experiment", reason));
    };
    let pair =
        experiment.pair().and_then(|[images, labels]| Some((images.as_tensor()?, labels.as_tensor()?)));
    let (images, labels) = pair.ok_or_else(|| layout(&format!("data[{index}]")))?;
    Ok((index, images.clone(), labels.clone()))
}

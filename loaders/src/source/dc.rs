//! DC, DSA and DM: one torch file with the images and labels of several experiments.

use super::torch::{TensorRef, TorchFile, Value};
use super::{MemorySource, OpenOptions, normalization, tensors};
use crate::{Error, Result};

const LAYOUT: &str = "a list with one [images, labels] pair for each experiment is expected";

/// Opens `{'data': [[images, labels], ...], 'accs_all_exps': ...}`: the last experiment, as evaluation code
/// takes it, unless the options name another.
pub(super) fn open(mut file: TorchFile, options: &OpenOptions) -> Result<MemorySource> {
    let (index, images, labels) = experiment(&file, options.experiment)?;
    let labels = tensors::labels(&mut file, &labels, &format!("data[{index}][1]"), options.classes)?;
    let space = normalization::stored(file.path(), "dc", options)?;
    tensors::source(&mut file, &images, &format!("data[{index}][0]"), labels, "dc", space)
}

/// The index, images and labels of the wanted experiment.
fn experiment(file: &TorchFile, wanted: Option<usize>) -> Result<(usize, TensorRef, TensorRef)> {
    let layout = |field: &str| Error::field(file.path(), field, LAYOUT);
    let mut experiments = file.root().get("data").and_then(Value::items).ok_or_else(|| layout("data"))?;
    let Some(last) = experiments.len().checked_sub(1) else { return Err(layout("data")) };
    let index = wanted.unwrap_or(last);
    let Some(experiment) = experiments.nth(index) else {
        let reason = format!("{index}, where {} holds experiments 0 to {last}", file.path().display());
        return Err(Error::config("experiment", reason));
    };
    let pair =
        experiment.pair().and_then(|[images, labels]| Some((images.as_tensor()?, labels.as_tensor()?)));
    let (images, labels) = pair.ok_or_else(|| layout(&format!("data[{index}]")))?;
    Ok((index, images.clone(), labels.clone()))
}

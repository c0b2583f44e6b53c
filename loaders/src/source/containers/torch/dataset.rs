//! Datasets of `torch.utils.data` that were saved as objects: their attributes are the tensors.

use super::super::tensor::TensorFile;
use super::value::Value;
use super::words::unexpected;
use crate::{Error, Result};

/// Deepest nesting, most parts and most samples of one dataset: an object may contain itself, or another many times.
const MAX_DEPTH: usize = 16;
const MAX_PARTS: usize = 1 << 10;
const MAX_ROWS: usize = 1 << 24;

/// Tensors whose rows are samples.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    /// Images and labels, each with the name under which it was found.
    pub(crate) tensors: Vec<(String, Value<'a>)>,
    /// The rows that are samples, in their order; all, if none is said.
    pub(crate) rows: Option<Vec<usize>>,
}

impl Rows<'_> {
    /// The number of samples.
    fn len(&self) -> usize {
        let rows = self.rows.as_ref().map(Vec::len);
        rows.or_else(|| self.tensors.first()?.1.as_tensor()?.shape().first().copied()).unwrap_or(0)
    }
}

/// The parts, one after another, of a `TensorDataset`, of a `Subset` of one or of a `ConcatDataset` of them; None if `value`
/// is something else. `field` is its name in errors.
///
/// # Errors
/// If such a dataset contains something else, or indices that its tensors do not have.
pub(crate) fn rows<'a>(file: &TensorFile, field: &str, value: Value<'a>) -> Result<Option<Vec<Rows<'a>>>> {
    let Some(class) = class(value) else { return Ok(None) };
    let mut parts = Vec::new();
    collect(file, field, value, class, 0, &mut parts)?;
    Ok(Some(parts))
}

#[derive(Clone, Copy)]
enum Class {
    Tensors,
    Subset,
    Concat,
}

fn class(value: Value<'_>) -> Option<Class> {
    match value.class()? {
        "torch.utils.data.dataset.TensorDataset" => Some(Class::Tensors),
        "torch.utils.data.dataset.Subset" => Some(Class::Subset),
        "torch.utils.data.dataset.ConcatDataset" => Some(Class::Concat),
        _ => None,
    }
}

fn collect<'a>(
    file: &TensorFile,
    field: &str,
    value: Value<'a>,
    of: Class,
    depth: usize,
    parts: &mut Vec<Rows<'a>>,
) -> Result<()> {
    let refused =
        |field: &str, found: Value<'a>, expected: &str| Err(unexpected(file.path(), field, found, expected));
    let named = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    let inner = |name: &str| {
        let missing = || Error::field(file.path(), named(name), "this attribute of a dataset is missing");
        value.attribute(name).ok_or_else(missing)
    };
    let listed: usize = parts.iter().filter_map(|part| Some(part.rows.as_ref()?.len())).sum();
    if depth == MAX_DEPTH || parts.len() == MAX_PARTS || listed > MAX_ROWS {
        return refused(field, value, "a dataset of fewer parts");
    }
    const EXPECTED: &str = "a TensorDataset, or a Subset or ConcatDataset of these";
    match of {
        Class::Tensors => {
            let tensors = inner("tensors")?;
            let items = tensors.items().into_iter().flatten().enumerate();
            let items: Vec<_> = items.map(|(i, item)| (format!("{}[{i}]", named("tensors")), item)).collect();
            if let Some((field, other)) = items.iter().find(|(_, item)| item.as_tensor().is_none()) {
                return refused(field, *other, "a tensor");
            }
            if items.is_empty() {
                return refused(&named("tensors"), tensors, "a tuple of tensors");
            }
            parts.push(Rows { tensors: items, rows: None });
        }
        Class::Concat => {
            for (index, dataset) in inner("datasets")?.items().into_iter().flatten().enumerate() {
                let field = format!("{}[{index}]", named("datasets"));
                match class(dataset) {
                    Some(of) => collect(file, &field, dataset, of, depth + 1, parts)?,
                    None => return refused(&field, dataset, EXPECTED),
                }
            }
        }
        Class::Subset => {
            let (dataset, field) = (inner("dataset")?, named("dataset"));
            let Some(of) = class(dataset) else { return refused(&field, dataset, EXPECTED) };
            let mut of_dataset = Vec::new();
            collect(file, &field, dataset, of, depth + 1, &mut of_dataset)?;
            let Ok([part]) = <[Rows<'a>; 1]>::try_from(of_dataset) else {
                return refused(&field, dataset, "a dataset of one part");
            };
            let indices = indices(file, &named("indices"), inner("indices")?)?;
            let length = part.len();
            let row = |index: &i64| {
                let from_end = if *index < 0 { index.checked_add_unsigned(length as u64)? } else { *index };
                let index = usize::try_from(from_end).ok().filter(|index| *index < length)?;
                part.rows.as_ref().map_or(Some(index), |rows| rows.get(index).copied())
            };
            let rows =
                indices.iter().map(|index| row(index).ok_or(*index)).collect::<Result<Vec<usize>, i64>>();
            let rows = rows.map_err(|index| {
                Error::field(
                    file.path(),
                    named("indices"),
                    format!("{index}, where the dataset has {length} samples"),
                )
            })?;
            parts.push(Rows { rows: Some(rows), ..part });
        }
    }
    Ok(())
}

fn indices(file: &TensorFile, field: &str, found: Value<'_>) -> Result<Vec<i64>> {
    match found.as_tensor() {
        Some(tensor) => file.read(tensor, field),
        None => found
            .integers()
            .ok_or_else(|| unexpected(file.path(), field, found, "a list of integers or a tensor of them")),
    }
}

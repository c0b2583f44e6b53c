//! Labels of all samples, of what their entries say.

use super::labels::{Rows, Sources};
use super::samples::{Sample, Samples};
use super::values::Value;
use crate::labels::{Labels, MAX_CLASSES, integers};
use crate::source::OpenOptions;
use crate::source::containers::tensor::{DType, Place, StorageRef, TensorFile, TensorRef};
use crate::wording::counted;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The labels of a set.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) labels: Labels,
    /// The suffixes of the entries that they are from.
    pub(super) used: Vec<usize>,
    pub(super) notes: Vec<String>,
}

/// What the entries of all samples say.
struct Said<'a> {
    path: &'a Path,
    samples: &'a Samples,
    of: &'a [&'a Sample],
    options: &'a OpenOptions,
    notes: Vec<String>,
}

impl Targets {
    /// Reads the labels of samples, which have images.
    ///
    /// # Errors
    /// If one has none, or one that is no label.
    pub(super) fn read(
        path: &Path,
        samples: &Samples,
        of: &[&Sample],
        sources: &Sources,
        options: &OpenOptions,
    ) -> Result<Self> {
        let classes = of.iter().map(|sample| sources.class(samples, sample)).collect::<Result<Vec<_>>>()?;
        let rows = of.iter().map(|sample| sources.row(samples, sample)).collect::<Result<Vec<_>>>()?;
        let mut said = Said { path, samples, of, options, notes: Vec::new() };
        let (labels, used) = match said.rows(sources.rows.as_ref(), rows, &classes)? {
            Some(found) => found,
            None => said.classes(classes)?,
        };
        Ok(Self { labels, used, notes: said.notes })
    }
}

impl Said<'_> {
    /// The rows, if they are the labels.
    fn rows(
        &mut self,
        source: Option<&Rows>,
        rows: Vec<Option<Vec<f32>>>,
        classes: &[Option<(usize, Value)>],
    ) -> Result<Option<(Labels, Vec<usize>)>> {
        let Some(source) = source else { return Ok(None) };
        let name = format!(".{}", self.samples.suffixes[source.suffix]);
        let has_classes = classes.iter().all(Option::is_some);
        let missing = rows.iter().position(Option::is_none);
        if let Some(missing) = missing {
            return if source.is_told || !has_classes { Err(self.missing(missing, &name)) } else { Ok(None) };
        }
        let rows: Vec<Vec<f32>> = rows.into_iter().flatten().collect();
        // Of names there is no telling which column is whose.
        let class = |class: &Option<(usize, Value)>| match class {
            Some((_, Value::Integer(class))) => usize::try_from(*class).ok(),
            _ => None,
        };
        let classes: Option<Vec<usize>> = classes.iter().map(class).collect();
        let differing = classes.map(|classes| {
            let first = self.options.first_label.unwrap_or(0);
            let is_at = |row: &[f32], class: usize| class.checked_sub(first) == Some(largest(row));
            rows.iter().zip(classes).filter(|(row, class)| !is_at(row, *class)).count()
        });
        match differing {
            Some(differing) if !source.is_told && 2 * differing > rows.len() => {
                self.notes.push(format!(
                    "the entries {name} are not used: in {differing} of {} the largest value is not that of the class beside \
                     it; pass columns=\"soft_label={}\" if they are the labels",
                    counted(rows.len(), "sample"),
                    &name[1..]
                ));
                return Ok(None);
            }
            None if has_classes && !source.is_told => return Ok(None),
            Some(0) => self.notes.push(format!(
                "the labels are the rows in the entries {name}; their largest value is at the class beside them in every \
                 sample"
            )),
            Some(differing) => self.notes.push(format!(
                "the labels are the rows in the entries {name}; their largest value is not at the class beside them in {differing} of {}",
                counted(rows.len(), "sample")
            )),
            None => self.notes.push(format!("the labels are the rows in the entries {name}")),
        }
        // The first label is that of the classes beside the rows.
        let options = self.options.clone().first_label(0);
        let labels = self.of_rows(rows, &name, if has_classes { &options } else { self.options })?;
        Ok(Some((labels, vec![source.suffix])))
    }

    /// Rows of one width as labels.
    fn of_rows(&self, rows: Vec<Vec<f32>>, name: &str, options: &OpenOptions) -> Result<Labels> {
        let width = rows.first().map_or(0, Vec::len);
        if let Some(odd) = rows.iter().position(|row| row.len() != width) {
            let reason = format!(
                "{} in {name}, where the first sample has {width}",
                counted(rows[odd].len(), "value")
            );
            return Err(self.samples.refused(self.of[odd], reason));
        }
        if width > MAX_CLASSES {
            let reason = format!("{width} values in {name}; at most {MAX_CLASSES} classes are read");
            return Err(self.samples.refused(self.of[0], reason));
        }
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let storage = StorageRef { key: name.to_owned(), dtype: DType::F32, numel: (bytes.len() / 4) as u64 };
        let tensor = TensorRef::contiguous(storage, &[rows.len() as u64, width as u64])
            .ok_or_else(|| Error::field(self.path, name, "too many values"))?;
        let file = TensorFile::in_memory(self.path, [(name.to_owned(), Place::InMemory(bytes))].into());
        Labels::read(&file, &tensor, name, rows.len(), options)
    }

    /// The classes as labels.
    fn classes(&mut self, classes: Vec<Option<(usize, Value)>>) -> Result<(Labels, Vec<usize>)> {
        if let Some(missing) = classes.iter().position(Option::is_none) {
            return Err(self.missing(missing, "class"));
        }
        let mut used: BTreeMap<usize, usize> = BTreeMap::new();
        let values = classes.into_iter().flatten().map(|(suffix, value)| {
            *used.entry(suffix).or_default() += 1;
            value
        });
        let values: Vec<Value> = values.collect();
        let names = used.keys().map(|suffix| format!(".{}", self.samples.suffixes[*suffix]));
        let name = names.collect::<Vec<_>>().join(" and ");
        if used.len() > 1 {
            let counts =
                used.iter().map(|(suffix, count)| format!("{count} of .{}", self.samples.suffixes[*suffix]));
            self.notes.push(format!(
                "the labels are from several entries: {}",
                counts.collect::<Vec<_>>().join(", ")
            ));
        } else if name == ".txt" {
            self.notes
                .push("the labels are the numbers in the entries .txt, as there are no others".to_owned());
        }
        let kind = std::mem::discriminant(&values[0]);
        if let Some(odd) = values.iter().position(|value| std::mem::discriminant(value) != kind) {
            let reason = format!(
                "its label is {}, where the first sample's is {}",
                describe(&values[odd]),
                describe(&values[0])
            );
            return Err(self.samples.refused(self.of[odd], reason));
        }
        let labels = match &values[0] {
            Value::Integer(_) => {
                let classes = values.iter().map(|value| match value {
                    Value::Integer(class) => Ok(*class),
                    other => Err(describe(other)),
                });
                let classes = integers(classes).map_err(|(odd, class)| {
                    let reason = format!("class {class}: classes must be integers from 0");
                    self.samples.refused(self.of[odd], reason)
                })?;
                Labels::of_classes(self.path, classes, self.options)?
            }
            Value::Name(_) => {
                let name_of = |value: Value| match value {
                    Value::Name(name) => Some(name),
                    _ => None,
                };
                let names: Vec<String> = values.into_iter().filter_map(name_of).collect();
                if self.options.class_indices().is_none() {
                    self.notes.push(format!(
                        "the entries {name} hold names, and the classes are in the order of these names; pass `classes` for \
                         another order"
                    ));
                }
                Labels::of_names(self.path, &names, &name, self.options)?
            }
            Value::Row(_) => {
                let row_of = |value: Value| match value {
                    Value::Row(row) => Some(row),
                    _ => None,
                };
                self.of_rows(values.into_iter().filter_map(row_of).collect(), &name, self.options)?
            }
        };
        Ok((labels, used.into_keys().collect()))
    }

    /// The error for a sample without a label.
    fn missing(&self, sample: usize, what: &str) -> Error {
        let sample = self.of[sample];
        let reason = format!(
            "an image without a {what}: an entry .cls, or .json with `label`, is expected, but there are {}",
            self.samples.files_of(sample)
        );
        self.samples.refused(sample, reason)
    }
}

/// Where the largest value is.
fn largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |most, (at, value)| if *value > row[most] { at } else { most })
}

fn describe(value: &Value) -> String {
    match value {
        Value::Integer(class) => format!("the class index {class}"),
        Value::Name(name) => format!("the name `{name}`"),
        Value::Row(row) => format!("a row of {}", counted(row.len(), "value")),
    }
}

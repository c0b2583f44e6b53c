//! The labels of a table: class indices or names of classes, and logits or probabilities.

use super::roles::Roles;
use crate::labels::{Labels, MAX_CLASSES, Named, refuse_first_label};
use crate::source::containers::table::TableFile;
use crate::source::{Label, LabelKind, OpenOptions};
use crate::wording::counted;
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How many names of classes are listed.
const LISTED: usize = 4;

/// The label columns of the files so far.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Of each row, a class index, or the place of a name among `names`.
    classes: Vec<usize>,
    names: HashMap<String, usize>,
    /// The column of the names, if classes are named.
    named_in: Option<String>,
    /// Of each row, if it has them.
    soft: Vec<Option<Vec<f32>>>,
    has_classes: bool,
    /// The first file, and what its labels are.
    first: Option<(PathBuf, Option<String>, bool)>,
}

/// What one file has of labels that are none: those of a split that was published without them.
#[derive(Default)]
struct Unlabelled {
    rows: usize,
    /// The first label that is none, whichever it is.
    first: Option<(usize, String)>,
}

impl Columns {
    /// Adds the labels of a file.
    ///
    /// # Errors
    /// If a label is none, naming its row; if all are missing, saying so.
    pub(super) fn add(&mut self, file: &dyn TableFile, roles: &Roles) -> Result<()> {
        let (label, soft) = (roles.label.as_ref(), roles.soft_label.as_ref());
        let columns: Vec<usize> = [label, soft].into_iter().flatten().map(|column| column.at).collect();
        self.has_classes = label.is_some();
        let kind = label.map(|label| file.schema().field(label.at).data_type());
        let told = kind.map(ToString::to_string);
        let (first_file, of_first, was_text) = self
            .first
            .get_or_insert_with(|| (file.path().to_owned(), told.clone(), kind.is_some_and(is_text)));
        // Text is numbered apart from integers, so that the same class would get two labels.
        if of_first.is_some() != kind.is_some() || *was_text != kind.is_some_and(is_text) {
            let of = |kind: Option<String>| {
                kind.map_or("no labels".to_owned(), |kind| format!("labels of type {kind}"))
            };
            let reason = format!(
                "it has {}, but {} has {}: give all files the same columns",
                of(told),
                first_file.display(),
                of(of_first.clone())
            );
            return Err(Error::field(file.path(), label.map_or("label", |label| &label.name), reason));
        }
        let (mut unlabelled, mut first) = (Unlabelled::default(), 0);
        file.scan(&columns, &mut |batch| {
            let column = |name: &str| {
                let column = batch.column_by_name(name);
                column.ok_or_else(|| Error::field(file.path(), name, "the column is missing"))
            };
            if let Some(label) = label {
                let values = column(&label.name)?;
                self.add_classes(values, &label.name, first, &mut unlabelled)
                    .map_err(|reason| Error::field(file.path(), &label.name, reason))?;
            }
            if let Some(soft) = soft {
                let rows = logits(column(&soft.name)?);
                self.soft.extend(rows.map_err(|reason| Error::field(file.path(), &soft.name, reason))?);
            }
            first += batch.num_rows();
            if first > file.rows() {
                return Err(Error::format(file.path(), "it has more labels than rows: the file is damaged"));
            }
            Ok(())
        })?;
        if first != file.rows() {
            let reason = format!(
                "{} for {}: the file is damaged",
                counted(first, "label"),
                counted(file.rows(), "row")
            );
            return Err(Error::format(file.path(), reason));
        }
        match (label, unlabelled.first) {
            (Some(label), Some((_, found))) if unlabelled.rows == first && first > 1 => {
                let reason = format!(
                    "every label is {found}, which stands for none: this split was published without labels; open \
                     another split"
                );
                Err(Error::field(file.path(), &label.name, reason))
            }
            (Some(_), Some((row, found))) => {
                Err(Error::sample(file.path(), row, format!("label {found}: integers from 0 are expected")))
            }
            _ => Ok(()),
        }
    }

    fn add_classes(
        &mut self,
        column: &ArrayRef,
        name: &str,
        first: usize,
        unlabelled: &mut Unlabelled,
    ) -> Result<(), String> {
        let mut refused = |row: usize, found: String, is_none: bool| {
            unlabelled.rows += usize::from(is_none);
            unlabelled.first.get_or_insert((first + row, found));
        };
        if is_text(column.data_type()) {
            self.named_in = Some(name.to_owned());
            let texts = cast(column, &DataType::LargeUtf8).map_err(|e| e.to_string())?;
            for (row, text) in texts.as_string::<i64>().iter().enumerate() {
                let Some(text) = text else {
                    refused(row, "null".into(), true);
                    continue;
                };
                let next = self.names.len();
                let class = match self.names.get(text) {
                    Some(class) => *class,
                    None if next == MAX_CLASSES => {
                        return Err(format!(
                            "more than {MAX_CLASSES} different texts, as captions are, and no names of classes"
                        ));
                    }
                    None => *self.names.entry(text.to_owned()).or_insert(next),
                };
                self.classes.push(class);
            }
            return Ok(());
        }
        if column.data_type().is_floating() {
            let values = cast(column, &DataType::Float64).map_err(|e| e.to_string())?;
            for (row, value) in values.as_primitive::<Float64Type>().iter().enumerate() {
                match value {
                    Some(value) if value >= 0.0 && value.fract() == 0.0 => self.classes.push(value as usize),
                    Some(value) => refused(row, value.to_string(), value == -1.0 || value.is_nan()),
                    None => refused(row, "null".into(), true),
                }
            }
            return Ok(());
        }
        // Numbers beyond these become null.
        let values = cast(column, &DataType::Int64).map_err(|e| e.to_string())?;
        for (row, value) in values.as_primitive::<Int64Type>().iter().enumerate() {
            match value.map(usize::try_from) {
                Some(Ok(class)) => self.classes.push(class),
                Some(Err(_)) => {
                    let value = value.unwrap_or_default();
                    refused(row, value.to_string(), value == -1);
                }
                None if column.is_null(row) => refused(row, "null".into(), true),
                None => refused(row, "beyond 64 bits".into(), false),
            }
        }
        Ok(())
    }

    /// Joins the labels of all files to those of the set at `path`; `class_names` are those that the files list.
    ///
    /// # Errors
    /// If a label is of no class, or logits are not as many as there are classes.
    pub(super) fn join(
        self,
        path: &Path,
        class_names: Option<Vec<String>>,
        options: &OpenOptions,
    ) -> Result<Labels> {
        let mut classes = self.classes;
        let mut named = None;
        if let Some(column) = &self.named_in {
            named = Some(number(path, column, self.names, &mut classes, options)?);
        }
        let (rows, soft): (usize, Vec<Vec<f32>>) =
            (self.soft.len(), self.soft.into_iter().flatten().collect());
        let is_soft = !soft.is_empty() && soft.len() == rows;
        if !self.has_classes && !is_soft {
            let reason = format!(
                "{} of {} have no soft labels, and there is no other column of labels",
                rows - soft.len(),
                counted(rows, "row")
            );
            return Err(Error::field(path, "soft_label", reason));
        }
        let has_some = !soft.is_empty() && !is_soft;
        let with_soft = soft.len();
        let are_numbers = named.as_ref().is_none_or(|named| named.named.are_numbers);
        let first = options.first_label.filter(|_| are_numbers).unwrap_or(0);
        let mut joined = if is_soft {
            if !self.has_classes {
                refuse_first_label(options, "the labels are rows with a value for each class")?;
            }
            Labels::of_rows(path, soft, "soft_label", options)?
        } else {
            let options = options.clone().with_class_count(class_names.as_ref().map(Vec::len));
            Labels::of_classes(path, classes.clone(), &options)?
        };
        if let Some(names) = &class_names
            && is_soft
            && names.len() != joined.classes
        {
            let reason =
                format!("{} for {}", counted(joined.classes, "score"), counted(names.len(), "named class"));
            return Err(Error::field(path, "soft_label", reason));
        }
        if is_soft && self.has_classes {
            Labels::of_classes(path, classes, &options.clone().with_class_count(Some(joined.classes)))?;
        }
        if has_some {
            joined.notes.push(format!(
                "{with_soft} of {} have soft labels: the class indices of all rows are used instead",
                counted(rows, "row")
            ));
        }
        joined.names = class_names;
        if let Some(named) = named {
            joined.notes.push(named.note);
            joined.notes.extend(named.named.notes);
            joined.names = named.names.map(|names| names.into_iter().skip(first).collect()).or(joined.names);
            joined.class_map = named.named.class_map.as_indices().map(|_| named.named.class_map.clone());
        }
        debug_assert!(
            joined.kind == LabelKind::Hard
                || joined.labels.iter().all(|label| !matches!(label, Label::Hard(_)))
        );
        Ok(joined)
    }
}

/// Classes that are known by name.
struct Numbered {
    named: Named,
    /// The names in the order of the classes, if they are no numbers.
    names: Option<Vec<String>>,
    note: String,
}

/// Numbers classes that are known by name: names that are numbers are classes; others follow the caller's class list if
/// it has them, else the order of their text.
fn number(
    path: &Path,
    column: &str,
    names: HashMap<String, usize>,
    classes: &mut [usize],
    options: &OpenOptions,
) -> Result<Numbered> {
    let mut sorted: Vec<(String, usize)> = names.into_iter().collect();
    sorted.sort_unstable();
    let texts: Vec<&str> = sorted.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(empty) = texts.iter().position(|text| text.trim().is_empty()) {
        let row = classes.iter().position(|class| *class == sorted[empty].1).unwrap_or(0);
        return Err(Error::sample(path, row, format!("the name of its class in `{column}` is empty")));
    }
    let named = Named::new(path, &texts, options)?;
    let mut class_of = vec![0; sorted.len()];
    for ((_, place), class) in sorted.iter().zip(&named.labels) {
        class_of[*place] = *class;
    }
    classes.iter_mut().for_each(|class| *class = class_of[*class]);
    let count = named.labels.iter().max().map_or(0, |last| last.saturating_add(1));
    let are_numbers = texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    // Numbers may be beyond all classes, which is refused when they are counted.
    let mut class_names = None;
    if count <= MAX_CLASSES && !are_numbers {
        let mut all: Vec<String> = (0..count).map(|class| class.to_string()).collect();
        for (name, class) in texts.iter().zip(&named.labels) {
            all[*class] = (*name).to_owned();
        }
        class_names = Some(all);
    }
    let more = if texts.len() > LISTED { ", ..." } else { "" };
    let shown = texts.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let order = if are_numbers {
        "read as numbers"
    } else if options.class_indices().is_some() {
        "numbered as `classes` lists them"
    } else {
        "numbered in the order of their names"
    };
    let note = format!("the labels in `{column}` are text, {order} ({shown}{more})");
    Ok(Numbered { named, names: class_names, note })
}

/// Whether values are text, each by itself or by its place among all that there are.
fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => values.is_string(),
        kind => kind.is_string(),
    }
}

/// The logits of each row, or of those that have them.
fn logits(column: &ArrayRef) -> Result<Vec<Option<Vec<f32>>>, String> {
    let expected = || format!("{}: a list of floats is expected", column.data_type());
    let is_list = matches!(
        column.data_type(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    );
    if !is_list {
        return Err(expected());
    }
    let rows = cast(column, &DataType::new_list(DataType::Float32, true)).map_err(|_| expected())?;
    let logits = |row: ArrayRef| {
        row.as_primitive::<Float32Type>().iter().map(|value| value.unwrap_or(f32::NAN)).collect()
    };
    Ok(rows.as_list::<i32>().iter().map(|row| row.map(logits)).collect())
}

//! Image datasets in tables, as Hugging Face `datasets`, pandas or a person's own script writes them: a column of
//! images and one of labels, and perhaps one of soft labels. Parquet and Arrow files hold such tables.

mod blocks;
mod images;
mod labels;
mod roles;

use crate::source::adapters::{EncodedSet, Resize};
use crate::source::class_list::ClassList;
use crate::source::containers::arrow::ArrowTable;
use crate::source::containers::parquet::ParquetTable;
use crate::source::containers::table::{ColumnPath, TableFile};
use crate::source::facts::{Embedded, Facts, Found};
use crate::source::format::{Format, Probe};
use crate::source::info;
use crate::source::options::OpenOptions;
use crate::source::place::{Kind, Place};
use crate::source::{Label, LabelKind, Source, shards};
use crate::{Error, Result};
use blocks::Blocks;
use images::{Files, Pixels, Reader};
use labels::Columns;
use roles::{ImageColumn, Roles};
use std::path::{Path, PathBuf};

/// Parquet, Arrow and Feather files.
pub(crate) struct Table;

impl Format for Table {
    fn name(&self) -> &'static str {
        "Parquet or Arrow"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["columns", "split", "image_size", "fit"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        let folder = match place {
            Place::File(file) => {
                let format = match file.kind() {
                    Kind::Parquet => info::Format::Parquet,
                    Kind::Arrow => info::Format::Arrow,
                    _ => return Ok(Probe::miss("it would be a Parquet, Arrow or Feather file")),
                };
                let path = file.path();
                if options.split.is_some() {
                    let reason =
                        format!("{} is one file, which has no splits: leave the option out", path.display());
                    return Err(Error::config("split", reason));
                }
                return Ok(Probe::matched(move || {
                    open(format, path, &[path.to_owned()], [None, None], options)
                }));
            }
            Place::Folder(folder) => folder,
        };
        let split = options.split.as_deref();
        if let Some(files) = shards::saved(folder, split)? {
            return Ok(Probe::matched(move || {
                open(info::Format::Arrow, folder.path(), &files, [None, None], options)
            }));
        }
        for (extension, format) in [
            ("parquet", info::Format::Parquet),
            ("arrow", info::Format::Arrow),
            ("feather", info::Format::Arrow),
        ] {
            let files = shards::files(folder, extension, split)?;
            if !files.is_empty() {
                let notes = [shards::missing(&files), shards::beside(folder, &files, split)];
                return Ok(Probe::matched(move || open(format, folder.path(), &files, notes, options)));
            }
        }
        Ok(Probe::miss("there is no *.parquet, *.arrow or *.feather"))
    }
}

/// Opens the files as one set. Labels are read, and images when they are asked for.
///
/// # Errors
/// If a file is damaged, or not like the first; if columns cannot be told, or labels are not classes.
fn open(
    format: info::Format,
    path: &Path,
    files: &[PathBuf],
    notes: [Option<String>; 2],
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let mut columns = options.columns.clone().unwrap_or_default();
    let (mut parts, mut first) = (Vec::new(), None::<Roles>);
    let (mut labels, mut classes) = (Columns::default(), Classes::default());
    for path in files {
        let file: Box<dyn TableFile> = match format {
            info::Format::Parquet => Box::new(ParquetTable::open(path)?),
            _ => Box::new(ArrowTable::open(path)?),
        };
        let roles = Roles::find(path, file.schema(), &columns).map_err(|error| match (error, files) {
            // The caller did not name the columns, the first file did.
            (Error::Config { reason, .. }, [before, ..]) if options.columns.is_none() => {
                let reason = format!("its columns must be those of {}: {reason}", before.display());
                Error::format(path, reason)
            }
            (error, _) => error,
        })?;
        if let Some(first) = &first
            && std::mem::discriminant(&first.image.at) != std::mem::discriminant(&roles.image.at)
        {
            let reason = "its images are of another kind than those of the files before it";
            return Err(Error::field(path, &roles.image.name, reason));
        }
        classes.add(&*file, &roles)?;
        labels.add(&*file, &roles)?;
        let column = match &roles.image.at {
            ImageColumn::Encoded(column) => *column,
            ImageColumn::Numbers { column, .. } => ColumnPath { column: *column, field: None },
        };
        parts.push((file, column));
        columns = roles.names();
        first.get_or_insert(roles);
    }
    let Some(roles) = first else { return Err(Error::format(path, "there are no files")) };
    let blocks = Blocks::new(parts);
    let mut facts = Facts::new(format, path, options)?;
    facts.embed(Embedded { classes: classes.list, ..Embedded::default() });
    let labels = labels.join(path, classes.names, options)?;
    if labels.labels.is_empty() {
        return Err(Error::field(path, &roles.image.name, "the table has no rows"));
    }
    let samples = labels.labels.len();
    let (shape, space, reader) = match &roles.image.at {
        ImageColumn::Encoded(_) => ([3, 0, 0], facts.pictures(false)?, None),
        ImageColumn::Numbers { shape, .. } => {
            let (reader, shape, space) =
                Reader::look(&blocks, samples, &roles.image.name, shape.clone(), &mut facts)?;
            (shape, space, Some(reader))
        }
    };
    facts.notes(labels.notes);
    facts.notes(roles.notes);
    facts.notes(notes.into_iter().flatten());
    let classes = facts.classes(labels.classes, labels.kind, labels.names, labels.class_map)?;
    if labels.kind == LabelKind::Hard {
        facts.note_odd_classes(labels.labels.iter().map(Label::class), classes.count);
    }
    let labels_kind = labels.kind;
    let info = facts.info(Found {
        method: None,
        samples,
        shape,
        labels: labels_kind,
        learning_rate: None,
        space,
        classes,
    });
    Ok(match reader {
        None => Box::new(EncodedSet::new(info, labels.labels, Files(blocks), Resize::of(options))?),
        Some(reader) => Box::new(Pixels::new(info, labels.labels, blocks, reader)?),
    })
}

/// What the files say of their classes.
#[derive(Default)]
struct Classes {
    /// Those that `datasets` keeps.
    names: Option<Vec<String>>,
    /// What diver keeps, and where it was found.
    list: Option<(PathBuf, ClassList)>,
}

impl Classes {
    /// # Errors
    /// If a file says something else than those before it.
    fn add(&mut self, file: &dyn TableFile, roles: &Roles) -> Result<()> {
        let path = file.path();
        let names = roles.label.as_ref().and_then(|label| {
            let feature = roles::features(file.schema())?.get_mut(&label.name)?.get_mut("names")?.take();
            serde_json::from_value::<Vec<String>>(feature).ok()
        });
        if self.names.is_some() && names.is_some() && self.names != names {
            let label = roles.label.as_ref().map_or("label", |label| &label.name);
            return Err(Error::field(path, label, "class names differ from those of the files before it"));
        }
        self.names = names.or(self.names.take());
        if let Some(json) = file.schema().metadata().get(ClassList::KEY) {
            let list = ClassList::from_json(path, json)?;
            if self.list.as_ref().is_some_and(|(_, other)| *other != list) {
                let reason = "the classes differ from those of the files before it";
                return Err(Error::field(path, ClassList::KEY, reason));
            }
            self.list = Some((path.to_owned(), list));
        }
        Ok(())
    }
}

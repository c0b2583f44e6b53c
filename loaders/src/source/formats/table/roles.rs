//! Which columns of a table hold images, labels and soft labels, by their names and types.

use crate::source::columns::Columns;
use crate::source::containers::table::ColumnPath;
use crate::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use std::path::Path;

/// The usual names, in lower case. A column of images or classes by its type needs none of them. Where two columns fit
/// one role, the caller is asked.
///
/// | role | names | types |
/// |---|---|---|
/// | image | [`IMAGES`] | `Image` of `datasets`, struct of `bytes`; else binary; else `Array2D`, `Array3D` or nested lists of numbers; else the one binary column |
/// | label | [`LABELS`], before [`MORE_LABELS`] | `ClassLabel` of `datasets`, integers, bools, whole floats, text |
/// | soft label | [`SOFT_LABELS`], [`LABELS`] | lists of floats |
const IMAGES: [&str; 19] = [
    "image",
    "img",
    "images",
    "imgs",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "bmp",
    "gif",
    "tif",
    "tiff",
    "picture",
    "photo",
    "image_bytes",
    "img_bytes",
    "pixel_values",
    "pixels",
    "x",
];
const LABELS: [&str; 12] = [
    "label",
    "labels",
    "fine_label",
    "fine_labels",
    "cls",
    "class",
    "classes",
    "target",
    "targets",
    "y",
    "category",
    "class_label",
];
const MORE_LABELS: [&str; 9] = [
    "label_id",
    "label_idx",
    "class_id",
    "class_idx",
    "class_index",
    "category_id",
    "label_name",
    "class_name",
    "category_name",
];
const SOFT_LABELS: [&str; 10] = [
    "soft_label",
    "soft_labels",
    "logits",
    "teacher_logits",
    "probs",
    "probabilities",
    "label_probs",
    "soft_target",
    "soft_targets",
    "distribution",
];

/// The columns that are read.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) image: Named<ImageColumn>,
    pub(super) label: Option<Named<usize>>,
    pub(super) soft_label: Option<Named<usize>>,
    /// What was assumed, and which columns are not used.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Named<T> {
    pub(super) name: String,
    pub(super) at: T,
}

/// What images are stored as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ImageColumn {
    /// Files, as PNG and JPEG.
    Encoded(ColumnPath),
    /// Numbers, of this shape if the file tells it.
    Numbers { column: usize, shape: Option<Vec<usize>> },
}

/// What a column may be, by its type.
#[derive(Debug, PartialEq)]
enum Kind {
    /// Images, for certain.
    Image(ColumnPath),
    Binary(ColumnPath),
    Numbers(Option<Vec<usize>>),
    /// A list of numbers without a shape.
    FlatNumbers {
        is_float: bool,
    },
    /// Classes, for certain.
    ClassLabel,
    /// Numbers or text, of which each could be a class.
    Values,
    Other,
}

impl Roles {
    /// Finds the columns of the file at `path`.
    ///
    /// # Errors
    /// If there are no images or labels, or several columns could be either: names the columns.
    pub(super) fn find(path: &Path, schema: &Schema, given: &Columns) -> Result<Self> {
        let table = Table::new(path, schema);
        let image = table.image(given.image.as_deref())?;
        let soft_label = table.soft_label(given.soft_label.as_deref(), given.label.as_deref())?;
        let label = table.label(given.label.as_deref(), soft_label)?;
        let named = |at: usize| Named { name: table.name(at).to_owned(), at };
        let at = match &image {
            ImageColumn::Encoded(path) => path.column,
            ImageColumn::Numbers { column, .. } => *column,
        };
        let used = [Some(at), label, soft_label];
        let unused = (0..schema.fields().len()).filter(|column| !used.contains(&Some(*column)));
        let unused: Vec<&str> = unused.map(|column| table.name(column)).collect();
        let mut notes = Vec::new();
        for (column, role, names) in [
            (Some(at), "images", &IMAGES[..]),
            (label, "labels", &LABELS[..1]),
            (soft_label, "soft labels", &SOFT_LABELS[..1]),
        ] {
            if let Some(name) = column.map(|column| table.name(column)).filter(|name| !is_one_of(name, names))
            {
                notes.push(format!("the {role} are those of the column `{name}`"));
            }
        }
        if !unused.is_empty() {
            notes.push(format!("columns that are not used: {}", unused.join(", ")));
        }
        let name = table.name(at).to_owned();
        Ok(Self {
            image: Named { name, at: image },
            label: label.map(named),
            soft_label: soft_label.map(named),
            notes,
        })
    }

    /// The columns by name, so that the other files of a set are read alike.
    pub(super) fn names(&self) -> Columns {
        Columns {
            image: Some(self.image.name.clone()),
            label: self.label.as_ref().map(|label| label.name.clone()),
            soft_label: self.soft_label.as_ref().map(|label| label.name.clone()),
        }
    }
}

struct Table<'a> {
    path: &'a Path,
    schema: &'a Schema,
    kinds: Vec<Kind>,
}

impl<'a> Table<'a> {
    fn new(path: &'a Path, schema: &'a Schema) -> Self {
        let features = features(schema);
        let kind = |(column, field): (usize, &std::sync::Arc<Field>)| {
            kind(column, field, features.as_ref().and_then(|features| features.get(field.name())))
        };
        Self { path, schema, kinds: schema.fields().iter().enumerate().map(kind).collect() }
    }

    fn name(&self, column: usize) -> &'a str {
        self.schema.field(column).name()
    }

    /// The columns that `is_it` of name and kind.
    fn columns(&self, is_it: impl Fn(&str, &Kind) -> bool) -> Vec<usize> {
        (0..self.kinds.len()).filter(|column| is_it(self.name(*column), &self.kinds[*column])).collect()
    }

    /// The column that the caller names.
    fn given(&self, role: &'static str, name: &str) -> Result<usize> {
        self.schema.index_of(name).map_err(|_| {
            let reason = format!(
                "`{role}={name}`: there is no such column in {}; there are {}",
                self.path.display(),
                self.all()
            );
            Error::config("columns", reason)
        })
    }

    /// All columns with their types.
    fn all(&self) -> String {
        let columns = self.schema.fields().iter().map(|field| {
            // Nested types are long.
            let kind = match field.data_type() {
                DataType::Struct(_) => "struct".to_owned(),
                kind if kind.is_nested() => "list".to_owned(),
                kind => kind.to_string(),
            };
            format!("{} ({kind})", field.name())
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The one of several columns, if there is one; asks for it if there are more.
    fn one(&self, columns: &[usize], role: &'static str) -> Result<Option<usize>> {
        match columns {
            [] => Ok(None),
            [column] => Ok(Some(*column)),
            several => {
                let names: Vec<&str> = several.iter().map(|column| self.name(*column)).collect();
                let reason = format!(
                    "several columns could be the {role} ({}): choose one with columns=\"{role}=NAME\", as in \
                     columns=\"{role}={}\"; the columns are {}",
                    names.join(", "),
                    names[0],
                    self.all()
                );
                Err(Error::field(self.path, role, reason))
            }
        }
    }

    fn image(&self, given: Option<&str>) -> Result<ImageColumn> {
        if let Some(name) = given {
            let column = self.given("image", name)?;
            return self.as_image(column).ok_or_else(|| self.no_images(column));
        }
        let is_image = |name: &str, kind: &Kind| match kind {
            Kind::Image(_) => true,
            Kind::Binary(_) => is_one_of(name, &IMAGES),
            _ => false,
        };
        let is_numbers = |name: &str, kind: &Kind| matches!(kind, Kind::Numbers(shape) if shape.is_some() || is_one_of(name, &IMAGES));
        let mut found = self.one(&self.columns(is_image), "image")?;
        if found.is_none() {
            found = self.one(&self.columns(is_numbers), "image")?;
        }
        if found.is_none() {
            found = self.one(&self.columns(|_, kind| matches!(kind, Kind::Binary(_))), "image")?;
        }
        if let Some(image) = found.and_then(|column| self.as_image(column)) {
            return Ok(image);
        }
        match self.columns(|name, _| is_one_of(name, &IMAGES))[..] {
            [column, ..] => Err(self.no_images(column)),
            [] => {
                let reason = format!(
                    "no column holds images; there are {}: name it with columns=\"image=NAME,label=NAME\"",
                    self.all()
                );
                Err(Error::field(self.path, "image", reason))
            }
        }
    }

    fn as_image(&self, column: usize) -> Option<ImageColumn> {
        match &self.kinds[column] {
            Kind::Image(path) | Kind::Binary(path) => Some(ImageColumn::Encoded(*path)),
            Kind::Numbers(shape) => Some(ImageColumn::Numbers { column, shape: shape.clone() }),
            _ => None,
        }
    }

    /// Why a column that was to hold images holds none.
    fn no_images(&self, column: usize) -> Error {
        let field = self.schema.field(column);
        let reason = match (&self.kinds[column], field.data_type()) {
            (Kind::FlatNumbers { .. }, _) => {
                "each row is a flat list of numbers, so the height, width and order of the channels are unknown: \
                 write it as Array3D((3, H, W)) or as Image with `datasets`"
                    .to_owned()
            }
            (_, kind) if kind.is_string() => {
                "the column holds text, such as paths, but no images: embed the images when the file is written, as \
                 `datasets` does with cast_column(NAME, Image()) and to_parquet"
                    .to_owned()
            }
            (_, kind) => {
                format!("{kind}: a struct of `bytes` and `path`, or binary, or nested lists of numbers, is expected")
            }
        };
        Error::field(self.path, field.name().clone(), reason)
    }

    fn label(&self, given: Option<&str>, soft_label: Option<usize>) -> Result<Option<usize>> {
        if let Some(name) = given {
            let column = self.given("label", name)?;
            if soft_label == Some(column) {
                return Ok(None);
            }
            return match self.kinds[column] {
                Kind::ClassLabel | Kind::Values => Ok(Some(column)),
                _ => Err(self.no_labels(column)),
            };
        }
        let mut found = self.columns(|name, kind| match kind {
            Kind::ClassLabel => true,
            Kind::Values => is_one_of(name, &LABELS),
            _ => false,
        });
        if found.is_empty() {
            found = self.columns(|name, kind| *kind == Kind::Values && is_one_of(name, &MORE_LABELS));
        }
        // CIFAR-100 has both, and is known by the finer.
        let is_coarse = |column: &usize| self.name(*column).to_ascii_lowercase().starts_with("coarse");
        if found.iter().any(|column| self.name(*column).to_ascii_lowercase().starts_with("fine")) {
            found.retain(|column| !is_coarse(column));
        }
        let found = self.one(&found, "label")?;
        if found.is_some() || soft_label.is_some() {
            return Ok(found);
        }
        match self.columns(|name, _| is_one_of(name, &LABELS))[..] {
            [column, ..] => Err(self.no_labels(column)),
            [] => {
                let reason = format!(
                    "no column holds labels; there are {}: name it with columns=\"label=NAME\"",
                    self.all()
                );
                Err(Error::field(self.path, "label", reason))
            }
        }
    }

    fn no_labels(&self, column: usize) -> Error {
        let field = self.schema.field(column);
        let reason = match field.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                "each row is a list: one class for each row is expected, or a list of floats, one for each class"
                    .to_owned()
            }
            kind => format!("labels of type {kind}: integers or names of classes are expected"),
        };
        Error::field(self.path, field.name().clone(), reason)
    }

    fn soft_label(&self, given: Option<&str>, label: Option<&str>) -> Result<Option<usize>> {
        let is_floats = |kind: &Kind| matches!(kind, Kind::FlatNumbers { is_float: true });
        if let Some(name) = given {
            let column = self.given("soft_label", name)?;
            if is_floats(&self.kinds[column]) {
                return Ok(Some(column));
            }
            let reason = format!("{}: a list of floats is expected", self.schema.field(column).data_type());
            return Err(Error::field(self.path, name, reason));
        }
        if let Some(column) = label.and_then(|name| self.schema.index_of(name).ok())
            && is_floats(&self.kinds[column])
        {
            return Ok(Some(column));
        }
        let named = |names: &'static [&'static str]| {
            move |name: &str, kind: &Kind| is_floats(kind) && is_one_of(name, names)
        };
        // What is called so must be so.
        if let Ok(column) = self.schema.index_of(SOFT_LABELS[0])
            && !is_floats(&self.kinds[column])
        {
            return self.soft_label(Some(SOFT_LABELS[0]), None);
        }
        let found = self.columns(named(&SOFT_LABELS));
        let found = if found.is_empty() { self.columns(named(&LABELS)) } else { found };
        self.one(&found, "soft_label")
    }
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|usual| usual.eq_ignore_ascii_case(name))
}

/// What `datasets` says of the columns in the schema.
pub(super) fn features(schema: &Schema) -> Option<Value> {
    let mut json: Value = serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
    Some(json.pointer_mut("/info/features")?.take())
}

fn kind(column: usize, field: &Field, feature: Option<&Value>) -> Kind {
    let feature_kind = feature.and_then(|feature| feature.get("_type")).and_then(Value::as_str);
    let is_binary =
        |kind: &DataType| matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    match field.data_type() {
        DataType::Struct(fields) => {
            let bytes =
                fields.iter().position(|field| field.name() == "bytes" && is_binary(field.data_type()));
            bytes.map_or(Kind::Other, |bytes| Kind::Image(ColumnPath { column, field: Some(bytes) }))
        }
        kind if is_binary(kind) => {
            let path = ColumnPath { column, field: None };
            if feature_kind == Some("Image") { Kind::Image(path) } else { Kind::Binary(path) }
        }
        kind @ (DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) => {
            let (depth, leaf) = leaf(kind);
            match (depth, leaf.is_numeric()) {
                (1, true) => Kind::FlatNumbers { is_float: leaf.is_floating() },
                (2 | 3, true) => {
                    let shape = feature.filter(|_| matches!(feature_kind, Some("Array2D" | "Array3D")));
                    Kind::Numbers(shape.and_then(|shape| serde_json::from_value(shape["shape"].clone()).ok()))
                }
                _ => Kind::Other,
            }
        }
        kind if kind.is_integer() && feature_kind == Some("ClassLabel") => Kind::ClassLabel,
        DataType::Dictionary(_, values) if values.is_string() || values.is_integer() => Kind::Values,
        kind if kind.is_integer() || kind.is_floating() || kind.is_string() => Kind::Values,
        DataType::Boolean => Kind::Values,
        _ => Kind::Other,
    }
}

/// How deep lists are nested, and what is in the innermost.
fn leaf(kind: &DataType) -> (usize, &DataType) {
    match kind {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            let (depth, leaf) = leaf(field.data_type());
            (depth + 1, leaf)
        }
        kind => (0, kind),
    }
}

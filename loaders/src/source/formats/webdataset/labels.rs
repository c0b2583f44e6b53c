//! Which files of samples are the labels, and what they say.

use super::samples::{Sample, Samples};
use super::values::{self, Value};
use crate::Result;
use crate::source::OpenOptions;
use std::path::Path;

/// What entries with a class are called, the usual ones first.
const CLASSES: [&str; 13] = [
    "cls",
    "class",
    "label",
    "target",
    "labels",
    "y",
    "class_id",
    "label_id",
    "category_id",
    "target_id",
    "class_idx",
    "category",
    "fine_label",
];
/// What entries with a row of values for all classes are called before `.npy`.
const ROWS: [&str; 14] = [
    "logits",
    "logit",
    "soft_label",
    "soft_labels",
    "softlabel",
    "soft",
    "probs",
    "prob",
    "probabilities",
    "scores",
    "softmax",
    "teacher",
    "teacher_logits",
    "targets",
];
/// The most bytes of a label that are read: 65,536 classes of 16 bytes each.
const LONGEST: u64 = 1 << 20;

/// How many suffixes of JSON are looked into.
const LOOKED_INTO: usize = 16;

/// Whether the files of a suffix are images.
pub(super) type AreImages<'a> = &'a dyn Fn(usize) -> bool;

/// What the labels of samples are read from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Those of a class, of which the first that a sample has counts.
    classes: Vec<Class>,
    /// That of rows.
    pub(super) rows: Option<Rows>,
}

/// The suffix of entries with a class.
#[derive(Clone, Debug)]
struct Class {
    suffix: usize,
    text: Text,
}

/// How a class is written.
#[derive(Clone, Debug, PartialEq)]
enum Text {
    /// The class alone, an index or a name.
    Plain,
    /// Under this key of an object, or alone.
    Json(Option<String>),
    /// An array of one integer.
    Npy,
}

/// The suffix of entries with a value for each class.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) suffix: usize,
    /// Whether a name or an option says that they are labels.
    pub(super) is_told: bool,
}

impl Sources {
    /// Looks for labels by the names of entries, and at the first of those that may hold other things, in samples with an
    /// image.
    ///
    /// # Errors
    /// If the options name an entry that is not there, or an entry cannot be read.
    pub(super) fn of(
        path: &Path,
        samples: &Samples,
        are_images: AreImages<'_>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let mut sources = Self::default();
        let columns = options.columns.clone().unwrap_or_default();
        let suffix_of = |name: &str| samples.suffixes.iter().position(|suffix| suffix == name);
        if let Some(name) = &columns.label {
            sources.classes = vec![Class::named(path, samples, are_images, name)?];
        }
        if let Some(name) = &columns.soft_label {
            let name = name.trim_start_matches('.').to_lowercase();
            let suffix = suffix_of(&name).or_else(|| suffix_of(&format!("{name}.npy")));
            let suffix = suffix.ok_or_else(|| samples.no_such(path, &name))?;
            sources.rows = Some(Rows { suffix, is_told: true });
        }
        if !sources.is_empty() {
            return Ok(sources);
        }
        let firsts = First::of(samples, are_images);
        let (mut classes, mut rows, mut jsons) = (Vec::new(), Vec::new(), 0);
        for (suffix, name) in samples.suffixes.iter().enumerate() {
            let (stem, last) = name.rsplit_once('.').unwrap_or(("", name));
            let rank = |name: &str| CLASSES.iter().position(|class| *class == name);
            if let Some(rank) = rank(name).or_else(|| rank(stem).filter(|_| last == "txt" || last == "cls")) {
                classes.push((rank, Class { suffix, text: Text::Plain }));
            } else if last == "json" && jsons < LOOKED_INTO {
                jsons += 1;
                let text = Text::of_json(&firsts, suffix)?;
                classes.extend(text.map(|text| (CLASSES.len(), Class { suffix, text })));
            } else if last == "npy" && (stem.is_empty() || rank(stem).is_some() || ROWS.contains(&stem)) {
                let is_told = !stem.is_empty();
                let Some(content) = firsts.read(suffix)? else { continue };
                match values::npy(&content) {
                    Ok(Value::Integer(_)) => {
                        classes.push((CLASSES.len() + 1, Class { suffix, text: Text::Npy }))
                    }
                    // What is called a label, and is none, is an error when it is read.
                    Ok(_) => {
                        rows.push((ROWS.iter().position(|name| *name == stem), Rows { suffix, is_told }))
                    }
                    Err(_) if is_told => rows.push((None, Rows { suffix, is_told })),
                    Err(_) => {}
                }
            }
        }
        classes.sort_by_key(|(rank, _)| *rank);
        rows.sort_by_key(|(rank, _)| rank.unwrap_or(ROWS.len()));
        sources.classes = classes.into_iter().map(|(_, class)| class).collect();
        sources.rows = rows.into_iter().map(|(_, rows)| rows).next();
        if sources.is_empty()
            && let Some(suffix) = suffix_of("txt")
            && let Some(content) = firsts.read(suffix)?
            && matches!(values::plain(&content), Ok(Value::Integer(_)))
        {
            sources.classes = vec![Class { suffix, text: Text::Plain }];
        }
        Ok(sources)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.rows.is_none()
    }

    /// Whether a sample with a file of this suffix must have an image. JSON may be of the whole set.
    pub(super) fn asks_for_image(&self, suffix: usize) -> bool {
        let is_it = |class: &Class| class.suffix == suffix && !matches!(class.text, Text::Json(_));
        self.classes.iter().any(is_it) || self.rows.as_ref().is_some_and(|rows| rows.suffix == suffix)
    }

    /// The class that a sample is of, with the suffix of the entry that says so.
    ///
    /// # Errors
    /// If the entry holds none.
    pub(super) fn class(&self, samples: &Samples, sample: &Sample) -> Result<Option<(usize, Value)>> {
        let found = self.classes.iter().find_map(|class| Some((class, sample.file(class.suffix)?)));
        let Some((class, file)) = found else { return Ok(None) };
        let archive = samples.archive(sample);
        let content = archive.read_up_to(file, LONGEST)?;
        let value = match &class.text {
            Text::Plain => values::plain(&content),
            Text::Json(key) => values::json(&content, key.as_deref()),
            Text::Npy => values::npy(&content),
        };
        Ok(Some((class.suffix, value.map_err(|reason| archive.refused(file, reason))?)))
    }

    /// The row of a sample.
    ///
    /// # Errors
    /// If the entry holds none.
    pub(super) fn row(&self, samples: &Samples, sample: &Sample) -> Result<Option<Vec<f32>>> {
        let Some(file) = self.rows.as_ref().and_then(|rows| sample.file(rows.suffix)) else {
            return Ok(None);
        };
        let archive = samples.archive(sample);
        let row = values::npy(&archive.read_up_to(file, LONGEST)?).and_then(|value| match value {
            Value::Row(row) if row.iter().all(|value| value.is_finite()) => Ok(row),
            Value::Row(_) => Err("it contains NaN or infinity".to_owned()),
            _ => Err("expected an array with a value for each class".to_owned()),
        });
        row.map(Some).map_err(|reason| archive.refused(file, reason))
    }
}

impl Class {
    /// The entry that is called so, or the entry of JSON with this key.
    fn named(path: &Path, samples: &Samples, are_images: AreImages<'_>, given: &str) -> Result<Self> {
        let name = given.trim_start_matches('.').to_lowercase();
        let suffix_of = |name: &str| samples.suffixes.iter().position(|suffix| suffix == name);
        if let Some(suffix) = suffix_of(&name) {
            let text = match name.rsplit('.').next() {
                Some("json") => {
                    Text::of_json(&First::of(samples, are_images), suffix)?.unwrap_or(Text::Json(None))
                }
                Some("npy") => Text::Npy,
                _ => Text::Plain,
            };
            return Ok(Self { suffix, text });
        }
        let key = given.strip_prefix("json.").unwrap_or(given);
        let suffix = suffix_of("json").ok_or_else(|| samples.no_such(path, &name))?;
        Ok(Self { suffix, text: Text::Json(Some(key.to_owned())) })
    }
}

impl Text {
    /// Where the label is in the entries of JSON; none if they have no label.
    fn of_json(firsts: &First<'_>, suffix: usize) -> Result<Option<Self>> {
        let Some(content) = firsts.read(suffix)? else { return Ok(None) };
        Ok(match values::key_of(&content) {
            Ok(key) => key.map(|key| Self::Json(key.map(str::to_owned))),
            // To be told where it is read.
            Err(_) => Some(Self::Json(None)),
        })
    }
}

/// The first entry of each suffix that lies beside an image.
struct First<'a> {
    samples: &'a Samples,
    firsts: Vec<Option<(&'a Sample, usize)>>,
}

impl<'a> First<'a> {
    fn of(samples: &'a Samples, are_images: AreImages<'_>) -> Self {
        let has_image = |sample: &Sample| sample.files.iter().any(|file| are_images(file.suffix));
        Self { samples, firsts: samples.firsts(has_image) }
    }

    /// What is in it; nothing if it is too long for a label.
    fn read(&self, suffix: usize) -> Result<Option<Vec<u8>>> {
        let Some((sample, file)) = self.firsts[suffix] else { return Ok(None) };
        let content = self.samples.archive(sample).head(file, LONGEST + 1)?;
        Ok(Some(content).filter(|content| content.len() as u64 <= LONGEST))
    }
}

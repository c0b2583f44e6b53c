//! What is known of a set beside its images and labels, and by what right: an option overrules the sidecar, that the files
//! themselves, those the path, and the path what is usual. Each fact is settled once and noted once.

mod classes;

pub(crate) use classes::Classes;

use super::class_list::ClassList;
use super::containers::archive::Archive;
use super::datasets::{self, Dataset};
use super::info::{Fact, Format, Right, SourceInfo};
use super::options::{OpenOptions, Values};
use super::sample::{LabelKind, ValueSpace};
use super::sidecar::{self, Sidecar};
use crate::{Error, Normalize, Result};
use std::path::{Path, PathBuf};

/// What is known of one set.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    options: &'a OpenOptions,
    path: PathBuf,
    format: Format,
    dataset: Option<Dataset>,
    sidecar: Option<Sidecar>,
    embedded: Embedded,
    facts: Vec<Fact>,
    notes: Vec<String>,
    /// Whether it is a part of a set, which lacks classes that others have.
    is_part: bool,
}

/// What files say of themselves.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    pub(crate) values: Option<Values>,
    /// With the file that says so.
    pub(crate) classes: Option<(PathBuf, ClassList)>,
    /// Whether settings that lie beside the data say that it was whitened.
    pub(crate) is_whitened: bool,
}

/// The space of a set's values, and what batches are normalised with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Space {
    pub(crate) values: ValueSpace,
    pub(crate) normalize: Normalize,
}

/// What a format has found out of a set.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) method: Option<String>,
    pub(crate) samples: usize,
    pub(crate) shape: [usize; 3],
    pub(crate) labels: LabelKind,
    pub(crate) learning_rate: Option<f32>,
    pub(crate) space: Space,
    pub(crate) classes: Classes,
}

impl<'a> Facts<'a> {
    /// Reads the sidecar of the set whose data is at `path`, and looks for names in the path. A set in memory has neither.
    ///
    /// # Errors
    /// If the sidecar is not what it must be, or the dataset option is unknown.
    pub(crate) fn new(format: Format, path: &Path, options: &'a OpenOptions) -> Result<Self> {
        let dataset = options.dataset.as_deref().map(Dataset::named).transpose()?;
        Ok(Self {
            options,
            path: path.to_owned(),
            format,
            dataset,
            sidecar: Sidecar::read(path)?,
            embedded: Embedded::default(),
            facts: Vec::new(),
            notes: Vec::new(),
            is_part: false,
        })
    }

    /// The facts of a part of the set at `whole`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_part(
        format: Format,
        path: &Path,
        whole: &Path,
        options: &'a OpenOptions,
    ) -> Result<Self> {
        let beside = Self::new(format, path, options)?;
        let sidecar = if beside.sidecar.is_some() { beside.sidecar } else { Sidecar::read(whole)? };
        Ok(Self { sidecar, is_part: true, ..beside })
    }

    /// Adds what the files say of themselves.
    pub(crate) fn embed(&mut self, embedded: Embedded) {
        self.embedded = embedded;
    }

    /// Takes what the sidecar in a folder of an archive says, unless there is one beside the archive.
    ///
    /// # Errors
    /// If it is not what it must be.
    pub(crate) fn sidecar_within(&mut self, archive: &Archive, folder: &Path) -> Result<()> {
        if self.sidecar.is_none()
            && let Some(file) = archive.find(&folder.join(sidecar::NAME))
        {
            let path = archive.path().join(&archive.paths()[file]);
            self.sidecar = Some(Sidecar::parse(path, archive.read_up_to(file, sidecar::LONGEST)?)?);
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> &'a OpenOptions {
        self.options
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether nobody says what the constants are.
    pub(crate) fn are_constants_assumed(&self) -> bool {
        self.constants_quietly().1 >= Right::Path
    }

    /// Whether the format's methods store pixels.
    pub(crate) fn are_pixels(&self) -> bool {
        self.format == Format::Idc
    }

    /// Notes what was assumed or left out.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn notes(&mut self, notes: impl IntoIterator<Item = String>) {
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// States a fact.
    pub(crate) fn state(&mut self, name: &'static str, value: impl Into<String>, right: Right) {
        self.facts.push(Fact { name, value: value.into(), right });
    }

    /// The side of the images of the dataset that the option or the path names.
    pub(crate) fn native_side(&self) -> Option<(usize, Dataset, Right)> {
        let named = self.dataset.clone().map(|dataset| (dataset, Right::Option));
        let (dataset, right) = named.or_else(|| Some((Dataset::in_path(&self.path)?, Right::Path)))?;
        Some((dataset.side()?, dataset, right))
    }

    /// What somebody says that the float values are: the options, the sidecar or the files.
    pub(crate) fn told_values(&self) -> Option<(Values, Right)> {
        let option = self.options.values.map(|values| (values, Right::Option));
        let sidecar = || Some((self.sidecar.as_ref()?.values?, Right::Sidecar));
        let embedded = || Some((self.embedded.values?, Right::Embedded));
        // A transform to pixels makes them whitened where nothing else is said.
        let transform = || Some((self.options.zca.as_ref().map(|_| Values::Whitened)?, Right::Option));
        option.or_else(sidecar).or_else(embedded).or_else(transform)
    }

    /// The space of float values that are `usual` for the format, for the reason `why`, where nothing is told.
    pub(crate) fn space(&mut self, usual: Values, why: Option<String>) -> Space {
        let told = self.told_values();
        let (values, right) = told.unwrap_or_else(|| {
            let zca = self.whitened_by().filter(|_| usual == Values::Normalized);
            if let Some((what, right)) = zca {
                self.note(format!(
                    "{what} says `zca`, so the images are taken to be ZCA-whitened and are streamed as they are stored; \
                     pass `values` if they are not whitened"
                ));
                return (Values::Whitened, right);
            }
            if let Some(why) = why {
                self.note(why);
            }
            (usual, Right::Guess)
        });
        self.state("values", values.as_str(), right);
        match values {
            Values::Normalized => {
                let normalize = self.constants("stored values are taken to be normalised");
                Space { values: ValueSpace::Normalized(normalize), normalize }
            }
            Values::Unit => self.pixels(),
            Values::Whitened => {
                // Whitened values stay as they are; those that become pixels again do not.
                let normalize = match self.options.zca {
                    Some(_) => self.pixels().normalize,
                    None => self.constants_quietly().0,
                };
                Space { values: ValueSpace::Whitened, normalize }
            }
        }
    }

    /// Who says that the values are whitened, in passing.
    fn whitened_by(&self) -> Option<(&'static str, Right)> {
        if self.embedded.is_whitened {
            return Some(("a setting stored with the data", Right::Embedded));
        }
        datasets::names_zca(&self.path).then_some(("the path", Right::Path))
    }

    /// The space of pixels.
    pub(crate) fn pixels(&mut self) -> Space {
        let normalize = self.constants("batches are normalised");
        Space { values: ValueSpace::Unit, normalize }
    }

    /// The space of encoded pictures; ImageNet's constants are no guess where the classes are known to be ImageNet's.
    ///
    /// # Errors
    /// If an option says that the values are anything but pixels.
    pub(crate) fn pictures(&mut self, are_of_imagenet: bool) -> Result<Space> {
        self.bytes_are_pixels()?;
        if are_of_imagenet && self.constants_quietly().1 == Right::Guess {
            self.state("mean, std", "ImageNet's, by the WordNet ids", Right::Embedded);
            return Ok(Space { values: ValueSpace::Unit, normalize: Normalize::IMAGENET });
        }
        Ok(self.pixels())
    }

    /// The constants with which `what` is done, noted where they are assumed.
    fn constants(&mut self, what: &str) -> Normalize {
        let (normalize, right, whose) = self.constants_quietly();
        match right {
            Right::Path => self.note(format!(
                "{what} with the constants of {whose}, which the path names; pass `mean` and `std` for other constants"
            )),
            Right::Guess => self.note(format!(
                "{what} with ImageNet's constants, because neither an option nor norm.json nor the path says which; pass \
                 `dataset`, or `mean` and `std`, for other constants"
            )),
            _ => {}
        }
        let value = format!("{:?}, {:?}{whose:.0}", normalize.mean, normalize.std);
        let value = if whose.is_empty() { value } else { format!("{value} ({whose}'s)") };
        self.state("mean, std", value, right);
        normalize
    }

    /// The constants, by what right they are known, and whose they are.
    fn constants_quietly(&self) -> (Normalize, Right, String) {
        if let Some(normalize) = self.options.given_normalization() {
            return (normalize, Right::Option, String::new());
        }
        if let Some(sidecar) = &self.sidecar {
            return (sidecar.normalize, Right::Sidecar, String::new());
        }
        let named = self.dataset.clone().map(|dataset| (dataset, Right::Option));
        let named = named.or_else(|| Some((Dataset::in_path(&self.path)?, Right::Path)));
        let known = named.and_then(|(dataset, right)| {
            Some((dataset.constants(self.format)?, right, dataset.name().to_owned()))
        });
        known.unwrap_or((Normalize::IMAGENET, Right::Guess, "ImageNet".to_owned()))
    }

    /// What the set says of itself.
    pub(crate) fn info(self, found: Found) -> SourceInfo {
        SourceInfo {
            format: self.format,
            method: found.method,
            path: self.path,
            num_samples: found.samples,
            num_classes: found.classes.count,
            classes: found.classes.names,
            class_map: found.classes.map,
            shape: found.shape,
            labels: found.labels,
            value_space: found.space.values,
            normalize: found.space.normalize,
            learning_rate: found.learning_rate,
            facts: self.facts,
            notes: self.notes,
        }
    }

    /// Checks that no option says something else of bytes.
    ///
    /// # Errors
    /// If `values` or `zca` does.
    pub(crate) fn bytes_are_pixels(&self) -> Result<()> {
        let given = self.options.values.or(self.options.zca.as_ref().map(|_| Values::Whitened));
        if given.is_some_and(|values| values != Values::Unit) {
            let option = if self.options.values.is_some() { "values" } else { "zca" };
            let reason =
                "the images are stored as bytes, which are pixels from 0 to 255: leave the option out";
            return Err(Error::config(option, reason));
        }
        Ok(())
    }
}

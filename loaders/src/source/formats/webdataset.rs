//! WebDataset: archives in which the entries of a sample share a key, as in `0001.jpg` and `0001.cls`.

mod images;
mod labels;
mod samples;
mod targets;
mod values;

use self::images::{Images, NoImages, is_image};
use self::labels::{AreImages, Sources};
use self::samples::{Cut, Sample, Samples};
use self::targets::Targets;
use crate::source::adapters::{Encoded, EncodedSet, Resize};
use crate::source::containers::archive::Archive;
use crate::source::facts::{Facts, Found};
use crate::source::format::{Format, Probe};
use crate::source::options::OpenOptions;
use crate::source::place::{Folder, Place};
use crate::source::{Label, LabelKind, Source, info, shards};
use crate::wording::counted;
use crate::{Error, Result};
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tar files, or a folder of them.
pub(crate) struct WebDataset;

impl Format for WebDataset {
    fn name(&self) -> &'static str {
        "WebDataset"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["image_size", "fit", "columns", "split"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        let mut files = Vec::new();
        let archives: Vec<Arc<Archive>> = match place {
            Place::File(file) => file.archive()?.cloned().into_iter().collect(),
            Place::Folder(folder) => {
                files = shards(folder, options)?;
                let open = |file: &PathBuf| Archive::open_tar(file).transpose().map(|tar| tar.map(Arc::new));
                let not_tar =
                    |file: &PathBuf| Error::format(file, "this is not a tar file, as others beside it are");
                files
                    .iter()
                    .map(|file| open(file).unwrap_or_else(|| Err(not_tar(file))))
                    .collect::<Result<_>>()?
            }
        };
        if archives.is_empty() {
            return Ok(Probe::miss("it would be a tar file, or a folder with several"));
        }
        let path = place.path();
        let samples = Samples::of(&archives, Cut::First)?;
        let miss = match Images::of(path, &samples, options)? {
            Ok(images)
                if has_labels(path, &samples, &|suffix| images.suffixes.contains(&suffix), options)? =>
            {
                None
            }
            Err(NoImages::Several(_)) if may_have_labels(path, &archives, options)? => None,
            Err(NoImages::None) => {
                let there = samples.unused(|_| false).unwrap_or_else(|| "the archive is empty".to_owned());
                Some((2, format!("no entry is an image; {there}")))
            }
            Ok(_) | Err(NoImages::Several(_)) => Some((
                3,
                format!(
                    "no image has a label: expected an entry .cls, .json with `label`, or .npy for each, but the first \
                     sample has {}",
                    samples.samples.first().map(|sample| samples.files_of(sample)).unwrap_or_default()
                ),
            )),
        };
        if let Some((likeness, reason)) = miss {
            return Ok(Probe::near(likeness, reason));
        }
        if let (Place::File(_), Some(split)) = (place, &options.split) {
            let reason = format!("`{split}`: {} is one file of samples: leave `split` out", path.display());
            return Err(Error::config("split", reason));
        }
        let beside = match place {
            Place::Folder(folder) => shards::beside(folder, &files, options.split.as_deref()),
            Place::File(_) => None,
        };
        let notes = [shards::missing(&files), beside];
        Ok(Probe::matched(move || open(path, &archives, samples, notes, options)))
    }
}

fn has_labels(
    path: &Path,
    samples: &Samples,
    are_images: AreImages<'_>,
    options: &OpenOptions,
) -> Result<bool> {
    Sources::of(path, samples, are_images, options).map(|sources| !sources.is_empty())
}

/// Whether images with dots in their names have labels, wherever keys end: they may also be those of class folders.
fn may_have_labels(path: &Path, archives: &[Arc<Archive>], options: &OpenOptions) -> Result<bool> {
    for cut in [Cut::First, Cut::Last] {
        let samples = Samples::of(archives, cut)?;
        if has_labels(path, &samples, &|suffix| is_image(&samples.suffixes[suffix]), options)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The endings of tar files.
const ENDINGS: [&str; 3] = ["tar", "tar.gz", "tgz"];
/// How many folders of a folder are looked into for tar files.
const LOOKED_INTO: usize = 64;

/// The tar files of a folder that are one set.
fn shards(folder: &Folder, options: &OpenOptions) -> Result<Vec<PathBuf>> {
    for ending in ENDINGS {
        // FKD's files are called .tar, and are none.
        if has_tar(folder, ending)? {
            return shards::files(folder, ending, options.split.as_deref());
        }
    }
    Ok(Vec::new())
}

/// Whether the first file of this ending in a folder, or in one of its folders, is a tar.
fn has_tar(folder: &Folder, ending: &str) -> Result<bool> {
    let first = |folder: &Folder| Some(folder.path().join(folder.with_extension(ending).next()?));
    if let Some(file) = first(folder) {
        return Archive::is_tar(&file);
    }
    for name in folder.folders().take(LOOKED_INTO) {
        // What cannot be listed holds nothing for us.
        if let Ok(Some(inner)) = folder.folder(name)
            && let Some(file) = first(inner)
        {
            return Archive::is_tar(&file);
        }
    }
    Ok(false)
}

/// What a set is made of.
struct Plan {
    images: Images,
    targets: Targets,
    /// The archive and the place in it of each image.
    places: Vec<(usize, usize)>,
    /// Suffixes of entries that are images or labels.
    unused: Option<String>,
}

fn open(
    path: &Path,
    archives: &[Arc<Archive>],
    samples: Samples,
    notes: [Option<String>; 2],
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let mut facts = Facts::new(info::Format::WebDataset, path, options)?;
    let plan = plan(path, &samples, options).or_else(|error| {
        // Keys with dots, if that is what makes samples of the entries.
        let whole = Samples::of(archives, Cut::Last)?;
        let is_other = whole.samples.len() != samples.samples.len() && options.columns.is_none();
        match plan(path, &whole, options) {
            Ok(plan) if is_other && !is_shared(&samples) => {
                facts.note(format!(
                    "keys contain dots: they are taken to end at the last dot of a name, so that there are {}; WebDataset \
                     itself takes them to end at the first dot",
                    counted(plan.places.len(), "sample")
                ));
                Ok(plan)
            }
            _ => Err(error),
        }
    })?;
    facts.notes(notes.into_iter().flatten());
    for archive in archives {
        facts.sidecar_within(archive, Path::new(""))?;
        facts.notes(archive.notes().iter().cloned());
    }
    let labels = plan.targets.labels;
    let space = facts.pictures(false)?;
    let classes = facts.classes(labels.classes, labels.kind, labels.names, labels.class_map)?;
    facts.notes(plan.images.note);
    facts.notes(plan.targets.notes);
    facts.notes(labels.notes);
    facts.notes(plan.unused);
    if labels.kind == LabelKind::Hard {
        facts.note_odd_classes(labels.labels.iter().map(Label::class), classes.count);
    }
    let info = facts.info(Found {
        method: None,
        samples: labels.labels.len(),
        shape: [3, 0, 0],
        labels: labels.kind,
        learning_rate: None,
        space,
        classes,
    });
    let images = Encodings { archives: archives.to_vec(), places: plan.places };
    Ok(Box::new(EncodedSet::new(info, labels.labels, images, Resize::of(options))?))
}

fn plan(path: &Path, samples: &Samples, options: &OpenOptions) -> Result<Plan> {
    let images = match Images::of(path, samples, options)? {
        Ok(images) => images,
        Err(NoImages::Several(error)) => return Err(error),
        Err(NoImages::None) => return Err(Error::format(path, "no entry is an image")),
    };
    let sources = Sources::of(path, samples, &|suffix| images.suffixes.contains(&suffix), options)?;
    let (mut of, mut places) = (Vec::new(), Vec::new());
    for sample in &samples.samples {
        match images.of_sample(samples, sample)? {
            Some(image) => {
                of.push(sample);
                places.push((sample.archive, image));
            }
            None if needs_image(samples, sample, &sources) => {
                let reason = format!("a sample without an image: there are {}", samples.files_of(sample));
                return Err(samples.refused(sample, reason));
            }
            // Other data of the archive.
            None => {}
        }
    }
    if of.is_empty() {
        return Err(Error::format(path, "no sample has an image"));
    }
    let targets = Targets::read(path, samples, &of, &sources, options)?;
    let unused = samples.unused(|suffix| images.suffixes.contains(&suffix) || targets.used.contains(&suffix));
    Ok(Plan { images, targets, places, unused })
}

/// Whether a sample has a label, or an image beside that which others have.
fn needs_image(samples: &Samples, sample: &Sample, sources: &Sources) -> bool {
    sample
        .files
        .iter()
        .any(|file| is_image(&samples.suffixes[file.suffix]) || sources.asks_for_image(file.suffix))
}

/// Whether all of several samples have an image of one suffix: their keys are then none with dots.
fn is_shared(samples: &Samples) -> bool {
    let all = samples.samples.len();
    let counts = samples.counts();
    all > 1 && counts.iter().zip(&samples.suffixes).any(|(count, suffix)| *count == all && is_image(suffix))
}

/// Images in archives.
#[derive(Debug)]
struct Encodings {
    archives: Vec<Arc<Archive>>,
    places: Vec<(usize, usize)>,
}

impl Encoded for Encodings {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let (archive, file) = self.places[index];
        self.archives[archive].read(file).map(Cursor::new)
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        let (archive, file) = self.places[index];
        let archive = &self.archives[archive];
        Error::sample(&archive.path().join(&archive.paths()[file]), index, reason)
    }
}

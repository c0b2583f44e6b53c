//! Tells which format lies at a path, opens it, and says what a place that is none comes nearest to.

use super::adapters::Unwhitened;
use super::format::{Format, KNOWN, Miss, Opener, Probe};
use super::formats::{Archives, Dc, Idc, ImageFolder, Mtt, Table, Tensors, WebDataset, open_bytes};
use super::options::OpenOptions;
use super::place::{Folder, Place};
use super::sidecar::IN_MEMORY;
use super::traits::Source;
use crate::paths::{local, meant};
use crate::wording::counted;
use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;

/// Every format, in the order in which they are asked.
const FORMATS: [&dyn Format; 8] = [&Mtt, &Idc, &Table, &WebDataset, &Archives, &ImageFolder, &Tensors, &Dc];

/// How many formats are told with the reason that each failed.
const TOLD: usize = 3;
/// How many sets in a folder are named, how many folders and files of one are looked into, and how deep.
const NAMED: usize = 4;
const LOOKED_INTO: usize = 32;
const DEPTH: usize = 2;

/// Opens the dataset at `path`, whichever known format it has, with default [`OpenOptions`].
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
    OpenOptions::new().open(path)
}

impl OpenOptions {
    /// Opens the dataset at `path`:
    ///
    /// - `dc`: the torch file of DC, DSA or DM;
    /// - `mtt`: the run folder of MTT, GLaD, FTD, EDF or DATM, or one images file of it; images and labels in two files of
    ///   torch or numpy that go by a pair of names; DC-BENCH's folder with a set in parts, `images_best_0.pt` and so on;
    ///   windows of MTT's texture canvases;
    /// - `idc`: the run folder of IDC, DREAM or NCFM, or its data file, decoded; or the folder with all phases of an
    ///   ImageNet-100 run of IDC;
    /// - `kip`: the npz files of KIP that DC-BENCH has;
    /// - `tensors`: images and labels by name, in a torch, pickle, npz or safetensors file; one after the other in a list
    ///   or tuple; a `TensorDataset`, or a `Subset` of one;
    /// - `image-folder`: a folder of class folders, on disk or in a zip or tar file;
    /// - `parquet`: a Parquet file, or a folder of them, as Hugging Face `datasets` writes images;
    /// - `arrow`: an Arrow or Feather file, or a folder of them, as `datasets` saves them to disk;
    /// - `webdataset`: a tar file, or a folder of them, whose entries `<key>.<suffix>` are an image and its label.
    ///
    /// A folder with a single file that is a set of its own opens as the file. A folder of splits opens as the one that
    /// `split` names.
    ///
    /// # Errors
    /// If nothing known is there, if it is damaged, if it can be read in several ways, or if it does not fit an option.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
        let options = self.checked()?;
        let path = local("source", path.as_ref())?;
        let place = Place::look(path).map_err(|error| match (error, meant(path)) {
            (Error::Io { path, action, source }, Some(hint)) if source.kind() == ErrorKind::NotFound => {
                let source = std::io::Error::new(ErrorKind::NotFound, format!("{source}; {hint}"));
                Error::Io { path, action, source }
            }
            (error, _) => error,
        })?;
        options.finish(options.open_place(&place)?)
    }

    /// Opens `images` and `labels` that a program holds as it would write them to a safetensors file; such a set is of
    /// format `tensors`.
    ///
    /// ```
    /// use diver_loaders::source::OpenOptions;
    /// use safetensors::{Dtype, tensor::TensorView};
    ///
    /// let images = TensorView::new(Dtype::U8, vec![2, 3, 2, 2], &[128; 24])?;
    /// let labels = TensorView::new(Dtype::U8, vec![2], &[0, 1])?;
    /// let bytes = safetensors::serialize([("images", images), ("labels", labels)], None)?;
    /// let set = OpenOptions::new().dataset("cifar10").open_bytes(&bytes)?;
    /// assert_eq!((set.info().num_samples, set.info().num_classes), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); messages call the file `<memory>`.
    pub fn open_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Source>> {
        let options = self.checked()?;
        options.check_taken(&Tensors, Path::new(IN_MEMORY))?;
        options.finish(open_bytes(bytes, &options)?)
    }

    fn open_place(&self, place: &Place) -> Result<Box<dyn Source>> {
        let mut misses = Vec::new();
        for format in FORMATS {
            match format.probe(place, self)? {
                Probe::Match(open) => {
                    self.check_taken(format, place.path())?;
                    return open();
                }
                Probe::Doubtful(open) => {
                    if let Place::Folder(folder) = place {
                        let mut sets = Vec::new();
                        collect(folder, "", DEPTH, self, &mut sets);
                        if !sets.is_empty() {
                            return Err(several(folder, sets));
                        }
                    }
                    self.check_taken(format, place.path())?;
                    return open();
                }
                Probe::Miss(miss) => misses.push((format, miss)),
            }
        }
        let Place::Folder(folder) = place else { return Err(not_known(place, misses)) };
        // A format that knows the place has said what to open.
        let is_known = misses.iter().any(|(_, miss)| miss.likeness >= KNOWN);
        let whole = Self { split: None, ..self.clone() };
        let files = if is_known { Vec::new() } else { files(folder, &whole) };
        if let Some(split) = &self.split
            && let Some(file) = files.iter().find(|file| is_called(file.path(), split))
        {
            return whole.open_place(file);
        }
        if let [only] = &files[..] {
            return self.open_place(only);
        }
        let mut sets = Vec::new();
        collect(folder, "", DEPTH, self, &mut sets);
        if let Some(split) = &self.split {
            return self.open_split(folder, split, &sets);
        }
        match (&files[..], &sets[..]) {
            (_, [_, ..]) => Err(several(folder, sets)),
            ([first, ..], []) => {
                let (count, first) = (counted(files.len(), "file"), first.path().display());
                Err(Error::format(
                    folder.path(),
                    format!("{count} in it are datasets of their own: open one, as {first}"),
                ))
            }
            ([], []) => Err(not_known(place, misses)),
        }
    }

    /// Opens the folder of a split, in a folder of them.
    fn open_split(&self, folder: &Folder, split: &str, sets: &[String]) -> Result<Box<dyn Source>> {
        let named = sets.iter().find(|name| name.eq_ignore_ascii_case(split));
        match named {
            Some(name) => {
                let place = Place::look(&folder.path().join(name))?;
                Self { split: None, ..self.clone() }.open_place(&place)
            }
            None => {
                let there = if sets.is_empty() { "no splits".to_owned() } else { sets.join(", ") };
                let reason =
                    format!("there is no split `{split}` in {}, but {there}", folder.path().display());
                Err(Error::config("split", reason))
            }
        }
    }

    /// Refuses options that mean nothing to the format of what is at `path`.
    fn check_taken(&self, format: &dyn Format, path: &Path) -> Result<()> {
        for option in self.given_for_formats() {
            if !format.takes().contains(&option) {
                let takers: Vec<&str> = FORMATS
                    .iter()
                    .filter(|other| other.takes().contains(&option))
                    .map(|other| other.name())
                    .collect();
                let reason = format!(
                    "{} was recognised as {}, to which the option does not apply; it applies to: {}",
                    path.display(),
                    format.name(),
                    takers.join("; ")
                );
                return Err(Error::config(option, reason));
            }
        }
        Ok(())
    }

    /// Applies what means the same to all formats.
    fn finish(&self, source: Box<dyn Source>) -> Result<Box<dyn Source>> {
        match &self.zca {
            Some(zca) => Ok(Box::new(Unwhitened::new(source, zca.as_ref())?)),
            None => Ok(source),
        }
    }
}

/// What opens the place, if it is a set that can be recognised.
fn recognised<'a>(place: &'a Place, options: &'a OpenOptions) -> Option<Opener<'a>> {
    FORMATS.iter().find_map(|format| match format.probe(place, options) {
        Ok(Probe::Match(open)) => Some(open),
        _ => None,
    })
}

/// Whether a file's name, without its extension, is this one.
fn is_called(path: &Path, name: &str) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.eq_ignore_ascii_case(name))
}

/// The files of a folder that are sets of their own, as an export leaves one.
fn files(folder: &Folder, options: &OpenOptions) -> Vec<Place> {
    if folder.files().len() > LOOKED_INTO {
        return Vec::new();
    }
    // What cannot be read has nothing to say.
    let places = folder.files().iter().filter_map(|name| Place::look(&folder.path().join(name)).ok());
    places.filter(|place| recognised(place, options).is_some()).collect()
}

/// Adds the sets in the folders of `folder`, which is called `prefix` below the one that was opened.
fn collect(folder: &Folder, prefix: &str, depth: usize, options: &OpenOptions, sets: &mut Vec<String>) {
    let options = OpenOptions { split: None, ..options.clone() };
    for name in folder.folders().take(LOOKED_INTO) {
        // What cannot be listed has nothing to say.
        let Ok(inner) = Folder::list(&folder.path().join(name)) else { continue };
        // FKD's files are called .tar, and are none.
        if has_soft_labels(&inner) {
            continue;
        }
        let name = format!("{prefix}{}", name.display());
        let inner = Place::Folder(inner);
        if recognised(&inner, &options).is_some() {
            sets.push(name);
        } else if let (Place::Folder(inner), true) = (&inner, depth > 1) {
            collect(inner, &format!("{name}/"), depth - 1, &options, sets);
        }
    }
}

/// Whether a folder has the files of an epoch that FKD writes.
fn has_soft_labels(folder: &Folder) -> bool {
    folder.names().any(|name| name.starts_with("batch_") && name.ends_with(".tar"))
}

/// Whether a folder is one of FKD's soft labels: epochs with their files.
fn is_soft_labels(folder: &Folder) -> bool {
    let epoch = folder.folders().find(|name| name.to_str().is_some_and(|name| name.starts_with("epoch_")));
    epoch.and_then(|name| folder.folder(name).ok().flatten()).is_some_and(has_soft_labels)
}

/// The error for a folder that contains datasets in its subfolders.
fn several(folder: &Folder, mut sets: Vec<String>) -> Error {
    // Of several splits, the one to train on.
    sets.sort_by_key(|name| name != "train");
    let open = |name: &String| folder.path().join(name).display().to_string();
    let reason = match &sets[..] {
        [only] => format!("this is not a dataset itself, but its subfolder {only} is: open {}", open(only)),
        [first, others @ ..] => {
            let more = if others.len() >= NAMED { ", ..." } else { "" };
            let others: Vec<&str> = others.iter().take(NAMED - 1).map(String::as_str).collect();
            format!(
                "this is not a dataset itself, but its subfolders are: open {}, or pass split=\"{first}\". The others are {}{more}",
                open(first),
                others.join(", ")
            )
        }
        [] => "this is not a known dataset".to_owned(),
    };
    Error::format(folder.path(), reason)
}

/// The error for a place that is of no format, made of what each of them missed.
fn not_known(place: &Place, mut misses: Vec<(&dyn Format, Miss)>) -> Error {
    let what = match place {
        Place::Folder(folder) if folder.is_empty() => {
            return Error::format(folder.path(), "this is not a known dataset: the folder is empty");
        }
        Place::Folder(folder) if is_soft_labels(folder) => {
            let reason = "these are FKD's soft labels, not images: give this folder to SoftLabels, with the images \
                          that it is about";
            return Error::format(folder.path(), reason);
        }
        Place::Folder(folder) => format!("the folder has {}", folder.describe()),
        Place::File(file) => file.describe(),
    };
    misses.sort_by_key(|(_, miss)| std::cmp::Reverse(miss.likeness));
    let told = misses.iter().filter(|(_, miss)| miss.likeness > 0).count().clamp(1, TOLD);
    let nearest: Vec<String> = misses
        .iter()
        .take(told)
        .map(|(format, miss)| format!("{}: {}", format.name(), miss.reason))
        .collect();
    let others: Vec<&str> = misses.iter().skip(told).map(|(format, _)| format.name()).collect();
    let reason = format!(
        "this is not a known dataset: {what}. Nearest formats: {}. Other formats that were tried: {}",
        nearest.join("; "),
        others.join(", ")
    );
    Error::format(place.path(), reason)
}

//! Sets written in the formats of methods and tools, so that raw or refined images drop into their scripts.

mod files;
mod images;
mod names;
mod parquet;
mod refined;
mod safetensors;
mod torch;

pub use names::FileNames;
pub use refined::{export_raw, export_refined, refined_info};

use crate::options::named_enum;
use crate::paths::local;
use crate::source::{ClassList, SIDECAR, Sidecar};
use crate::wording::counted;
use crate::{
    CancelToken, Error, Label, LabelKind, Result, Sample, SourceInfo, StoredPixels, ValueSpace, Values,
};
use std::fs;
use std::path::{Path, PathBuf};

named_enum! {
    /// A format to write.
    #[non_exhaustive]
    ExportFormat, "to" {
        /// `res_DIVER.pt`, as DC, DSA and DM save their results: one experiment, normalised images, class indices.
        Dc = "dc",
        /// `images_best.pt` and `labels_best.pt`, as MTT and EDF save them: normalised images; class indices or logits; and
        /// `lr_best.pt` where a learning rate was learned with them.
        Mtt = "mtt",
        /// `<class>/class<class>_id<n>.png`, classes of five digits or more as RDED has them; `<wnid>/<n>.png` where classes
        /// are named by WordNet ids. Images keep their own names where these are in order ([`FileNames`]); numbers have as
        /// many digits as the largest. So every reader, which sorts names as text, lists a class in the set's order. Labels
        /// are class indices.
        ImageFolder = "image-folder",
        /// `data-<n>.tar` with `<key>.png` and `<key>.cls`, a thousand samples each. Keys are the images' own names where all
        /// of these differ and are in order, else numbers. Labels are class indices.
        WebDataset = "webdataset",
        /// `data-<n>.parquet`, as Hugging Face `datasets` writes images: `image` and `label`, and `soft_label` where
        /// the set has logits.
        Parquet = "parquet",
        /// `data.safetensors` with `images`, as they are stored, and `labels`.
        Safetensors = "safetensors",
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Exported {
    /// Number of samples.
    pub samples: usize,
    /// What the format does not hold, one sentence each.
    pub notes: Vec<String>,
}

/// Writes the samples of a set, in their order, to the new folder `folder`. The folder appears when all is written.
///
/// What the files of the format do not say lies in `norm.json` beside them, where
/// [`OpenOptions`](crate::OpenOptions) looks for it: the constants of their normalisation, what float values are, and
/// how many classes there are, with their names and the refiner's class for each. Safetensors and Parquet have the
/// classes in their own metadata.
///
/// ```
/// use diver_loaders::export::{ExportFormat, export};
/// use diver_loaders::{CancelToken, MemorySource, Source, open};
///
/// let set = MemorySource::unit(2, [3, 1, 1], vec![0.0, 0.5, 1.0, 1.0, 0.5, 0.0], vec![1, 0])?;
/// let folder = tempfile::tempdir()?.path().join("mtt");
/// let samples = (0..2).map(|index| set.sample(index));
/// export(set.info(), samples, ExportFormat::Mtt, &folder, &CancelToken::new())?;
/// assert_eq!(open(&folder)?.info().format.as_str(), "mtt");
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If `folder` exists and is not empty; if a sample cannot be read or a file not be written; if the format is of
/// pixels and the values are whitened; [`Error::Cancelled`].
pub fn export(
    info: &SourceInfo,
    samples: impl IntoIterator<Item = Result<Sample>>,
    format: ExportFormat,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<Exported> {
    export_named(info, &FileNames::numbers(), samples, format, folder, cancel)
}

/// As [`export`], of images that keep the `names` of their set where the format has files of images.
///
/// # Errors
/// As [`export`].
pub fn export_named(
    info: &SourceInfo,
    names: &FileNames,
    samples: impl IntoIterator<Item = Result<Sample>>,
    format: ExportFormat,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<Exported> {
    check_fits(info, format)?;
    let names = match format {
        ExportFormat::ImageFolder => names.clone(),
        ExportFormat::WebDataset => names.in_one_place(),
        _ => FileNames::numbers(),
    };
    let target = Target::new(folder)?;
    let mut notes: Vec<String> = names.note().map(str::to_owned).into_iter().collect();
    let mut writer = writer(info, names, format, target.path())?;
    let (mut written, mut has_floats) = (0, false);
    let (mut is_by_class, mut last_class) = (true, 0);
    for sample in samples {
        cancel.check()?;
        let sample = sample?;
        has_floats |= matches!(sample.pixels, StoredPixels::F32(_));
        is_by_class &= last_class <= sample.label.class();
        last_class = sample.label.class();
        writer.add(written, sample)?;
        written += 1;
    }
    writer.finish()?;
    if written != info.num_samples {
        let reason = format!("{} came, where there are {}", counted(written, "sample"), info.num_samples);
        return Err(Error::format(&info.path, reason));
    }
    sidecar(info, format, target.path()).write()?;
    target.commit()?;
    if format == ExportFormat::ImageFolder && !is_by_class {
        notes.push("class folders list images class by class, which is another order than the set's".into());
    }
    notes.extend(self::notes(info, format, has_floats));
    Ok(Exported { samples: written, notes })
}

/// Checks, before there are samples, that an export can be written.
///
/// # Errors
/// As [`export`] for what does not depend on the samples: nothing can be written to `folder`, or the format cannot hold
/// the set.
pub fn check(info: &SourceInfo, format: ExportFormat, folder: &Path) -> Result<()> {
    check_fits(info, format)?;
    Target::new(folder).map(drop)
}

/// # Errors
/// If the format cannot hold the set.
fn check_fits(info: &SourceInfo, format: ExportFormat) -> Result<()> {
    if is_of_pixels(format) {
        info.value_space.check_pixels()?;
    }
    if info.value_space == ValueSpace::Mixed {
        let reason =
            "its sets store their values in different spaces, and an export has one: export each set alone";
        return Err(Error::field(&info.path, "images", reason));
    }
    let bytes = ClassList::of(info).to_json().len();
    if bytes > ClassList::LONGEST {
        let reason = format!(
            "the list of {} takes {bytes} bytes, of which {} can be read again: shorten their names",
            counted(info.num_classes, "class"),
            ClassList::LONGEST
        );
        return Err(Error::format(&info.path, reason));
    }
    Ok(())
}

/// Takes samples one by one.
trait Writer {
    fn add(&mut self, index: usize, sample: Sample) -> Result<()>;
    fn finish(self: Box<Self>) -> Result<()>;
}

fn writer(
    info: &SourceInfo,
    names: FileNames,
    format: ExportFormat,
    folder: &Path,
) -> Result<Box<dyn Writer>> {
    Ok(match format {
        ExportFormat::Dc => Box::new(torch::Dc::new(info, folder)?),
        ExportFormat::Mtt => Box::new(torch::Mtt::new(info, folder)?),
        ExportFormat::ImageFolder => Box::new(images::Folder::new(info, names, folder)),
        ExportFormat::WebDataset => Box::new(images::WebDataset::new(info, names, folder)),
        ExportFormat::Parquet => Box::new(parquet::Parquet::new(info, folder)),
        ExportFormat::Safetensors => Box::new(safetensors::Safetensors::new(info, folder)?),
    })
}

/// Whether images leave as PNG files.
fn is_of_pixels(format: ExportFormat) -> bool {
    matches!(format, ExportFormat::ImageFolder | ExportFormat::WebDataset | ExportFormat::Parquet)
}

/// What lies beside the files of a format that do not say it.
fn sidecar(info: &SourceInfo, format: ExportFormat, folder: &Path) -> Sidecar {
    let values = match (format, info.value_space) {
        (ExportFormat::Dc | ExportFormat::Mtt, ValueSpace::Whitened) => Some(Values::Whitened),
        (ExportFormat::Dc | ExportFormat::Mtt, _) => Some(Values::Normalized),
        _ => None,
    };
    let classes = match format {
        ExportFormat::Parquet | ExportFormat::Safetensors => None,
        ExportFormat::ImageFolder => Some(images::class_list(info)),
        _ => Some(ClassList::of(info)),
    };
    Sidecar { file: folder.join(SIDECAR), normalize: info.normalize, values, classes }
}

fn notes(info: &SourceInfo, format: ExportFormat, has_floats: bool) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let has_logits = matches!(format, ExportFormat::Mtt | ExportFormat::Parquet | ExportFormat::Safetensors);
    if info.labels != LabelKind::Hard && !has_logits {
        notes.push(
            "the format holds no logits or probabilities: each label is the class of the largest one".into(),
        );
    }
    if has_floats && is_of_pixels(format) {
        notes.push(
            "the format holds pixels: values beyond their range are clamped, all are rounded to 8 bits"
                .into(),
        );
    }
    if info.shape[0] == 1 && is_of_pixels(format) {
        notes.push("the format holds colours: the one channel is written three times".into());
    }
    if format == ExportFormat::ImageFolder && !images::keeps_names(info) {
        notes.push("folders are named by the numbers of their classes, whose names are not kept".into());
    }
    if info.learning_rate.is_some() && format != ExportFormat::Mtt {
        notes.push("the format holds no learning rate: the learned one is not kept".into());
    }
    notes
}

/// A folder in the making, beside its place.
struct Target {
    making: tempfile::TempDir,
    folder: PathBuf,
}

impl Target {
    fn new(folder: &Path) -> Result<Self> {
        let folder = local("output", folder)?;
        let taken = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(folder, "cannot write to")(e)),
        };
        if taken {
            return Err(Error::format(folder, "is not empty: name a folder that is not there yet"));
        }
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io(parent, "cannot create"))?;
        let making = tempfile::Builder::new()
            .prefix(".export-")
            .tempdir_in(parent)
            .map_err(Error::io(parent, "cannot create a folder in"))?;
        Ok(Self { making, folder: folder.to_owned() })
    }

    fn path(&self) -> &Path {
        self.making.path()
    }

    fn commit(self) -> Result<()> {
        files::make_listable(self.making.path())?;
        // An empty folder is replaced, as a rename does on Unix.
        fs::rename(self.making.path(), &self.folder).map_err(Error::io(&self.folder, "cannot write to"))?;
        // Under its old name there is nothing left to remove.
        let _ = self.making.keep();
        Ok(())
    }
}

/// The labels of a set as the bytes of a tensor: `[N]` int64, or `[N, C]` float32 where they are soft.
struct LabelBytes {
    are_soft: bool,
    bytes: Vec<u8>,
}

impl LabelBytes {
    fn new(are_soft: bool) -> Self {
        Self { are_soft, bytes: Vec::new() }
    }

    fn add(&mut self, label: &Label) {
        match label.scores().filter(|_| self.are_soft) {
            Some(scores) => self.bytes.extend(scores.iter().flat_map(|score| score.to_le_bytes())),
            None => self.bytes.extend((label.class() as i64).to_le_bytes()),
        }
    }
}

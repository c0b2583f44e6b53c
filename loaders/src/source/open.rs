//! Recognises a dataset on disk.

use super::torch::{self, TorchFile};
use super::{Source, dc, folder, mtt, parquet};
use crate::{Error, Normalize, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens the dataset at `path`, whichever known format it has, with default [`OpenOptions`].
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
    OpenOptions::new().open(path)
}

/// The most classes that a caller can ask for: every batch of targets is as wide.
const MAX_CLASSES_GIVEN: usize = 1 << 20;

/// What the files of a dataset do not say.
///
/// ```no_run
/// use diver_loaders::source::OpenOptions;
///
/// let set = OpenOptions::new().dataset("cifar10").experiment(0).open("result/res_DM_10ipc.pt")?;
/// println!("{} samples of {} classes", set.info().samples, set.info().classes);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    pub(super) normalization: Option<Normalize>,
    pub(super) dataset: Option<String>,
    pub(super) experiment: Option<usize>,
    pub(super) classes: Option<usize>,
}

impl OpenOptions {
    /// Options that leave everything to the files.
    pub fn new() -> Self {
        Self::default()
    }

    /// The constants that stored values were normalised with, or that images are to be normalised with.
    /// Unless set, they come from a file `norm.json` beside the data (`{"mean": [r, g, b], "std": [r, g, b]}`, or a
    /// number each), the [`dataset`](Self::dataset), or a dataset's name in the path; failing these they are
    /// ImageNet's. What was guessed of stored values is in [`SourceInfo::notes`](super::SourceInfo::notes).
    pub fn normalization(mut self, normalize: Normalize) -> Self {
        self.normalization = Some(normalize);
        self
    }

    /// The dataset that was distilled, as in `cifar10`, for its normalisation.
    pub fn dataset(mut self, name: impl Into<String>) -> Self {
        self.dataset = Some(name.into());
        self
    }

    /// Which experiment of a DC, DSA or DM file, from 0; the last unless set.
    pub fn experiment(mut self, index: usize) -> Self {
        self.experiment = Some(index);
        self
    }

    /// The number of classes, where the set may lack some of the last; one more than its largest label unless
    /// set.
    pub fn classes(mut self, count: usize) -> Self {
        self.classes = Some(count);
        self
    }

    /// Opens the dataset at `path`:
    ///
    /// - `dc`: the torch file of DC, DSA or DM;
    /// - `mtt`: the run folder of MTT, GLaD, EDF or DATM, or one `images_<iteration>.pt` of it;
    /// - `image-folder`: a folder of class folders with PNG or JPEG images;
    /// - `parquet`: a Parquet file, or a folder of them, as Hugging Face `datasets` writes images.
    ///
    /// # Errors
    /// If nothing known is there, if it is damaged, or if it does not fit an option.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
        let path = path.as_ref();
        if let Some(count) = self.classes.filter(|count| !(1..=MAX_CLASSES_GIVEN).contains(count)) {
            let reason = format!("{count} is not a number from 1 to {MAX_CLASSES_GIVEN}");
            return Err(Error::config("classes", reason));
        }
        let kind = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        let source = if kind.is_dir() { self.open_folder(path) } else { self.open_file(path) }?;
        if self.experiment.is_some() && source.info().format != "dc" {
            let reason =
                format!("{} has no experiments: it is of format {}", path.display(), source.info().format);
            return Err(Error::config("experiment", reason));
        }
        Ok(source)
    }

    fn open_file(&self, path: &Path) -> Result<Box<dyn Source>> {
        let mut head = Vec::new();
        let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        file.by_ref().take(8).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
        if head.starts_with(b"PAR1") {
            return parquet::open(path, &[path.to_owned()], self);
        }
        if !torch::is_torch(&head) {
            return Err(Error::format(
                path,
                "not a known dataset: neither a file of torch.save (DC, DSA, DM, MTT, EDF, DATM; it would \
                 begin with a zip header or torch's magic number) nor Parquet (it would begin with PAR1)",
            ));
        }
        let file = TorchFile::open(path)?;
        let root = file.root();
        if root.get("data").is_some() {
            return Ok(Box::new(dc::open(file, self)?));
        }
        if root.as_tensor().is_some() {
            return Ok(Box::new(mtt::open(file, self)?));
        }
        Err(Error::format(
            path,
            format!(
                "not a known dataset: the torch file holds {}, neither a dict with `data` (DC, DSA, DM) nor \
                 a tensor (the images_<iteration>.pt of MTT, EDF, DATM)",
                root.kind()
            ),
        ))
    }

    fn open_folder(&self, path: &Path) -> Result<Box<dyn Source>> {
        if let Some(images) = mtt::find(path)? {
            return Ok(Box::new(mtt::open(TorchFile::open(&images)?, self)?));
        }
        let files = parquet::files(path)?;
        if !files.is_empty() {
            return parquet::open(path, &files, self);
        }
        if let Some(source) = folder::open(path, self)? {
            return Ok(source);
        }
        Err(Error::format(
            path,
            "not a known dataset: there is neither images_best.pt nor images_<iteration>.pt (MTT, EDF, DATM), \
             no *.parquet, and no class folder with PNG or JPEG images; DC, DSA and DM have a single file to open",
        ))
    }
}

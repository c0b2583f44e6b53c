//! Recognises a dataset on disk.

use super::adapters::{Joined, Unwhitened};
use super::containers::torch;
use super::containers::torch::Value;
use super::sidecar::Sidecar;
use super::{Source, arrow_ipc, dc, folder, idc, lone, mtt, nearest, parquet, plain, shards, webdataset};
use crate::{ClassMap, Error, Normalize, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Opens the dataset at `path`, whichever known format it has, with default [`OpenOptions`].
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
    OpenOptions::new().open(path)
}

/// Stands for the file of a set that is in none.
pub(super) const IN_MEMORY: &str = "<memory>";

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
    pub(super) num_classes: Option<usize>,
    pub(super) classes: ClassMap,
    pub(super) values: Option<Values>,
    pub(super) factor: Option<usize>,
    pub(super) canvas: Option<usize>,
    pub(super) zca: Option<PathBuf>,
}

/// What opens a set from files of its own.
pub(super) type OpenFiles = fn(&Path, &[PathBuf], &OpenOptions) -> Result<Box<dyn Source>>;

/// Formats whose sets may lie in several files of one folder, by the files' extension.
pub(super) const SHARDED: [(&str, OpenFiles); 4] = [
    ("parquet", parquet::open),
    ("arrow", arrow_ipc::open),
    ("feather", arrow_ipc::open),
    ("tar", webdataset::open),
];

/// What a method stored as an image's float values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Values {
    /// `(pixel - mean) / std`.
    Normalized,
    /// Pixels in [0, 1].
    Unit,
    /// Whitened by ZCA.
    Whitened,
}

impl Values {
    const ALL: [Self; 3] = [Self::Normalized, Self::Unit, Self::Whitened];

    /// Its name, as options and files have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normalized => "normalized",
            Self::Unit => "unit",
            Self::Whitened => "whitened",
        }
    }
}

impl FromStr for Values {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|values| values.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::config("values", format!("`{name}` is none of {names}"))
        })
    }
}

/// The first bytes of a file, as many as tell its format.
pub(super) fn head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    file.take(webdataset::HEAD as u64).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
    Ok(head)
}

impl OpenOptions {
    /// Options that leave everything to the files.
    pub fn new() -> Self {
        Self::default()
    }

    /// The constants that stored values were normalised with, or that images are to be normalised with.
    /// Unless set, they come from a file `norm.json` beside the data (`{"mean": [r, g, b], "std": [r, g, b]}`, or a
    /// number each), the [`dataset`](Self::dataset), or a dataset's name in the path; failing these they are
    /// ImageNet's. What was guessed is in [`SourceInfo::notes`](super::SourceInfo::notes).
    ///
    /// `norm.json` may also say what float values are, as [`values`](Self::values) does (`"values": "whitened"`), and
    /// list the classes (`"classes": {"count": n, "names": [..], "indices": [..]}`, the last two if there are any;
    /// indices are the refiner's classes). [`export`](crate::export::export) writes both.
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

    /// The number of classes, where the set may lack some of the last; unless set, that of [`classes`](Self::classes)
    /// if these are given, else what the files say, else one more than the largest label.
    pub fn num_classes(mut self, count: usize) -> Self {
        self.num_classes = Some(count);
        self
    }

    /// The classes of the set in the order of its labels, as classes of a refiner, as in
    /// [`ClassMap::named("imagewoof")`](ClassMap::named). Folders that are named by WordNet ids, or as classes of
    /// ImageNet are, are labelled by their place in this list; unless set, in the order of the names. Unless set, the
    /// list is what the files of an [`export`](crate::export::export) say.
    pub fn classes(mut self, classes: ClassMap) -> Self {
        self.classes = classes;
        self
    }

    /// What stored float values are; by default what a `norm.json` beside the data says, else what is usual for the
    /// format.
    pub fn values(mut self, values: Values) -> Self {
        self.values = Some(values);
        self
    }

    /// A file with the transform that whitened the stored values, which become pixels by its inverse: tensors
    /// `mean_vector` `[D]` and `transform_inv` `[D, D]` of kornia's `ZCAWhitening`, for images of `D` values, by these
    /// names (or `mean` and `inverse`) in a torch file's dict, an npz or a safetensors file. The values are taken for
    /// whitened then, unless [`values`](Self::values) says otherwise.
    pub fn zca(mut self, path: impl Into<PathBuf>) -> Self {
        self.zca = Some(path.into());
        self
    }

    /// How many images lie side by side along each side of a stored one (multi-formation), 1 for a single image. Unless
    /// set, 2 for the files of IDC and NCFM and 3 for IDC's of ImageNet, and 1 for all others.
    pub fn factor(mut self, factor: usize) -> Self {
        self.factor = Some(factor);
        self
    }

    /// How many images lie along each side of a stored one that is a texture canvas of MTT's, 1 for none. Samples are
    /// windows of canvases, which together show each pixel once. Unless set, images of the files of `mtt` are canvases
    /// where [`dataset`](Self::dataset) names one whose images are that much smaller.
    pub fn canvas(mut self, canvas: usize) -> Self {
        self.canvas = Some(canvas);
        self
    }

    /// The option that [`class_count`](Self::class_count) comes from.
    pub(crate) fn class_count_option(&self) -> &'static str {
        if self.num_classes.is_some() { "num_classes" } else { "classes" }
    }

    /// What the caller says that stored values are.
    pub(super) fn given_values(&self) -> Option<Values> {
        self.values.or(self.zca.as_ref().map(|_| Values::Whitened))
    }

    /// How many classes the caller says there are.
    pub(crate) fn class_count(&self) -> Option<usize> {
        self.num_classes.or_else(|| self.classes.as_indices().map(<[usize]>::len))
    }

    /// Opens the dataset at `path`:
    ///
    /// - `dc`: the torch file of DC, DSA or DM;
    /// - `mtt`: the run folder of MTT, GLaD, EDF or DATM, or one `images_<iteration>.pt` of it; DC-BENCH's
    ///   `<name>_images.pt`, or its folder with a set in parts, `images_best_0.pt` and so on; windows of MTT's texture
    ///   canvases;
    /// - `idc`: the run folder of IDC or NCFM, or its `data.pt` or `data_<iteration>.pt`, decoded; or the folder with
    ///   all phases of an ImageNet-100 run of IDC;
    /// - `kip`: the npz files of KIP that DC-BENCH has;
    /// - `tensors`: `images` and `labels` by name, in a torch, npz or safetensors file; or one after the other, as a
    ///   tuple in a torch file, or as a list in one that is not called as IDC's and NCFM's are;
    /// - `image-folder`: a folder of class folders with PNG or JPEG images;
    /// - `parquet`: a Parquet file, or a folder of them, as Hugging Face `datasets` writes images;
    /// - `arrow`: an Arrow or Feather file, or a folder of them, as `datasets` caches images or saves them to disk;
    /// - `webdataset`: a tar file, or a folder of them, with `<key>.png` or `.jpg` and `<key>.cls`, or `.json` with
    ///   `label`.
    ///
    /// Of `dc` and `tensors`, a folder with one such file, and no other set, opens as the file: `res_*.pt`,
    /// `data.safetensors`, or an npz.
    ///
    /// # Errors
    /// If nothing known is there, if it is damaged, or if it does not fit an option.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
        let path = path.as_ref();
        self.check()?;
        let kind = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        self.finish(if kind.is_dir() { self.open_folder(path) } else { self.open_file(path) }?)
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
    /// assert_eq!((set.info().samples, set.info().classes), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); messages call the file `<memory>`.
    pub fn open_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Source>> {
        self.check()?;
        self.finish(plain::open_bytes(Path::new(IN_MEMORY), bytes, self)?)
    }

    /// Refuses options that contradict one another.
    fn check(&self) -> Result<()> {
        if let Some(count) = self.num_classes {
            if !(1..=MAX_CLASSES_GIVEN).contains(&count) {
                let reason = format!("{count} is not a number from 1 to {MAX_CLASSES_GIVEN}");
                return Err(Error::config("num_classes", reason));
            }
            if let Some(listed) = self.classes.as_indices().filter(|listed| listed.len() != count) {
                let reason = format!("{count}, where `classes` lists {}", listed.len());
                return Err(Error::config("num_classes", reason));
            }
        }
        Ok(())
    }

    /// Refuses options that mean nothing to what was opened, and applies those that mean the same to all.
    fn finish(&self, source: Box<dyn Source>) -> Result<Box<dyn Source>> {
        let path = source.info().path.clone();
        if self.factor.is_some() && source.info().format != "idc" {
            let format = &source.info().format;
            let reason = format!("{} is of format {format}, where each image is one", path.display());
            return Err(Error::config("factor", reason));
        }
        if self.canvas.is_some() && source.info().format != "mtt" {
            let format = &source.info().format;
            let reason = format!("{} is of format {format}, which has no texture canvases", path.display());
            return Err(Error::config("canvas", reason));
        }
        if self.experiment.is_some() && source.info().format != "dc" {
            let reason =
                format!("{} has no experiments: it is of format {}", path.display(), source.info().format);
            return Err(Error::config("experiment", reason));
        }
        let source = self.listed(source)?;
        match &self.zca {
            Some(zca) => Ok(Box::new(Unwhitened::new(source, zca)?)),
            None => Ok(source),
        }
    }

    /// The source with the classes that its sidecar lists. Those of class folders are known to what opens them.
    fn listed(&self, source: Box<dyn Source>) -> Result<Box<dyn Source>> {
        match Sidecar::read(&source.info().path)? {
            Some(Sidecar { file, classes: Some(list), .. }) if source.info().format != "image-folder" => {
                list.apply(&file, source, self)
            }
            _ => Ok(source),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Box<dyn Source>> {
        let head = head(path)?;
        if head.starts_with(b"PAR1") {
            return parquet::open(path, &[path.to_owned()], self);
        }
        if !torch::is_torch(&head) {
            if webdataset::is_tar(&head) {
                return webdataset::open(path, &[path.to_owned()], self);
            }
            if plain::is_safetensors(&head) {
                return plain::open_safetensors(path, self);
            }
            if arrow_ipc::is_arrow(&head) {
                return arrow_ipc::open(path, &[path.to_owned()], self);
            }
            return Err(nearest::of_file(path, &head));
        }
        if plain::is_npz(path) {
            return plain::open_npz(path, self);
        }
        let (file, pickle) = torch::open(path)?;
        let root = pickle.root();
        if root.as_tensor().is_some() {
            return mtt::open(file, &pickle, self);
        }
        if let Some(pair) = plain::in_dict(path, root)? {
            return plain::open_pair(file, pair, "tensors", None, self);
        }
        if root.get("data").is_some() {
            return dc::open(file, &pickle, self);
        }
        if let Some(pair) = root.pair() {
            // Whoever gives a factor means theirs.
            let other = idc::other_writer(path, root).filter(|_| self.factor.is_none());
            let is_data = |value: &Value<'_>| value.as_tensor().is_some() || value.items().is_some();
            match (other, pair.map(Value::as_tensor)) {
                (None, [Some(images), Some(labels)]) => return idc::open(file, [images, labels], self),
                (Some(note), _) if pair.iter().all(is_data) => {
                    return plain::open_pair(file, plain::in_list(path, pair)?, "tensors", Some(note), self);
                }
                _ => {}
            }
        }
        Err(nearest::of_torch(path, root))
    }

    /// Opens the images of a run folder, which are a tensor and nothing else.
    fn open_run(&self, images: &Path) -> Result<Box<dyn Source>> {
        let (file, pickle) = torch::open(images)?;
        mtt::open(file, &pickle, self)
    }

    fn open_folder(&self, path: &Path) -> Result<Box<dyn Source>> {
        if let Some(images) = mtt::find(path)? {
            return self.open_run(&images);
        }
        let parts = mtt::parts(path)?;
        if !parts.is_empty() {
            let parts = parts.iter().map(|part| self.open_run(part)).collect::<Result<_>>()?;
            return Ok(Box::new(Joined::new(path, parts)?));
        }
        if let Some(data) = idc::find(path)? {
            return self.open_file(&data);
        }
        let phases = idc::phases(path)?;
        if !phases.is_empty() {
            let parts = phases.iter().map(|phase| self.open_file(phase)).collect::<Result<_>>()?;
            return Ok(Box::new(Joined::new(path, parts)?));
        }
        for (extension, open) in SHARDED {
            let files = shards::files(path, extension)?;
            if !files.is_empty() {
                return open(path, &files, self);
            }
        }
        if let Some(source) = folder::open(path, self)? {
            return Ok(source);
        }
        if let Some(file) = lone::find(path)? {
            return self.open_file(&file);
        }
        Err(nearest::of_folder(path)?)
    }
}

//! What a caller says of a dataset that its files do not say.

use super::columns::Columns;
use crate::options::{self, Channels, Classes, FilePath, Size, named_enum};
use crate::paths::local;
use crate::{ClassMap, Error, Normalize, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The most classes that a caller can ask for: every batch of targets is as wide.
const MAX_CLASSES_GIVEN: usize = 1 << 20;

named_enum! {
    /// What a method stored as an image's float values.
    Values, "values" {
        /// `(pixel - mean) / std`.
        Normalized = "normalized",
        /// Pixels in [0, 1].
        Unit = "unit",
        /// Whitened by ZCA.
        Whitened = "whitened",
    }
}

named_enum! {
    /// How an image is brought to another shape.
    Fit, "fit" {
        /// Both sides are scaled to the size, each by its own factor.
        Stretch = "stretch",
        /// The image is scaled by one factor until it covers the size, and its centre is cut out: torchvision's
        /// `Resize(size)` and `CenterCrop(size)`, with which networks are tested.
        Crop = "crop",
    }
}

/// What the files of a dataset do not say; an option that is not given is left to the files.
///
/// ```no_run
/// use diver_loaders::source::OpenOptions;
///
/// let set = OpenOptions::new().dataset("cifar10").experiment(0).open("result/res_DM_10ipc.pt")?;
/// println!("{} samples of {} classes", set.info().num_samples, set.info().num_classes);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct OpenOptions {
    /// The dataset that was distilled, as in cifar10, tinyimagenet or imagenet, for its normalisation constants
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", help_heading = "Dataset"))]
    pub(crate) dataset: Option<String>,

    /// Mean that stored values were normalised with, or that images are to be normalised with: one number, or one for
    /// each channel, in units of pixels in [0, 1]; goes together with the standard deviation
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "M[,M,M]", requires = "std", help_heading = "Dataset")
    )]
    pub(crate) mean: Option<Channels>,

    /// Standard deviation, likewise
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "S[,S,S]", requires = "mean", help_heading = "Dataset")
    )]
    pub(crate) std: Option<Channels>,

    /// Which experiment of a DC, DSA or DM file, from 0 [default: the last]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Dataset"))]
    pub(crate) experiment: Option<usize>,

    /// Number of classes, where the set may lack some of the last ones and its files do not say
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Dataset"))]
    #[schemars(range(min = 1, max = MAX_CLASSES_GIVEN))]
    pub(crate) num_classes: Option<usize>,

    /// The refiner's class for each label: the name of a subset of ImageNet (imagenette, imagefruit, ...), a file with a
    /// class on each line, indices, or `identity` if the labels are the refiner's classes [default: what an exported
    /// set says]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME|FILE|C,C,...", help_heading = "Dataset"))]
    pub(crate) classes: Option<Classes>,

    /// What stored floats are [default: what is usual for the format]
    #[cfg_attr(feature = "cli", arg(long, value_name = "SPACE", help_heading = "Dataset"))]
    pub(crate) values: Option<Values>,

    /// A file with the ZCA transform of stored values, which become pixels by its inverse: tensors `mean_vector` (or
    /// `mean`) and `transform_inv` (or `inverse`), as kornia's ZCAWhitening has them
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE", help_heading = "Dataset"))]
    pub(crate) zca: Option<FilePath>,

    /// How many images lie along each side of a stored one (multi-formation: IDC, NCFM); 1 for none
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Dataset"))]
    #[schemars(range(min = 1))]
    pub(crate) factor: Option<usize>,

    /// How many images lie along each side of a stored one that is a texture canvas (MTT with --texture); 1 for none
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Dataset"))]
    #[schemars(range(min = 1))]
    pub(crate) canvas: Option<usize>,

    /// The label of the first class, where labels do not count from 0 [default: 0]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Dataset"))]
    pub(crate) first_label: Option<usize>,

    /// The split to open where there are several, as in train or test
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", help_heading = "Dataset"))]
    pub(crate) split: Option<String>,

    /// The columns of a table, the arrays of a file or the suffixes of archive entries that are images and labels, where
    /// their names do not tell: image=NAME,label=NAME[,soft_label=NAME]
    #[cfg_attr(feature = "cli", arg(long, value_name = "image=NAME,label=NAME", help_heading = "Dataset"))]
    #[schemars(with = "Option<String>")]
    pub(crate) columns: Option<Columns>,

    /// Rows and columns that images of several sizes are brought to: a side, or height and width
    #[cfg_attr(feature = "cli", arg(long, value_name = "H[,W]", help_heading = "Dataset"))]
    pub(crate) image_size: Option<Size>,

    /// How images are brought to the image size: stretch (both sides by their own factor) or crop (the shorter side
    /// scaled, then the centre cut out) [default: stretch]
    #[cfg_attr(feature = "cli", arg(long, requires = "image_size", help_heading = "Dataset"))]
    pub(crate) fit: Option<Fit>,

    /// What [`classes`](Self::classes) lists, once it was read.
    #[serde(skip)]
    #[schemars(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub(crate) listed: Option<ClassMap>,
}

impl OpenOptions {
    /// Options that leave everything to the files.
    pub fn new() -> Self {
        Self::default()
    }

    /// The constants that stored values were normalised with, or that images are to be normalised with: sets both
    /// [`mean`](Self::mean) and [`std`](Self::std).
    /// Unless set, they come from a file `norm.json` beside the data (`{"mean": [r, g, b], "std": [r, g, b]}`, or a
    /// number each), the [`dataset`](Self::dataset), or a dataset's name in the path; failing these they are
    /// ImageNet's. What was guessed is in [`SourceInfo::notes`](super::SourceInfo::notes).
    ///
    /// `norm.json` may also say what float values are, as [`values`](Self::values) does (`"values": "whitened"`), and
    /// list the classes (`"classes": {"count": n, "names": [..], "indices": [..]}`, the last two if there are any;
    /// indices are the refiner's classes). [`export`](crate::export::export) writes both.
    pub fn normalization(self, normalize: Normalize) -> Self {
        self.mean(normalize.mean).std(normalize.std)
    }

    /// The mean of the [`normalization`](Self::normalization), a number or three.
    pub fn mean(mut self, mean: impl Into<Channels>) -> Self {
        self.mean = Some(mean.into());
        self
    }

    /// The standard deviation of the [`normalization`](Self::normalization), a number or three.
    pub fn std(mut self, std: impl Into<Channels>) -> Self {
        self.std = Some(std.into());
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
    pub fn classes(mut self, classes: impl Into<Classes>) -> Self {
        self.classes = Some(classes.into());
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
        self.zca = Some(path.into().into());
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

    /// The label of the first class; 0 unless set. Labels 1 to N are the classes 0 to N - 1 where it is 1.
    pub fn first_label(mut self, label: usize) -> Self {
        self.first_label = Some(label);
        self
    }

    /// The split to open where files or folders are of several, as in `train`.
    pub fn split(mut self, name: impl Into<String>) -> Self {
        self.split = Some(name.into());
        self
    }

    /// Which columns of a table, arrays of a file, or suffixes of archive entries are images and labels.
    pub fn columns(mut self, columns: Columns) -> Self {
        self.columns = Some(columns);
        self
    }

    /// The height and width that encoded images of several sizes are brought to, as [`fit`](Self::fit) says. Images of
    /// one size keep it unless they are cropped; a loader may resize them.
    pub fn image_size(mut self, height: usize, width: usize) -> Self {
        self.image_size = Some(Size { height, width });
        self
    }

    /// How images are brought to [`image_size`](Self::image_size); stretched unless set.
    pub fn fit(mut self, fit: Fit) -> Self {
        self.fit = Some(fit);
        self
    }

    /// The options that are given and mean nothing to some formats.
    pub(crate) fn given_for_formats(&self) -> Vec<&'static str> {
        let given = [
            ("experiment", self.experiment.is_some()),
            ("factor", self.factor.is_some()),
            ("canvas", self.canvas.is_some()),
            ("split", self.split.is_some()),
            ("columns", self.columns.is_some()),
            ("image_size", self.image_size.is_some()),
            ("fit", self.fit.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| option).collect()
    }

    /// The size that images of several sizes are brought to.
    pub(crate) fn size(&self) -> Option<([usize; 2], Fit)> {
        self.image_size.map(|size| (size.into(), self.fit.unwrap_or(Fit::Stretch)))
    }

    /// The options with the list of classes read, once they are known not to contradict one another. What opens a set
    /// begins with it.
    ///
    /// # Errors
    /// If an option lies outside its range or contradicts another, or the list cannot be read.
    pub(crate) fn checked(&self) -> Result<Self> {
        options::check(self)?;
        match (self.mean, self.std) {
            (Some(Channels(mean)), Some(Channels(std))) => drop(Normalize::new(mean, std)?),
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::config("std", "mean and std go together: give both, or neither"));
            }
            (None, Some(_)) => {
                return Err(Error::config("mean", "mean and std go together: give both, or neither"));
            }
        }
        if let Some(zca) = &self.zca {
            local("zca", zca.as_ref())?;
        }
        if self.fit.is_some() && self.image_size.is_none() {
            return Err(Error::config(
                "fit",
                "it says how images are brought to a size: pass `image_size`, too",
            ));
        }
        if let Some(Classes::List(name)) = &self.classes
            && let path = Path::new(name)
            && (path.extension().is_some_and(|end| end == "txt" || end == "json")
                || path.components().count() > 1)
            && !path.exists()
        {
            return Err(Error::config("classes", format!("there is no file {name}")));
        }
        let classes = self.classes.as_ref().map(Classes::resolve).transpose()?;
        if let (Some(count), Some(listed)) =
            (self.num_classes, classes.as_ref().and_then(ClassMap::as_indices))
            && listed.len() != count
        {
            let reason = format!("{count}, where `classes` lists {}", listed.len());
            return Err(Error::config("num_classes", reason));
        }
        Ok(Self { listed: classes, ..self.clone() })
    }

    /// The constants of mean and std, once they are [checked](Self::checked).
    pub(crate) fn given_normalization(&self) -> Option<Normalize> {
        let (Channels(mean), Channels(std)) = self.mean.zip(self.std)?;
        Some(Normalize { mean, std })
    }

    /// The refiner's classes, once they are [checked](Self::checked).
    pub(crate) fn class_map(&self) -> ClassMap {
        self.listed.clone().unwrap_or_default()
    }

    /// As [`class_map`](Self::class_map), where there is a list.
    pub(crate) fn class_indices(&self) -> Option<&[usize]> {
        self.listed.as_ref()?.as_indices()
    }

    /// Whether the caller says that labels are the refiner's classes.
    pub(crate) fn are_refiners_classes(&self) -> bool {
        self.listed.as_ref().is_some_and(|map| map.as_indices().is_none())
    }

    /// The same with so many classes, where the caller says nothing of their number.
    pub(crate) fn with_class_count(self, count: Option<usize>) -> Self {
        let num_classes = self.num_classes.or_else(|| count.filter(|_| self.class_count().is_none()));
        Self { num_classes, ..self }
    }

    /// The same with this list of classes.
    pub(crate) fn with_listed(self, map: ClassMap) -> Self {
        Self { listed: Some(map), ..self }
    }

    /// The option that [`class_count`](Self::class_count) comes from.
    pub(crate) fn class_count_option(&self) -> &'static str {
        if self.num_classes.is_some() { "num_classes" } else { "classes" }
    }

    /// How many classes the caller says there are.
    pub(crate) fn class_count(&self) -> Option<usize> {
        self.num_classes.or_else(|| self.class_indices().map(<[usize]>::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_setter() {
        let options = OpenOptions::new()
            .normalization(Normalize::IMAGENET)
            .dataset("cifar10")
            .experiment(1)
            .num_classes(1)
            .classes(Classes::Indices(vec![3]))
            .values(Values::Unit)
            .zca("transform.pt")
            .factor(2)
            .canvas(2)
            .first_label(1)
            .split("train")
            .columns("image=a,label=b".parse().unwrap())
            .image_size(8, 9)
            .fit(Fit::Crop);
        options::assert_every_one_is_set(&options);
        let options = options.checked().unwrap();
        assert_eq!(options.given_normalization(), Some(Normalize::IMAGENET));
        assert_eq!(options.class_indices(), Some(&[3][..]));
    }

    #[test]
    fn options_that_contradict_one_another_are_refused() {
        let fault = |options: OpenOptions| match options.checked() {
            Err(Error::Config { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(OpenOptions::new().mean(0.5)), "std");
        assert_eq!(fault(OpenOptions::new().std(0.5)), "mean");
        assert_eq!(
            fault(OpenOptions::new().num_classes(2).classes(Classes::Indices(vec![3]))),
            "num_classes"
        );
        assert_eq!(fault(OpenOptions::new().classes(Classes::List("imagefruits".into()))), "classes");
        let identity = OpenOptions::new().classes(ClassMap::identity()).checked().unwrap();
        assert_eq!(identity.class_map(), ClassMap::identity());
    }
}

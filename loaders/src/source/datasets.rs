//! The datasets that methods distil: the constants that their images are normalised with, their size, their classes, and
//! how paths name them.

use super::info::Format;
use crate::wording::unknown;
use crate::{ClassMap, Error, Normalize, Result};
use std::path::Path;

const CIFAR10: Normalize = rgb([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
/// As DC has them; MTT and its kin use CIFAR-10's for both.
const CIFAR100: Normalize = rgb([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]);

const DATASETS: [(&str, Normalize); 7] = [
    ("cifar10", CIFAR10),
    ("cifar100", CIFAR100),
    ("svhn", rgb([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970])),
    ("mnist", rgb([0.1307; 3], [0.3081; 3])),
    ("fashionmnist", rgb([0.2861; 3], [0.3530; 3])),
    ("tinyimagenet", Normalize::IMAGENET),
    ("tiny", Normalize::IMAGENET),
];

/// Names that are also ordinary words: they count as an option, but not as a part of a path.
const WORDS: [&str; 1] = ["tiny"];

/// Pixels along a side; ImageNet's images are distilled at several sizes.
const SIDES: [(&str, usize); 5] =
    [("cifar10", 32), ("cifar100", 32), ("svhn", 32), ("tinyimagenet", 64), ("tiny", 64)];

/// How the names of ImageNet's subsets begin (imagenette and imagenet-a among the first).
const IMAGENET: [&str; 6] =
    ["imagenet", "imagewoof", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"];

/// Subsets of which NCFM has another list than MTT.
const OF_NCFM: [&str; 2] = ["imagefruit", "imageyellow"];

const fn rgb(mean: [f32; 3], std: [f32; 3]) -> Normalize {
    Normalize { mean, std }
}

/// A dataset, by its name in lower case without punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dataset(String);

impl Dataset {
    /// The dataset that an option names.
    ///
    /// # Errors
    /// If it is unknown.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let dataset = Self(tokens(name).concat());
        // `imagenet-1k`, `imagenet100`
        let count = dataset.0.strip_prefix("imagenet").map(|rest| rest.strip_suffix('k').unwrap_or(rest));
        let is_counted = count.is_some_and(|count| count.bytes().all(|byte| byte.is_ascii_digit()));
        let is_listed =
            DATASETS.iter().any(|(known, _)| *known == dataset.0) || ClassMap::named(name).is_ok();
        if is_counted || is_listed {
            return Ok(dataset);
        }
        let names: Vec<&str> =
            DATASETS.iter().map(|(name, _)| *name).chain(IMAGENET).chain(ClassMap::lists()).collect();
        Err(Error::config("dataset", unknown(name, &names)))
    }

    /// The dataset that the nearest part of a path names, as a word or as adjacent words (`cifar-10`).
    pub(crate) fn in_path(path: &Path) -> Option<Self> {
        parts(path).iter().find_map(|part| {
            let words = tokens(part);
            (1..=2).rev().find_map(|width| {
                let mut named = words.windows(width).map(|window| Self(window.concat()));
                named.find(|dataset| dataset.is_known() && !WORDS.contains(&dataset.0.as_str()))
            })
        })
    }

    fn is_known(&self) -> bool {
        self.constants(Format::Tensors).is_some()
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The constants that a format's methods normalise its images with.
    pub(crate) fn constants(&self, format: Format) -> Option<Normalize> {
        if matches!(format, Format::Mtt | Format::Idc) && self.0 == "cifar100" {
            return Some(CIFAR10);
        }
        if IMAGENET.iter().any(|subset| self.0.starts_with(subset)) {
            return Some(Normalize::IMAGENET);
        }
        DATASETS.iter().find(|(name, _)| *name == self.0).map(|(_, normalize)| *normalize)
    }

    /// The side of its images, if all have it.
    pub(crate) fn side(&self) -> Option<usize> {
        SIDES.iter().find(|(name, _)| *name == self.0).map(|(_, side)| *side)
    }

    /// The classes of a subset of ImageNet in the order of a format's methods, with the name of their list.
    pub(crate) fn classes(&self, format: Format) -> Option<(String, ClassMap)> {
        let of_ncfm = format == Format::Idc && OF_NCFM.contains(&self.0.as_str());
        let list = if of_ncfm { format!("{}-ncfm", self.0) } else { self.0.clone() };
        let classes = ClassMap::named(&list).ok()?;
        Some((list, classes))
    }
}

/// Whether a path says that what lies there is whitened: `zca`, as a word that is not denied.
pub(crate) fn names_zca(path: &Path) -> bool {
    const DENIED_BEFORE: [&str; 3] = ["no", "non", "without"];
    const DENIED_AFTER: [&str; 4] = ["false", "0", "no", "off"];
    parts(path).iter().any(|part| {
        let words = tokens(part);
        words.iter().enumerate().any(|(at, word)| {
            let before = at.checked_sub(1).and_then(|before| words.get(before)).map(String::as_str);
            let after = words.get(at + 1).map(String::as_str);
            word == "zca"
                && !before.is_some_and(|before| DENIED_BEFORE.contains(&before))
                && !after.is_some_and(|after| DENIED_AFTER.contains(&after))
        })
    })
}

/// The names along a path, the last first.
fn parts(path: &Path) -> Vec<String> {
    // A relative path hides the folders above it.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.ancestors().filter_map(|part| Some(part.file_name()?.to_str()?.to_owned())).collect()
}

fn tokens(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_found_in_paths() {
        for (path, name, expected) in [
            ("results/res_DM_CIFAR10_ConvNet_1ipc.pt", "cifar10", CIFAR10),
            ("res_DC_CIFAR100_ConvNet_10ipc.pt", "cifar100", CIFAR100),
            ("mnist/res_DSA_FashionMNIST_ConvNet_1ipc.pt", "fashionmnist", rgb([0.2861; 3], [0.3530; 3])),
            ("logged_files/cifar-10/run/a.pt", "cifar10", CIFAR10),
            ("logged_files/tiny-imagenet/run/a.pt", "tinyimagenet", Normalize::IMAGENET),
            ("out/ImageNette_10/a.pt", "imagenette10", Normalize::IMAGENET),
        ] {
            let found = Dataset::in_path(Path::new(path)).unwrap();
            assert_eq!((found.name(), found.constants(Format::Dc)), (name, Some(expected)), "{path}");
        }
        let of_mtt = Dataset::in_path(Path::new("logged_files/CIFAR100/run/images_best.pt")).unwrap();
        assert_eq!(of_mtt.constants(Format::Mtt), Some(CIFAR10));
        for path in ["my/data.pt", "tiny-tests/run/images_best.pt", "tiny/data.pt"] {
            assert_eq!(Dataset::in_path(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn unknown_datasets_are_refused_with_the_nearest() {
        for (name, near) in [("cifar-ten", "cifar10"), ("imagefruits", "imagefruit"), ("minst", "mnist")] {
            let error = Dataset::named(name).unwrap_err().to_string();
            assert!(
                error.starts_with("dataset: ") && error.contains(name) && error.contains(near),
                "{error}"
            );
        }
    }

    #[test]
    fn subsets_of_imagenet_have_classes_in_the_order_of_their_methods() {
        let list = |name: &str, format| Dataset::named(name).unwrap().classes(format).map(|(list, _)| list);
        assert_eq!(list("ImageFruit", Format::Mtt), Some("imagefruit".into()));
        assert_eq!(list("ImageFruit", Format::Idc), Some("imagefruit-ncfm".into()));
        assert_eq!(list("imagewoof", Format::Idc), Some("imagewoof".into()));
        assert_eq!(list("cifar10", Format::Mtt), None);
    }

    #[test]
    fn whitening_is_found_in_paths() {
        for path in ["runs/cifar10_zca/images_best.pt", "ZCA/x.pt", "a/b-zca-true/c.pt"] {
            assert!(names_zca(Path::new(path)), "{path}");
        }
        for path in ["runs/no_zca/x.pt", "zca_false/x.pt", "pizzca/x.pt", "zca=0/x.pt", "nozca/x.pt"] {
            assert!(!names_zca(Path::new(path)), "{path}");
        }
    }
}

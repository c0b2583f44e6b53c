//! The space of stored values, and the constants that they were normalised with: no format writes them down.

use super::sidecar::{self, Sidecar};
use super::{OpenOptions, ValueSpace, Values};
use crate::{Error, Normalize, Result};
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

/// Names that are words as well: for whoever means the dataset, not for folders.
const WORDS: [&str; 1] = ["tiny"];

/// Pixels along a side; ImageNet's images are distilled at several sizes.
const SIDES: [(&str, usize); 5] =
    [("cifar10", 32), ("cifar100", 32), ("svhn", 32), ("tinyimagenet", 64), ("tiny", 64)];

/// How the names of ImageNet's subsets begin (imagenette and imagenet-a among the first).
const IMAGENET: [&str; 6] =
    ["imagenet", "imagewoof", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"];

const fn rgb(mean: [f32; 3], std: [f32; 3]) -> Normalize {
    Normalize { mean, std }
}

/// A dataset's constants, by its name in lower case without punctuation.
fn constants(dataset: &str, format: &str) -> Option<Normalize> {
    if matches!(format, "mtt" | "idc") && dataset == "cifar100" {
        return Some(CIFAR10);
    }
    if IMAGENET.iter().any(|subset| dataset.starts_with(subset)) {
        return Some(Normalize::IMAGENET);
    }
    DATASETS.iter().find(|(name, _)| *name == dataset).map(|(_, normalize)| *normalize)
}

/// What a set's stored values are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Space {
    pub(super) values: ValueSpace,
    /// What batches are normalised with.
    pub(super) normalize: Normalize,
    /// What was assumed of both.
    pub(super) notes: Vec<String>,
}

/// What the caller or the sidecar says that the float values at `path` are. A transform to pixels makes them whitened
/// where nothing else is said.
///
/// # Errors
/// If the sidecar is not what it must be.
pub(super) fn told(path: &Path, options: &OpenOptions) -> Result<Option<Values>> {
    let beside = || Ok::<_, Error>(Sidecar::read(path)?.and_then(|sidecar| sidecar.values));
    Ok(options.values.map_or_else(beside, |values| Ok(Some(values)))?.or(options.given_values()))
}

/// The space of the float values at `path`: what they are [`told`] to be, else `usual` for `format`.
///
/// # Errors
/// As [`find`].
pub(super) fn space(path: &Path, format: &str, usual: Values, options: &OpenOptions) -> Result<Space> {
    Ok(match told(path, options)?.unwrap_or(usual) {
        Values::Normalized => {
            let (normalize, notes) = stored(path, format, options)?;
            Space { values: ValueSpace::Normalized(normalize), normalize, notes }
        }
        Values::Unit => pixels(path, format, options)?,
        Values::Whitened => {
            let pixels = pixels(path, format, options)?;
            // Whitened values are left as they are; those that become pixels again are not.
            let notes = if options.zca.is_some() { pixels.notes } else { Vec::new() };
            Space { values: ValueSpace::Whitened, notes, ..pixels }
        }
    })
}

/// The space of pixels, with the constants to normalise them with, and what was assumed about these.
///
/// # Errors
/// As [`find`].
pub(super) fn pixels(path: &Path, format: &str, options: &OpenOptions) -> Result<Space> {
    let how = "give mean and std if others are wanted";
    let (normalize, notes) = match find(path, format, options)? {
        Found::Given(normalize) => (normalize, Vec::new()),
        Found::Guessed(normalize, name) => {
            let note = format!(
                "pixels are normalised for batches with the constants of {name}, named in the path; {how}"
            );
            (normalize, vec![note])
        }
        Found::Nothing => {
            let note = format!(
                "pixels are normalised for batches with ImageNet's constants, as no option, {} or dataset in the path \
                 names any; {how}",
                sidecar::NAME
            );
            (Normalize::IMAGENET, vec![note])
        }
    };
    Ok(Space { values: ValueSpace::Unit, normalize, notes })
}

/// The constants of values stored normalised, and what was assumed about them.
///
/// # Errors
/// As [`find`].
fn stored(path: &Path, format: &str, options: &OpenOptions) -> Result<(Normalize, Vec<String>)> {
    let how = "give mean and std if they are others";
    Ok(match find(path, format, options)? {
        Found::Given(normalize) => (normalize, Vec::new()),
        Found::Guessed(normalize, name) => (
            normalize,
            vec![format!(
                "the values are taken to be normalised with the constants of {name}, named in the path; {how}"
            )],
        ),
        Found::Nothing => (
            Normalize::IMAGENET,
            vec![format!(
                "the values are taken to be normalised with ImageNet's constants, as no option, {} or \
                 dataset in the path names any; {how}",
                sidecar::NAME
            )],
        ),
    })
}

enum Found {
    Given(Normalize),
    /// With the dataset's name as the path has it.
    Guessed(Normalize, String),
    Nothing,
}

/// Looks, in this order, at the option, the sidecar, the dataset option and the names in the path.
///
/// # Errors
/// If the sidecar is not what it must be, or the dataset option is unknown.
fn find(path: &Path, format: &str, options: &OpenOptions) -> Result<Found> {
    if let Some(normalize) = options.normalization {
        return Ok(Found::Given(normalize));
    }
    if let Some(sidecar) = Sidecar::read(path)? {
        return Ok(Found::Given(sidecar.normalize));
    }
    if let Some(dataset) = &options.dataset {
        let known = constants(&tokens(dataset).concat(), format);
        return known.map(Found::Given).ok_or_else(|| {
            let names: Vec<&str> = DATASETS.iter().map(|(name, _)| *name).chain(IMAGENET).collect();
            Error::config("dataset", format!("`{dataset}` is unknown; known are {}", names.join(", ")))
        });
    }
    Ok(in_path(path, format).map_or(Found::Nothing, |(normalize, name)| Found::Guessed(normalize, name)))
}

/// The side of a dataset's images, if all of them have it, and the dataset: that of the option, else the one that the
/// path names.
pub(super) fn native_side(path: &Path, format: &str, options: &OpenOptions) -> Option<(usize, String)> {
    let named = options.dataset.as_ref().map(|dataset| tokens(dataset).concat());
    let dataset = named.or_else(|| Some(in_path(path, format)?.1))?;
    let (_, side) = SIDES.iter().find(|(name, _)| *name == dataset)?;
    Some((*side, dataset))
}

/// The dataset that the path names.
fn in_path(path: &Path, format: &str) -> Option<(Normalize, String)> {
    // A relative path hides the folders above it.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.ancestors().filter_map(|part| part.file_name()?.to_str()).find_map(|part| in_name(part, format))
}

fn tokens(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

/// The dataset that a file or folder name mentions, as a word or as adjacent words (`cifar-10`).
fn in_name(name: &str, format: &str) -> Option<(Normalize, String)> {
    let words = tokens(name);
    (1..=2).rev().find_map(|width| {
        words.windows(width).find_map(|window| {
            let dataset = window.concat();
            let is_word = WORDS.contains(&dataset.as_str());
            Some((constants(&dataset, format).filter(|_| !is_word)?, dataset))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::sidecar::NAME as SIDECAR;
    use super::*;

    fn guess(path: &str, format: &str) -> Option<(Normalize, String)> {
        match find(Path::new(path), format, &OpenOptions::new()).unwrap() {
            Found::Guessed(normalize, name) => Some((normalize, name)),
            _ => None,
        }
    }

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
            assert_eq!(guess(path, "dc"), Some((expected, name.into())), "{path}");
        }
        assert_eq!(guess("logged_files/CIFAR100/run/images_best.pt", "mtt").unwrap().0, CIFAR10);
        for path in ["my/data.pt", "tiny-tests/run/images_best.pt", "tiny/data.pt"] {
            assert_eq!(guess(path, "dc"), None, "{path}");
        }
    }

    #[test]
    fn sources_of_constants_come_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("res_DM_SVHN.pt");
        let own = Normalize::new([0.1; 3], [0.2; 3]).unwrap();
        let mut options = OpenOptions::new().dataset("Fashion-MNIST");
        assert_eq!(stored(&path, "dc", &options).unwrap(), (rgb([0.2861; 3], [0.3530; 3]), vec![]));
        std::fs::write(folder.path().join(SIDECAR), r#"{"mean": 0.5, "std": [0.25, 0.5, 1]}"#).unwrap();
        assert_eq!(stored(&path, "dc", &options).unwrap(), (rgb([0.5; 3], [0.25, 0.5, 1.0]), vec![]));
        options = options.normalization(own);
        assert_eq!(stored(&path, "dc", &options).unwrap(), (own, vec![]));
    }

    #[test]
    fn what_pixels_are_normalised_with_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mean, expected) in [
            ("plain", 0.485, "with ImageNet's constants, as no option"),
            ("cifar10/x", 0.4914, "of cifar10, named"),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let space = |options: &OpenOptions| pixels(&path, "image-folder", options).unwrap();
            let guessed = space(&OpenOptions::new());
            assert_eq!((guessed.normalize.mean[0], guessed.notes.len()), (mean, 1));
            assert!(guessed.notes[0].contains(expected), "{:?}", guessed.notes);
            assert_eq!(space(&OpenOptions::new().dataset("imagenet")).notes, [""; 0]);
            // Whitened values stay as they are, unless there is a way back.
            let whitened =
                |options| super::space(&path, "mtt", Values::Whitened, &options).unwrap().notes.len();
            assert_eq!((whitened(OpenOptions::new()), whitened(OpenOptions::new().zca("x"))), (0, 1));
        }
    }

    #[test]
    fn bad_sidecars_and_options_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions::new();
        const BYTES: &str = r#"{"mean": [123, 116, 103], "std": 57}"#;
        for text in
            [r#"{"mean": 0.5}"#, r#"{"mean": 0.5, "std": 0}"#, "[]", r#"{"mean": 0.5, "std": [1, 2]}"#, BYTES]
        {
            std::fs::write(folder.path().join(SIDECAR), text).unwrap();
            let error = stored(folder.path(), "dc", &options).unwrap_err().to_string();
            assert!(error.contains(SIDECAR), "{error}");
        }
        let error = Normalize::new([123.0, 116.0, 103.0], [58.0, 57.0, 57.0]).unwrap_err().to_string();
        assert!(error.contains("[123.0, 116.0, 103.0]") && error.contains("divide both by 255"), "{error}");
        let error =
            stored(Path::new("x.pt"), "dc", &OpenOptions::new().dataset("cifar")).unwrap_err().to_string();
        assert!(error.starts_with("dataset: `cifar` is unknown; known are cifar10"), "{error}");
    }
}

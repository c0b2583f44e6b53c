//! Which files of samples are the images.

use super::samples::{Sample, Samples, listed};
use crate::source::OpenOptions;
use crate::source::containers::picture::{HEAD, Kind};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// What images are called where a sample has several: `0.png`, else `0.image.png` and so on.
const USUAL: [&str; 6] = ["", "image", "img", "images", "input", "x"];

/// How many suffixes are looked into, where none is that of an image.
const LOOKED_INTO: usize = 32;

/// The suffixes of images.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) suffixes: Vec<usize>,
    pub(super) note: Option<String>,
}

/// Why there are none.
#[derive(Debug)]
pub(super) enum NoImages {
    /// No file is an image.
    None,
    /// The error for images of several kinds, as `.left.png` and `.right.png`.
    Several(Error),
}

impl Images {
    /// # Errors
    /// If none is found, or it is not clear which they are.
    pub(super) fn of(
        path: &Path,
        samples: &Samples,
        options: &OpenOptions,
    ) -> Result<Result<Self, NoImages>> {
        let mut stems: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, suffix) in samples.suffixes.iter().enumerate() {
            if let Some((stem, _)) = stem(suffix) {
                stems.entry(stem).or_default().push(place);
            }
        }
        let found = |suffixes| Ok(Ok(Self { suffixes, note: None }));
        if let Some(name) = options.columns.as_ref().and_then(|columns| columns.image.as_ref()) {
            let name = name.trim_start_matches('.').to_lowercase();
            return match samples.suffixes.iter().position(|suffix| *suffix == name) {
                Some(suffix) => found(vec![suffix]),
                None if stems.contains_key(&name) => found(stems.remove(&name).unwrap_or_default()),
                None => Err(samples.no_such(path, &name)),
            };
        }
        if stems.is_empty() {
            return by_content(samples).map(|found| found.ok_or(NoImages::None));
        }
        if let Some(usual) = USUAL.iter().find_map(|usual| stems.remove(*usual)) {
            // What cannot be read lies beside what can.
            let (readable, others): (Vec<usize>, Vec<usize>) = usual.into_iter().partition(|place| {
                stem(&samples.suffixes[*place]).is_some_and(|(_, kind)| kind.is_readable())
            });
            return found(if readable.is_empty() { others } else { readable });
        }
        if stems.len() == 1 {
            return found(stems.into_values().flatten().collect());
        }
        let names: Vec<String> =
            stems.values().flatten().map(|place| samples.suffixes[*place].clone()).collect();
        let reason = format!(
            "samples have several images ({}): say which to read, as in columns=\"image={}\"",
            listed(names.iter().map(|name| format!(".{name}"))),
            names.first().map(String::as_str).unwrap_or_default()
        );
        Ok(Err(NoImages::Several(Error::format(path, reason))))
    }

    /// The image of a sample, by its place in the archive; none if it has none.
    ///
    /// # Errors
    /// If it has several.
    pub(super) fn of_sample(&self, samples: &Samples, sample: &Sample) -> Result<Option<usize>> {
        let mut images = sample.files.iter().filter(|file| self.suffixes.contains(&file.suffix));
        let Some(first) = images.next() else { return Ok(None) };
        let Some(second) = images.next() else { return Ok(Some(first.file)) };
        let [first, second] = [first, second].map(|file| &samples.suffixes[file.suffix]);
        let reason = format!(
            "the sample has two images, .{first} and .{second}: say which to read, as in columns=\"image={first}\""
        );
        Err(samples.refused(sample, reason))
    }
}

/// Whether a file of this suffix is an image by its name.
pub(super) fn is_image(suffix: &str) -> bool {
    stem(suffix).is_some()
}

/// What is left of the suffix of an image without the extension, and the kind of image: `image` of `image.png`, nothing of
/// `png`. Some write the extension first, as in `jpeg.image`.
fn stem(suffix: &str) -> Option<(String, Kind)> {
    let (start, end) = suffix.rsplit_once('.').unwrap_or(("", suffix));
    if let Some(kind) = Kind::of_extension(end) {
        return Some((start.to_owned(), kind));
    }
    let kind = Kind::of_extension(start)?;
    USUAL.contains(&end).then(|| (end.to_owned(), kind))
}

/// The suffix whose first file is an image, where none is by its name.
fn by_content(samples: &Samples) -> Result<Option<Images>> {
    let mut suffixes = Vec::new();
    for (suffix, first) in samples.firsts(|_| true).into_iter().enumerate().take(LOOKED_INTO) {
        let Some((sample, file)) = first else { continue };
        let head = samples.archive(sample).head(file, HEAD as u64)?;
        if Kind::of(&head).is_some() {
            suffixes.push(suffix);
        }
    }
    Ok((!suffixes.is_empty()).then(|| {
        let names = listed(suffixes.iter().map(|suffix| format!(".{}", samples.suffixes[*suffix])));
        Images { suffixes, note: Some(format!("the entries {names} are images by their content")) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_suffix() {
        for (suffix, expected) in [
            ("png", Some("")),
            ("jpeg", Some("")),
            ("image.png", Some("image")),
            ("jpeg.image", Some("image")),
            ("left.seg.tif", Some("left.seg")),
            ("cls", None),
            ("png.txt", None),
            ("", None),
        ] {
            assert_eq!(stem(suffix).map(|(stem, _)| stem).as_deref(), expected, "{suffix}");
        }
    }
}

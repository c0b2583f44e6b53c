//! From a dataset's labels to what its refiner is conditioned on.

pub mod imagenet;
mod lists;

use crate::{Conditioning, Error, Result};
use serde::Serialize;
use std::path::Path;

/// The longest file of a class list that is read, in bytes; ImageNet-21K's takes 220 kB.
const LONGEST_FILE: u64 = 1 << 22;

/// The conditioning of each class of a dataset: position `label` holds the index in the refiner's class table.
///
/// ```
/// use diver_loaders::{ClassMap, Conditioning};
///
/// let imagefruit = ClassMap::named("imagefruit")?;
/// assert_eq!(imagefruit.conditioning(0)?, Conditioning::Class(953));
/// assert_eq!(ClassMap::indices(vec![7, 3])?.conditioning(1)?, Conditioning::Class(3));
/// assert_eq!(ClassMap::identity().conditioning(7)?, Conditioning::Class(7));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassMap(Option<Vec<usize>>);

impl Default for ClassMap {
    fn default() -> Self {
        Self::identity()
    }
}

impl ClassMap {
    /// Labels are the refiner's classes already.
    pub fn identity() -> Self {
        Self(None)
    }

    /// Label `i` is the refiner's class `indices[i]`.
    ///
    /// # Errors
    /// If the list is empty.
    pub fn indices(indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::config("classes", "the list is empty: one index for each class is expected"));
        }
        Ok(Self(Some(indices)))
    }

    /// The list of a subset of ImageNet-1K that methods distil, as in `imagenette`, `imagefruit-ncfm` or
    /// `imagenet-idc-100` ([`ClassMap::names`] has all), or `imagenet` for the whole of it.
    ///
    /// # Errors
    /// If there is no such list.
    pub fn named(name: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case("imagenet") {
            return Ok(Self(Some((0..imagenet::CLASSES).collect())));
        }
        match lists::find(name) {
            Some((_, indices)) => Ok(Self(Some(indices.to_vec()))),
            None => {
                let names: Vec<&str> = Self::names().collect();
                Err(Error::config(
                    "classes",
                    format!("there is no list `{name}`: there are {}", names.join(", ")),
                ))
            }
        }
    }

    /// The names that [`ClassMap::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once("imagenet").chain(lists::names())
    }

    /// Reads a list: on each line the class of the next label, as an index in the refiner's class table, as the
    /// WordNet id of a class of ImageNet-1K (what follows it on the line is not read), or as such a class's name.
    /// Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is none of these or could be two classes; names the line.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let length = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?.len();
        if length > LONGEST_FILE {
            let reason = format!("{length} bytes: a class list, a line for each class, is expected");
            return Err(Error::format(path, reason));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "cannot read"))?;
        let mut indices = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let index = class(line)
                    .map_err(|reason| Error::field(path, format!("line {}", number + 1), reason))?;
                indices.push(index);
            }
        }
        if indices.is_empty() {
            return Err(Error::format(path, "no classes: a line for each is expected"));
        }
        Ok(Self(Some(indices)))
    }

    /// The list of this name, or in this file.
    ///
    /// # Errors
    /// If it is neither, or the file is no class list.
    pub fn find(name_or_file: &str) -> Result<Self> {
        Self::named(name_or_file).or_else(|unknown| {
            let path = Path::new(name_or_file);
            if path.is_file() { Self::from_file(path) } else { Err(unknown) }
        })
    }

    /// The refiner's class for each label; `None` if they are the same.
    pub fn as_indices(&self) -> Option<&[usize]> {
        self.0.as_deref()
    }

    /// The conditioning of `label`.
    ///
    /// # Errors
    /// If the map has no such label.
    pub fn conditioning(&self, label: usize) -> Result<Conditioning> {
        match &self.0 {
            None => Ok(Conditioning::Class(label)),
            Some(indices) => indices.get(label).copied().map(Conditioning::Class).ok_or_else(|| {
                let reason = format!("label {label} is beyond the list, which has {} entries", indices.len());
                Error::config("classes", reason)
            }),
        }
    }
}

/// The class that a line of a list names.
fn class(line: &str) -> Result<usize, String> {
    if line.bytes().all(|b| b.is_ascii_digit()) {
        return line.parse().map_err(|_| format!("`{line}` is too large for a class index"));
    }
    let first = line.split([' ', '\t', ',']).next().unwrap_or(line);
    if imagenet::is_wnid(first) {
        return imagenet::index(first).ok_or_else(|| format!("`{first}` is no class of ImageNet-1K"));
    }
    match imagenet::named(line)[..] {
        [index] => Ok(index),
        [] => {
            let line: String = line.chars().take(80).collect();
            Err(format!("`{line}` is no class: an index, a WordNet id of ImageNet-1K or a name is expected"))
        }
        [first, second, ..] => {
            Err(format!("`{line}` is the name of classes {first} and {second}: write which"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Result<ClassMap> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        ClassMap::find(file.path().to_str().unwrap())
    }

    #[test]
    fn files_name_classes_in_three_ways() {
        let list =
            from_text("# three\nn02102040\n\n 7 \r\nn01440764 tench, Tinca tinca\nToilet_tissue\n").unwrap();
        assert_eq!(list.as_indices(), Some(&[217, 7, 0, 999][..]));
        // A backbone of other classes than ImageNet's has other indices.
        assert_eq!(from_text("20000").unwrap().as_indices(), Some(&[20000][..]));
    }

    #[test]
    fn bad_lists_are_refused_with_their_line() {
        for (text, expected) in [
            ("1\ncrane\n", "`line 2`: `crane` is the name of classes 134 and 517"),
            ("n99999999", "`line 1`: `n99999999` is no class of ImageNet-1K"),
            ("-1", "`line 1`: `-1` is no class"),
            ("99999999999999999999999", "too large"),
            ("# nothing\n", "no classes"),
        ] {
            let error = from_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = ClassMap::find("imagefruits-2").unwrap_err().to_string();
        assert!(
            error.starts_with("classes: there is no list `imagefruits-2`: there are imagenet, imagenette")
        );
        assert!(ClassMap::indices(vec![]).is_err());
    }

    #[test]
    fn names_are_found() {
        assert_eq!(ClassMap::named("ImageNet").unwrap().conditioning(999).unwrap(), Conditioning::Class(999));
        for name in ClassMap::names() {
            assert!(ClassMap::named(name).is_ok(), "{name}");
        }
        let woof = ClassMap::named("imagewoof").unwrap();
        assert_eq!(woof.conditioning(9).unwrap(), Conditioning::Class(229));
        assert!(woof.conditioning(10).is_err());
    }
}

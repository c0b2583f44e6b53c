//! From a dataset's labels to what its refiner is conditioned on.

pub mod imagenet;
mod lists;

use crate::paths::local;
use crate::wording::{nearest, unknown};
use crate::{Conditioning, Error, Result, text};
use serde::{Serialize, Serializer};
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
///
/// Two maps are equal if they map labels alike, and as JSON a map is its list of indices, or null for the same.
#[derive(Clone, Debug, Default)]
pub struct ClassMap {
    /// `None` if labels are the refiner's classes.
    indices: Option<Vec<usize>>,
    /// Whether the indices are known to be those of ImageNet-1K, and so have names.
    is_imagenet: bool,
}

impl PartialEq for ClassMap {
    fn eq(&self, other: &Self) -> bool {
        self.indices == other.indices
    }
}

impl Eq for ClassMap {}

impl Serialize for ClassMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.indices.serialize(serializer)
    }
}

impl ClassMap {
    /// Labels are the refiner's classes already.
    pub fn identity() -> Self {
        Self::default()
    }

    /// Label `i` is the refiner's class `indices[i]`.
    ///
    /// # Errors
    /// If the list is empty.
    pub fn indices(indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::config("classes", "the list is empty: one index for each class is expected"));
        }
        Ok(Self { indices: Some(indices), is_imagenet: false })
    }

    /// Label `i` is class `indices[i]` of ImageNet-1K, so that each class has a [name](Self::names) and a
    /// [WordNet id](Self::wnids).
    ///
    /// ```
    /// use diver_loaders::ClassMap;
    ///
    /// let map = ClassMap::imagenet(vec![217, 0])?;
    /// assert_eq!(map.names(), Some(vec!["English springer", "tench"]));
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the list is empty, or an index is not below 1000.
    pub fn imagenet(indices: Vec<usize>) -> Result<Self> {
        if let Some(index) = indices.iter().find(|index| **index >= imagenet::CLASSES) {
            let reason = format!("class {index}: ImageNet-1K has classes 0 to {}", imagenet::CLASSES - 1);
            return Err(Error::config("classes", reason));
        }
        Ok(Self { is_imagenet: true, ..Self::indices(indices)? })
    }

    /// The list of a subset of ImageNet-1K that methods distil, as in `imagenette`, `imagefruit-ncfm` or
    /// `imagenet-idc-100` ([`ClassMap::lists`] has all), or `imagenet` for the whole of it.
    ///
    /// # Errors
    /// If there is no such list; names those that are nearest.
    pub fn named(name: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case("imagenet") {
            return Self::imagenet((0..imagenet::CLASSES).collect());
        }
        match lists::find(name) {
            Some((_, indices)) => Self::imagenet(indices.to_vec()),
            None => {
                let names: Vec<&str> = Self::lists().chain(lists::aliases()).collect();
                Err(Error::config("classes", format!("there is no such list: {}", unknown(name, &names))))
            }
        }
    }

    /// The names that [`ClassMap::named`] knows.
    pub fn lists() -> impl Iterator<Item = &'static str> {
        std::iter::once("imagenet").chain(lists::names())
    }

    /// Reads a list: on each line the class of the next label, as an index in the refiner's class table, as the
    /// WordNet id of a class of ImageNet-1K (what follows it on the line is not read), or as such a class's name.
    /// Empty lines and lines that begin with `#` are passed over. Classes have [names](Self::names) if any line is a
    /// WordNet id or a name.
    ///
    /// # Errors
    /// If the path is not a local one, the file cannot be read, or a line is none of these or could be two classes;
    /// names the line.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = local("classes", path.as_ref())?;
        let length = std::fs::metadata(path).map_err(Error::io(path, "cannot open"))?.len();
        if length > LONGEST_FILE {
            let reason = format!("{length} bytes: a class list, a line for each class, is expected");
            return Err(Error::format(path, reason));
        }
        let text = text::decode(path, std::fs::read(path).map_err(Error::io(path, "cannot read"))?)?;
        let (mut indices, mut is_imagenet) = (Vec::new(), false);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let class = class(line)
                    .map_err(|reason| Error::field(path, format!("line {}", number + 1), reason))?;
                is_imagenet |= matches!(class, Class::OfImagenet(_));
                indices.push(class.index());
            }
        }
        if indices.is_empty() {
            return Err(Error::format(path, "no classes: a line for each is expected"));
        }
        // Beside classes of ImageNet, an index beyond them is of another backbone, whose classes have other names.
        is_imagenet &= indices.iter().all(|index| *index < imagenet::CLASSES);
        Ok(Self { indices: Some(indices), is_imagenet })
    }

    /// The list of this name, or in this file.
    ///
    /// # Errors
    /// If it is neither, or the file is no class list.
    pub fn find(name_or_file: &str) -> Result<Self> {
        Self::named(name_or_file).or_else(|unknown| {
            let path = local("classes", Path::new(name_or_file))?;
            if path.is_file() { Self::from_file(path) } else { Err(unknown) }
        })
    }

    /// The names of the classes, where they are known to be ImageNet's.
    pub fn class_names(&self) -> Option<impl Iterator<Item = &'static str>> {
        None::<std::iter::Empty<&'static str>>
    }

    /// The refiner's class for each label; `None` if they are the same.
    pub fn as_indices(&self) -> Option<&[usize]> {
        self.indices.as_deref()
    }

    /// The name of the class of each label, where the list says that its classes are ImageNet-1K's: by its name, or by
    /// WordNet ids or names in its file. `None` of plain indices, which may be of any backbone.
    ///
    /// ```
    /// use diver_loaders::ClassMap;
    ///
    /// assert_eq!(ClassMap::named("imagefruit")?.names().expect("it is ImageNet's")[0], "pineapple");
    /// assert_eq!(ClassMap::indices(vec![953])?.names(), None);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    pub fn names(&self) -> Option<Vec<&'static str>> {
        self.of_imagenet(imagenet::name)
    }

    /// The WordNet id of the class of each label, where there are [names](Self::names).
    pub fn wnids(&self) -> Option<Vec<&'static str>> {
        self.of_imagenet(imagenet::wnid)
    }

    fn of_imagenet<T>(&self, of: impl FnMut(usize) -> Option<T>) -> Option<Vec<T>> {
        let indices = self.as_indices().filter(|_| self.is_imagenet)?;
        indices.iter().copied().map(of).collect()
    }

    /// The conditioning of `label`.
    ///
    /// # Errors
    /// If the map has no such label.
    pub fn conditioning(&self, label: usize) -> Result<Conditioning> {
        match &self.indices {
            None => Ok(Conditioning::Class(label)),
            Some(indices) => indices.get(label).copied().map(Conditioning::Class).ok_or_else(|| {
                let reason = format!("label {label} is beyond the list, which has {} entries", indices.len());
                Error::config("classes", reason)
            }),
        }
    }
}

/// A class of a list.
enum Class {
    /// An index into whatever table the refiner has.
    Index(usize),
    /// By its WordNet id or its name.
    OfImagenet(usize),
}

impl Class {
    fn index(&self) -> usize {
        match self {
            Self::Index(index) | Self::OfImagenet(index) => *index,
        }
    }
}

/// The class that a line of a list names.
fn class(line: &str) -> Result<Class, String> {
    if line.bytes().all(|b| b.is_ascii_digit()) {
        let index = line.parse().map_err(|_| format!("`{line}` is too large for a class index"))?;
        return Ok(Class::Index(index));
    }
    let first = line.split([' ', '\t', ',']).next().unwrap_or(line);
    if imagenet::is_wnid(first) {
        let index = imagenet::index(first).ok_or_else(|| format!("`{first}` is no class of ImageNet-1K"))?;
        return Ok(Class::OfImagenet(index));
    }
    match imagenet::named(line)[..] {
        [index] => Ok(Class::OfImagenet(index)),
        [] => {
            let line: String = line.chars().take(80).collect();
            let near = nearest(&line, (0..imagenet::CLASSES).filter_map(imagenet::name));
            let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
            let meant = if near.is_empty() {
                String::new()
            } else {
                format!("; names near it are {}", near.join(", "))
            };
            Err(format!(
                "`{line}` is no class: an index, a WordNet id of ImageNet-1K or a name is expected{meant}"
            ))
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
        let error = from_text("English sprinter").unwrap_err().to_string();
        assert!(error.contains("`line 1`") && error.contains("`English springer`"), "{error}");
        assert!(ClassMap::indices(vec![]).is_err());
    }

    #[test]
    fn names_are_found() {
        assert_eq!(ClassMap::named("ImageNet").unwrap().conditioning(999).unwrap(), Conditioning::Class(999));
        for name in ClassMap::lists() {
            assert!(ClassMap::named(name).is_ok(), "{name}");
        }
        let woof = ClassMap::named("imagewoof").unwrap();
        assert_eq!(woof.conditioning(9).unwrap(), Conditioning::Class(229));
        assert!(woof.conditioning(10).is_err());
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        for (name, near) in [
            ("imagefruits", "imagefruit"),
            ("imagefruits-2", "imagefruit"),
            ("image-wolf", "imagewoof"),
            ("imagenet-fruit", "imagenet-fruits"),
            ("imagenet1k", "imagenet"),
            ("imagenet-idc-1000", "imagenet-idc-100"),
        ] {
            let error = ClassMap::find(name).unwrap_err();
            assert!(matches!(error, Error::Config { option: "classes", .. }), "{error:?}");
            let error = error.to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains(&format!("`{near}`")), "{error}");
            assert!(!error.contains("compdd"), "not all of them: {error}");
        }
        // Nothing is near: all are said.
        let error = ClassMap::find("cifar-ten").unwrap_err().to_string();
        assert!(ClassMap::lists().all(|list| error.contains(list)), "{error}");
        let error = ClassMap::find("s3://bucket/classes.txt").unwrap_err().to_string();
        assert!(error.contains("s3://bucket/classes.txt") && error.contains("local path"), "{error}");
    }

    #[test]
    fn classes_have_names_where_they_are_imagenets() {
        let names = |map: ClassMap| (map.names(), map.wnids());
        let (springer, tench) = (Some("English springer"), Some("tench"));
        for map in [
            from_text("n02102040\nn01440764\n"),
            from_text("English springer\ntench\n"),
            from_text("tench\n217"),
        ] {
            let map = map.unwrap();
            let found: Vec<_> = map.names().unwrap().into_iter().map(Some).collect();
            assert!(found == [springer, tench] || found == [tench, springer], "{found:?}");
        }
        let woof = ClassMap::named("imagewoof").unwrap();
        assert_eq!(woof.wnids().unwrap()[0], "n02096294");
        assert_eq!(ClassMap::named("imagenet").unwrap().names().unwrap().len(), 1000);
        for map in [from_text("217\n0\n").unwrap(), from_text("tench\n20000").unwrap(), ClassMap::identity()]
        {
            assert_eq!(names(map), (None, None));
        }
        // As before, in JSON and beside others.
        let plain = ClassMap::indices(woof.as_indices().unwrap().to_vec()).unwrap();
        assert_eq!((&plain, plain.names()), (&woof, None));
        assert_eq!(serde_json::to_value(&woof).unwrap(), serde_json::json!(woof.as_indices()));
        assert!(serde_json::to_value(ClassMap::identity()).unwrap().is_null());
        assert!(ClassMap::imagenet(vec![1000]).is_err() && ClassMap::imagenet(vec![]).is_err());
    }
}

//! The files of one set that lie in a folder: `train-00000-of-00002.parquet`, `train-000001.tar` and their like, in the
//! folder itself or as the repositories of a hub have them (`data/train-*`, `train/*`, `<config>/<split>-*`,
//! `<config>/<split>/*`), and the folders that `datasets` saves.

mod saved;

pub(super) use saved::saved;

use super::names::is_data;
use super::place::Folder;
use crate::wording::counted;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Names of splits; of one line, each stands for all.
const SPLITS: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "valid", "val", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// How many folders whose names tell nothing are looked into.
const LOOKED_INTO: usize = 64;

/// The files of a folder with this extension, in the order of their names; those of one split.
///
/// # Errors
/// If they belong to several splits, of which `split` names none, or to several sets.
pub(super) fn files(folder: &Folder, extension: &str, split: Option<&str>) -> Result<Vec<PathBuf>> {
    let names = below(folder, extension)?;
    let picked = pick(&names, extension, split).map_err(|reason| match split {
        Some(split) => Error::config("split", format!("`{split}`: {}: {reason}", folder.path().display())),
        None => Error::format(folder.path(), reason),
    })?;
    Ok(picked.into_iter().map(|name| folder.path().join(name)).collect())
}

/// The names of the files with this extension below a folder, as far as a set's files may lie.
fn below(folder: &Folder, extension: &str) -> Result<Vec<String>> {
    let own: Vec<String> = folder.with_extension(extension).map(str::to_owned).collect();
    if !own.is_empty() {
        return Ok(own);
    }
    let mut found = Vec::new();
    let are_few = folder.folders().len() <= LOOKED_INTO;
    for name in folder.folders().filter_map(|name| name.to_str()) {
        let is_told = name == "data" || is_split(name);
        if !is_told && !are_few {
            continue;
        }
        let Some(inner) = folder.folder(name)? else { continue };
        if !is_told && !may_hold(inner, extension) {
            continue;
        }
        found.extend(inner.with_extension(extension).map(|file| format!("{name}/{file}")));
        for within in inner.folders().filter_map(|within| within.to_str()) {
            if is_split(within)
                && !is_split(name)
                && let Some(files) = inner.folder(within)?
            {
                found.extend(files.with_extension(extension).map(|file| format!("{name}/{within}/{file}")));
            }
        }
    }
    Ok(found)
}

/// Whether a set's files may lie in a folder: a folder of several datasets is another thing.
fn may_hold(folder: &Folder, extension: &str) -> bool {
    let has_files = folder.with_extension(extension).next().is_some();
    let mut splits = folder.folders().map(|name| name.to_str().is_some_and(is_split));
    let are_splits = splits.all(|is_split| is_split);
    are_splits && (has_files || folder.folders().len() > 0)
}

/// Which of several sets a file belongs to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The folders that are neither `data` nor a split, and what the file's name has before a split.
    set: String,
    split: String,
}

/// Of files, by their names below a folder, those of one split, in order.
///
/// # Errors
/// If there are several splits or sets, and `split` does not say which.
pub(super) fn pick(names: &[String], extension: &str, split: Option<&str>) -> Result<Vec<String>, String> {
    let mut places: BTreeMap<Place, Vec<&String>> = BTreeMap::new();
    for name in names {
        // Those of `datasets`, of what was computed of a table.
        let file = name.rsplit('/').next().unwrap_or(name);
        if extension == "arrow" && (file.starts_with("cache-") || file.starts_with("tmp")) {
            continue;
        }
        places.entry(place(name, extension)).or_default().push(name);
    }
    let places = apart(places, extension);
    let splits: BTreeSet<&str> = places.keys().map(|place| place.split.as_str()).collect();
    let splits: Vec<&str> = splits.into_iter().collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = wanted(&splits, split, &format!("files *.{extension}"))?;
    let places: BTreeMap<_, _> = places.into_iter().filter(|(place, _)| place.split == wanted).collect();
    let sets: Vec<&str> = places.keys().map(|place| place.set.as_str()).collect();
    if sets.len() > 1 {
        let sets =
            sets.iter().map(|set| if set.is_empty() { "." } else { set }).collect::<Vec<_>>().join(", ");
        return Err(format!("files *.{extension} of several sets ({sets}): open the folder or file of one"));
    }
    let mut files: Vec<String> = places.into_values().flatten().cloned().collect();
    files.sort_unstable();
    Ok(files)
}

/// The places of files, where those whose numbers do not count them are a place each: `cifar-10` and `cifar-100`.
fn apart<'a>(places: BTreeMap<Place, Vec<&'a String>>, extension: &str) -> BTreeMap<Place, Vec<&'a String>> {
    let mut found: BTreeMap<Place, Vec<&String>> = BTreeMap::new();
    for (place, names) in places {
        let stems = names.iter().map(|name| {
            let file = name.rsplit('/').next().unwrap_or(name);
            stem(file, extension).unwrap_or(file)
        });
        let numbers: Option<Vec<&str>> = stems.clone().map(|stem| Some(numbered(stem)?.1)).collect();
        if numbers.is_none_or(|numbers| count_up(&numbers)) {
            found.insert(place, names);
            continue;
        }
        for (name, stem) in names.iter().zip(stems) {
            let place = Place { set: place.set.clone(), split: stem.to_owned() };
            found.entry(place).or_default().push(name);
        }
    }
    found
}

/// Whether numbers at the ends of names count files: they are written with as many digits, or go up from 0 or 1.
fn count_up(numbers: &[&str]) -> bool {
    let values: BTreeSet<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let are_all = |first: usize| values.iter().copied().eq(first..first + numbers.len());
    numbers.iter().all(|number| number.len() == numbers[0].len()) || are_all(0) || are_all(1)
}

/// The split that is meant.
fn wanted(splits: &[&str], given: Option<&str>, what: &str) -> Result<String, String> {
    let listed = splits.join(", ");
    match (given, splits) {
        (None, [split]) => Ok((*split).to_owned()),
        (None, _) => {
            let example = splits.iter().find(|split| alike(split, "train")).or(splits.first());
            Err(format!(
                "{what} of several splits ({listed}): choose one with split=\"{}\"",
                example.copied().unwrap_or_default()
            ))
        }
        (Some(given), _) => {
            let same = splits.iter().find(|split| split.eq_ignore_ascii_case(given));
            let found = same.or_else(|| splits.iter().find(|split| alike(split, given)));
            found.map(|split| (*split).to_owned()).ok_or_else(|| match splits {
                [only] if !is_split(only) => "the files name no split: leave `split` out".to_owned(),
                _ => format!("there is no such split; there are {listed}"),
            })
        }
    }
}

fn alike(one: &str, other: &str) -> bool {
    let line = |name: &str| {
        let name = name.to_ascii_lowercase();
        SPLITS.iter().position(|names| names.contains(&name.as_str()))
    };
    line(one).is_some() && line(one) == line(other)
}

/// Whether a name is that of a split. (The hub's own conversions call parts of one `partial-train`.)
fn is_split(name: &str) -> bool {
    let name = name.strip_prefix("partial-").unwrap_or(name).to_ascii_lowercase();
    SPLITS.iter().any(|names| names.contains(&name.as_str()))
}

fn place(name: &str, extension: &str) -> Place {
    let mut folders: Vec<&str> = name.split('/').collect();
    let file = folders.pop().unwrap_or_default();
    folders.retain(|folder| *folder != "data");
    let mut of_file = split(stem(file, extension).unwrap_or(file));
    let mut before = "";
    if !is_split(of_file)
        && let Some((start, end)) = of_file.rsplit_once(['-', '_', '.'])
        && is_split(end)
    {
        (before, of_file) = (start, end);
    }
    let split = if is_split(of_file) {
        of_file
    } else if let Some(at) = folders.iter().rposition(|folder| is_split(folder)) {
        folders.remove(at)
    } else {
        of_file
    };
    folders.extend(Some(before).filter(|before| !before.is_empty()));
    Place { set: folders.join("/"), split: split.to_owned() }
}

fn stem<'a>(name: &'a str, extension: &str) -> Option<&'a str> {
    name.strip_suffix(extension)?.strip_suffix('.')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The name, the number and how many there are, of `train-00000-of-00002`. Older `push_to_hub` appends a fingerprint of
/// each file: `train-00000-of-00002-0a1b2c3d4e5f6071`.
fn counted_name(stem: &str) -> Option<(&str, &str, usize)> {
    let is_fingerprint = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (rest, count) = stem.rsplit_once("-of-")?;
    let count =
        count.split_once('-').filter(|(_, rest)| is_fingerprint(rest)).map_or(count, |(count, _)| count);
    if !is_number(count) {
        return None;
    }
    let (name, number) = rest.rsplit_once('-').filter(|(_, number)| is_number(number)).unwrap_or((rest, ""));
    Some((name, number, count.parse().ok()?))
}

/// The name and the number of `train-00000`, `train_0` and `train.0`.
fn numbered(stem: &str) -> Option<(&str, &str)> {
    stem.rsplit_once(['-', '_', '.']).filter(|(name, number)| !name.is_empty() && is_number(number))
}

/// Whether a name is one that Spark gives a part: `part-00000-<uuid>-c000.snappy`.
fn is_of_spark(stem: &str) -> bool {
    const DIGITS: usize = 5;
    let rest = stem.strip_prefix("part-").and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(number, uuid)| number.len() == DIGITS && is_number(number) && uuid.len() >= 36)
}

/// `train`, of `train-00000-of-00002`, `train-00000`, `train_0` and `train`; nothing of `0000`.
fn split(stem: &str) -> &str {
    if is_of_spark(stem) {
        return "part";
    }
    let stem = counted_name(stem).map_or(stem, |(name, ..)| name);
    let split = numbered(stem).map_or(stem, |(split, _)| split);
    if is_number(split) { "" } else { split }
}

/// What to say of data in a folder that lies beside the `files` of a set. With a `split`, the others are left out on
/// purpose.
pub(super) fn beside(folder: &Folder, files: &[PathBuf], split: Option<&str>) -> Option<String> {
    const LISTED: usize = 4;
    let inside = files.iter().filter_map(|file| file.strip_prefix(folder.path()).ok());
    let used: BTreeSet<&OsStr> =
        inside.filter_map(|file| Some(file.components().next()?.as_os_str())).collect();
    let is_other_split = |name: &OsStr| {
        let extension = files.first().and_then(|file| file.extension());
        split.is_some()
            && (name.to_str().is_some_and(|name| is_split(name) || name == "data")
                || Path::new(name).extension() == extension)
    };
    let data = folder.files().iter().map(OsString::as_os_str).filter(|name| is_data(name));
    let left = |name: &&OsStr| !used.contains(name) && !is_other_split(name);
    let left: Vec<String> =
        data.chain(folder.folders()).filter(left).map(|name| name.display().to_string()).collect();
    let more = if left.len() > LISTED { ", ..." } else { "" };
    let shown = left.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let are = if left.len() == 1 { "is" } else { "are" };
    (!left.is_empty()).then(|| format!("the folder also has {shown}{more}, which {are} not read"))
}

/// What to say where files tell that there are more of them than these, which are of one set.
pub(super) fn missing(files: &[PathBuf]) -> Option<String> {
    let names = files.iter().filter_map(|file| file.file_stem()?.to_str());
    let names = names.map(|name| name.strip_suffix(".tar").unwrap_or(name));
    if let Some(gap) = gap(names.clone()) {
        return Some(gap);
    }
    let counts: Option<Vec<(&str, &str, usize)>> = names.map(counted_name).collect();
    let counts = counts?;
    let (name, _, of) = *counts.first()?;
    // One file of several is opened because it is wanted.
    let are_alike = counts.len() > 1 && counts.iter().all(|other| (other.0, other.2) == (name, of));
    (are_alike && counts.len() < of).then(|| {
        format!("of {} of `{name}`, {} are there: the set is not whole", counted(of, "file"), counts.len())
    })
}

/// What to say where files that are counted as `train-000000`, with as many digits each, leave a number out.
fn gap<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let numbers: Option<Vec<(&str, &str)>> = names.map(numbered).collect();
    let mut numbers = numbers.filter(|numbers| {
        numbers.iter().all(|(name, number)| (*name, number.len()) == (numbers[0].0, numbers[0].1.len()))
    })?;
    numbers.sort_unstable();
    let value = |number: &str| number.parse::<u64>().ok();
    let (before, after) = numbers.windows(2).map(|pair| (pair[0], pair[1])).find(|(before, after)| {
        value(before.1).zip(value(after.1)).is_some_and(|(before, after)| before + 1 < after)
    })?;
    Some(format!(
        "of the files `{}`, the numbers between {} and {} are missing: the set may not be whole",
        before.0, before.1, after.1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(names: &[&str], split: Option<&str>) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        pick(&names, "parquet", split)
    }

    #[test]
    fn splits_are_found_in_names() {
        for name in [
            "train-00000-of-00002",
            "train-00001-of-00002-0a1b2c3d4e5f6071",
            "train-00001-of-00002-1234567890123456",
            "train-00001",
            "train",
        ] {
            assert_eq!(split(name), "train");
        }
        for name in ["train-00001-of-00002-0a1b2c3d4e5f607", "train-00001-of-00002-0a1b2c3d4e5f607g"] {
            assert_eq!(split(name), name);
        }
        assert_eq!((split("0000"), split("part-00000012")), ("", "part"));
        assert_eq!(split("part-00001-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9-c000.snappy"), "part");
        assert_eq!(split("out-of-memory"), "out-of-memory");
        assert_eq!(
            (stem("a.tar", "tar"), stem("a.tar.gz", "tar"), stem("tar", "tar")),
            (Some("a"), None, None)
        );
    }

    #[test]
    fn files_have_a_set_and_a_split() {
        for (name, set, split) in [
            ("data/train-00000-of-00002.parquet", "", "train"),
            ("train/0000.parquet", "", "train"),
            ("train/part-0.parquet", "", "train"),
            ("default/train/0000.parquet", "default", "train"),
            ("default/partial-train/0000.parquet", "default", "partial-train"),
            ("plain_text/test-00000-of-00001.parquet", "plain_text", "test"),
            ("data/validation/0.parquet", "", "validation"),
            ("cifar10-train.parquet", "cifar10", "train"),
            ("0000.parquet", "", ""),
            ("mine.parquet", "", "mine"),
        ] {
            assert_eq!(place(name, "parquet"), Place { set: set.into(), split: split.into() }, "{name}");
        }
    }

    #[test]
    fn one_split_of_one_set_is_picked() {
        let two = ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"];
        assert_eq!(picked(&two, None).unwrap(), [two[1], two[0]]);
        let both = [two[0], two[1], "data/val-00000-of-00001.parquet"];
        assert_eq!(picked(&both, Some("validation")).unwrap(), [both[2]]);
        assert_eq!(picked(&both, Some("Train")).unwrap().len(), 2);
        let error = picked(&both, None).unwrap_err();
        assert!(error.contains("(train, val)") && error.contains("split=\"train\""), "{error}");
        assert!(picked(&both, Some("test")).unwrap_err().contains("train, val"));
        assert!(picked(&["0000.parquet"], Some("train")).unwrap_err().contains("leave `split` out"));
        // Sets are not mixed, whatever the split.
        for sets in [["a/train/0.parquet", "b/train/0.parquet"], ["a-train.parquet", "b-train.parquet"]] {
            assert!(picked(&sets, Some("train")).unwrap_err().contains("(a, b)"));
        }
        assert_eq!(picked(&[], Some("train")).unwrap(), [""; 0]);
        for one in [
            ["shard_0.parquet", "shard_1.parquet"],
            ["part.1.parquet", "part.2.parquet"],
            ["p-07.parquet", "p-19.parquet"],
        ] {
            assert_eq!(picked(&one, None).unwrap(), one);
        }
        let error = picked(&["cifar-10.parquet", "cifar-100.parquet"], None).unwrap_err();
        assert!(error.contains("(cifar-10, cifar-100)"), "{error}");
        assert_eq!(
            picked(&["cifar-10.parquet", "cifar-100.parquet"], Some("cifar-10")).unwrap(),
            ["cifar-10.parquet"]
        );
        let caches = ["cache-0a1b.arrow".to_owned(), "tmp1.arrow".to_owned(), "mnist-train.arrow".to_owned()];
        assert_eq!(pick(&caches, "arrow", None).unwrap(), ["mnist-train.arrow"]);
    }

    #[test]
    fn files_that_are_missing_are_told() {
        let files = |names: &[&str]| names.iter().map(|name| Path::new("x").join(name)).collect::<Vec<_>>();
        let names = ["a-00000-of-00003.parquet", "a-00002-of-00003.parquet", "a-00001-of-00003.parquet"];
        assert_eq!(missing(&files(&names)), None);
        assert!(missing(&files(&names[..2])).unwrap().contains("3 files"));
        assert_eq!(missing(&files(&names[..1])), None);
        assert_eq!(missing(&files(&["a.parquet", "b.parquet"])), None);
    }
}

//! Labels that are names: of class folders, in text columns, in the entries of an archive.

use crate::source::OpenOptions;
use crate::{ClassMap, Error, Result, imagenet};
use std::collections::HashMap;
use std::path::Path;

/// What the names of a set's classes say.
///
/// - Numbers are classes: `7` and `new007` are class 7, whichever others there are. (D4M names folders `0`, `1`, `10`,
///   ..., whose order as text is another.)
/// - WordNet ids are in the order of the class list that the options give, as Minimax, MGD3 and IGD label them;
///   without one in their own order.
/// - Names of ImageNet's classes, too, are in the order of a class list that has these; without one in that of their
///   text, as are others.
#[derive(Debug)]
pub(crate) struct Named {
    /// Whether the names are the numbers of the classes.
    pub(crate) are_numbers: bool,
    /// The class of each name.
    pub(crate) labels: Vec<usize>,
    pub(crate) class_map: ClassMap,
    pub(crate) notes: Vec<String>,
}

impl Named {
    /// From the names of the folders in `path`, sorted.
    ///
    /// # Errors
    /// If the class list in the options has some of them and lacks others, or some are numbers and others are not.
    pub(crate) fn new(path: &Path, names: &[&str], options: &OpenOptions) -> Result<Self> {
        let mut named = Self {
            are_numbers: false,
            labels: (0..names.len()).collect(),
            class_map: options.class_map(),
            notes: Vec::new(),
        };
        let numbers: Option<Vec<usize>> = names.iter().map(|name| number(name)).collect();
        let wnids: Option<Vec<usize>> = names.iter().map(|name| imagenet::index(name)).collect();
        match (numbers, wnids, options.class_indices()) {
            (Some(numbers), _, _) => {
                named.labels = numbers;
                named.are_numbers = true;
            }
            (None, Some(wnids), Some(list)) => named.labels = places(path, &wnids, list)?,
            (None, Some(wnids), None) => {
                named.class_map = ClassMap::imagenet(wnids)?;
                named.notes.push(
                    "the classes are in the order of their WordNet ids. The methods that write such folders (Minimax, \
                     MGD3, IGD) label by their own class lists: pass `classes` if labels must agree with theirs"
                        .into(),
                );
            }
            (None, None, list) => {
                refuse_among_numbers(path, names)?;
                let unknown = names.iter().find(|name| imagenet::index(name).is_none());
                let has_known = names.iter().any(|name| imagenet::index(name).is_some());
                let named_classes = by_name(names);
                let is_whole = named_classes.iter().all(|classes| !classes.is_empty());
                if let Some(unknown) = unknown.filter(|_| has_known && !is_whole) {
                    let reason = "no class of ImageNet-1K by its name, as others beside it are";
                    if list.is_some() {
                        return Err(Error::format(&path.join(unknown), format!("{reason}: remove it")));
                    }
                    named
                        .notes
                        .push(format!("{unknown} is {reason}: classes are in the order of their names"));
                } else if let Some(list) = list {
                    if let Some(places) = named_places(path, names, &named_classes, list)? {
                        named.labels = places;
                    }
                } else if let Some((low, high)) = out_of_order(names) {
                    let place = names.iter().position(|name| *name == high).unwrap_or_default();
                    named.notes.push(format!(
                        "classes are in the order of their names as text, where {high} comes before {low}: {high} has \
                         label {place}. If the numbers in the names are the labels, leave nothing else in the names"
                    ));
                } else if is_whole {
                    named.notes.push(
                        "the names are those of classes of ImageNet-1K, and are labelled in the order of their text: pass \
                         `classes`, a list of the names, if labels must follow another order"
                            .into(),
                    );
                }
            }
        }
        if !named.are_numbers {
            refuse_first_label(options, "the labels are names of classes")?;
        }
        Ok(named)
    }
}

/// # Errors
/// If the options say what the first label is, where labels are no numbers, but `what`.
pub(crate) fn refuse_first_label(options: &OpenOptions, what: &str) -> Result<()> {
    match options.first_label {
        Some(first) if first > 0 => Err(Error::config(
            "first_label",
            format!("{first}, but {what}, not numbers: leave the option out"),
        )),
        _ => Ok(()),
    }
}

/// Names that are no numbers among those that are would order all by their text, where `10` comes before `2`.
///
/// # Errors
/// If there are both, naming those that are fewer.
fn refuse_among_numbers(path: &Path, names: &[&str]) -> Result<()> {
    const SHOWN: usize = 5;
    let (numbers, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| number(name).is_some());
    if numbers.is_empty() || others.is_empty() {
        return Ok(());
    }
    let (odd, what) = if others.len() <= numbers.len() {
        (others, "is not a number, but the other class names are")
    } else {
        (numbers, "is a number, but the other class names are not")
    };
    let more = if odd.len() > SHOWN { ", ..." } else { "" };
    let shown = odd.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let reason = if odd.len() == 1 {
        format!("{shown} {what}, so the order of the classes is ambiguous: remove or rename it")
    } else {
        format!(
            "some class names are numbers and some are not ({shown}{more}), so the order of the classes is ambiguous: \
             give each class its number as its name, or none"
        )
    };
    Err(Error::format(path, reason))
}

/// Of names that are alike but for a number, as `class_2` and `class_10`, and whose order as text is not that of their
/// numbers: the first two that show it, by their numbers.
fn out_of_order<'a>(names: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let numbered = |name: &&'a str| {
        let start = name.find(|c: char| c.is_ascii_digit())?;
        let digits: String = name[start..].chars().take_while(char::is_ascii_digit).collect();
        Some((&name[..start], digits.parse::<u64>().ok()?))
    };
    let numbers: Vec<(&str, u64)> = names.iter().map(numbered).collect::<Option<_>>()?;
    if numbers.iter().any(|(prefix, _)| *prefix != numbers[0].0) {
        return None;
    }
    let at = numbers.windows(2).position(|pair| pair[0].1 > pair[1].1)?;
    Some((names[at + 1], names[at]))
}

/// The class that a folder's name states: `12` (D4M, RDED) or `new012` (SRe2L, CDA, G-VBSM).
fn number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("new").unwrap_or(name);
    if is_number(digits) { Some(digits.parse().unwrap_or(usize::MAX)) } else { None }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The place of each of ImageNet's `classes` in a list.
fn places(path: &Path, classes: &[usize], list: &[usize]) -> Result<Vec<usize>> {
    let place = |class: &usize| list.iter().position(|listed| listed == class);
    let missing = |class: &usize| {
        let wnid = imagenet::wnid(*class).unwrap_or_default();
        let reason = format!("lacks class {class} ({wnid}), of which {} has a folder", path.display());
        Error::config("classes", reason)
    };
    classes.iter().map(|class| place(class).ok_or_else(|| missing(class))).collect()
}

/// ImageNet's classes of each name: of a WordNet id its own; else those of that name, whatever its case and whether its
/// words are joined by spaces or by underscores.
fn by_name(names: &[&str]) -> Vec<Vec<usize>> {
    let plain = |name: &str| name.replace('_', " ").to_ascii_lowercase();
    let mut table: HashMap<String, Vec<usize>> = HashMap::new();
    for class in 0..imagenet::CLASSES {
        table.entry(imagenet::name(class).map(plain).unwrap_or_default()).or_default().push(class);
    }
    let classes = |name: &&str| match imagenet::index(name) {
        Some(class) => vec![class],
        None => table.get(&plain(name)).cloned().unwrap_or_default(),
    };
    names.iter().map(classes).collect()
}

/// The place of each folder in a list, by the `classes` that it may be of by its name; none if the list has none of
/// them, as that of a backbone of other classes.
///
/// # Errors
/// If the list has some and lacks others, as no order then fits both; if a name is that of two of its classes.
fn named_places(
    path: &Path,
    names: &[&str],
    classes: &[Vec<usize>],
    list: &[usize],
) -> Result<Option<Vec<usize>>> {
    let found: Vec<Vec<usize>> = classes
        .iter()
        .map(|classes| classes.iter().copied().filter(|class| list.contains(class)).collect())
        .collect();
    let Some(listed) = found.iter().position(|classes| !classes.is_empty()) else { return Ok(None) };
    let mut places = Vec::with_capacity(names.len());
    for (name, classes) in names.iter().zip(&found) {
        match classes[..] {
            [class] => places.extend(list.iter().position(|listed| *listed == class)),
            [] => {
                let reason = format!(
                    "by its name none of the classes in `classes`, as others beside it are ({}): rename it as its \
                     class is called, or name all folders by their places in the list (0, 1, ...)",
                    names[listed]
                );
                return Err(Error::format(&path.join(name), reason));
            }
            [first, second, ..] => {
                let reason = format!(
                    "the name of classes {first} and {second}, both of which are in `classes`: name it by its WordNet \
                     id, {} or {}",
                    imagenet::wnid(first).unwrap_or_default(),
                    imagenet::wnid(second).unwrap_or_default()
                );
                return Err(Error::format(&path.join(name), reason));
            }
        }
    }
    Ok(Some(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_among_other_names_are_refused() {
        let named = |names: &[&str]| Named::new(Path::new("set"), names, &OpenOptions::new());
        for (names, reason) in [
            (&["0", "1", "10", "2", "preview"][..], "set: preview is not a number"),
            (&["new000", "new001", "x"], "x is not a number"),
            (&["10", "cat", "dog"], "10 is a number"),
            (&["10", "n01440764", "n02102040"], "10 is a number"),
            (&["0", "1", "2", "a", "b"], "(a, b)"),
            (&["0", "1", "2", "3", "4", "5", "a", "b", "c", "d", "e", "f"], "(a, b, c, d, e, ...)"),
        ] {
            let error = named(names).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(named(&["10a", "2a", "cat"]).unwrap().labels, [0, 1, 2]);
    }

    #[test]
    fn an_order_that_is_not_that_of_the_numbers_is_told() {
        let notes =
            |names: &[&str]| Named::new(Path::new("set"), names, &OpenOptions::new()).unwrap().notes.join("");
        for (names, told) in [
            (
                &["class_0", "class_1", "class_10", "class_2"][..],
                "class_10 comes before class_2: class_10 has label 2",
            ),
            (
                &["0_airplane", "10_truck", "1_car", "2_bird"],
                "10_truck comes before 1_car: 10_truck has label 1",
            ),
        ] {
            assert!(notes(names).contains(told), "{}", notes(names));
        }
        for names in [&["class_01", "class_02", "class_10"][..], &["a10", "b2"], &["cat", "dog"]] {
            assert_eq!(notes(names), "", "{names:?}");
        }
    }

    #[test]
    fn class_names_follow_a_list_that_has_them() {
        let named = |names: &[&str], list: &[usize]| {
            let options = match list {
                [] => OpenOptions::new(),
                list => OpenOptions::new().classes(ClassMap::indices(list.to_vec()).unwrap()),
            };
            Named::new(Path::new("set"), names, &options.checked().unwrap())
        };
        let folders = ["English springer", "cassette player", "tench"];
        assert_eq!(named(&folders, &[0, 217, 482]).unwrap().labels, [1, 2, 0]);
        assert_eq!(named(&["Cassette_Player", "n02102040"], &[0, 217, 482]).unwrap().labels, [2, 1]);
        // Of the two classes of a name, the one that is listed.
        assert_eq!(named(&["crane", "tench"], &[0, 517]).unwrap().labels, [1, 0]);
        for (names, list, reason) in [
            (
                &folders[..],
                &[0, 217, 3][..],
                "cassette player: by its name none of the classes in `classes`, as",
            ),
            (&["springer", "tench"], &[217, 0], "springer: by its name none of the classes in `classes`, as"),
            (&["crane", "tench"], &[134, 0, 517], "crane: the name of classes 134 and 517, both of which"),
        ] {
            let error = named(names, list).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        // A backbone of other classes.
        let other = named(&["cat", "dog"], &[7, 3]).unwrap();
        assert_eq!((other.labels, other.notes.len()), (vec![0, 1], 0));
        let unlisted = named(&folders, &[]).unwrap();
        assert_eq!((unlisted.labels, unlisted.class_map), (vec![0, 1, 2], ClassMap::identity()));
        assert!(unlisted.notes[0].contains("pass `classes`"), "{:?}", unlisted.notes);
        assert_eq!(named(&["cat", "tench"], &[]).unwrap().notes, [""; 0]);
    }
}

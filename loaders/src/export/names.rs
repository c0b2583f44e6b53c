//! What exported images are called: by their own names where readers list these in the set's order, else by numbers.

use crate::wording::counted;
use crate::{Result, Source};
use std::borrow::Cow;
use std::collections::HashSet;

/// The longest name that every file system takes, in bytes, with room for an extension.
const LONGEST: usize = 200;

/// What the images of an export are called.
///
/// Every reader sorts the files of a folder by their names as text, so names must be in the set's order as text: numbers
/// have as many digits as the largest one, and the images' own names count only where they are in order already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileNames {
    /// The own name of each image without its extension; empty where images are numbered.
    stems: Vec<String>,
    /// The class of each image, where it is known before the images are.
    classes: Vec<usize>,
    /// Why own names are not kept, where there are any.
    note: Option<String>,
}

impl FileNames {
    /// Numbers.
    #[must_use]
    pub fn numbers() -> Self {
        Self::default()
    }

    /// The names of a set's images, for files in a folder for each class; numbers if any of them cannot be kept.
    ///
    /// # Errors
    /// If a label cannot be read.
    pub fn of(source: &dyn Source) -> Result<Self> {
        let samples = source.info().num_samples;
        let classes: Vec<usize> =
            (0..samples).map(|index| Ok(source.label(index)?.class())).collect::<Result<_>>()?;
        let names: Vec<Option<Cow<'_, str>>> = (0..samples).map(|index| source.name(index)).collect();
        if names.iter().all(Option::is_none) {
            return Ok(Self { classes, ..Self::default() });
        }
        Ok(match stems(&names, &classes, source.info().num_classes) {
            Ok(stems) => Self { stems, classes, note: None },
            Err(reason) => {
                let note =
                    format!("images are named by numbers, because their own names cannot be kept: {reason}");
                Self { stems: Vec::new(), classes, note: Some(note) }
            }
        })
    }

    /// The own name of image `index`, without an extension.
    pub(super) fn stem(&self, index: usize) -> Option<&str> {
        self.stems.get(index).map(String::as_str)
    }

    /// How many digits number the images of a class, of `samples` in all.
    pub(super) fn digits(&self, samples: usize) -> usize {
        let mut counts = vec![0; self.classes.iter().max().map_or(0, |class| class + 1)];
        self.classes.iter().for_each(|class| counts[*class] += 1);
        // Without classes, one class may have all.
        digits(counts.into_iter().max().unwrap_or(samples))
    }

    /// The same for a format that has all images in one place, where names must differ between classes, too, and end at
    /// their first dot.
    pub(super) fn in_one_place(&self) -> Self {
        let dotted = self.stems.iter().find(|stem| stem.contains('.'));
        let reason = match dotted {
            Some(stem) => Some(format!("`{stem}` has a dot, at which the format ends a name")),
            None => in_order(self.stems.iter().map(String::as_str)).err(),
        };
        match reason.filter(|_| !self.stems.is_empty()) {
            None => self.clone(),
            Some(reason) => {
                let note =
                    format!("images are named by numbers, because their own names cannot be kept: {reason}");
                Self { stems: Vec::new(), note: Some(note), ..self.clone() }
            }
        }
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// How many digits the largest of `count` numbers from 0 has.
pub(super) fn digits(count: usize) -> usize {
    count.saturating_sub(1).to_string().len()
}

/// The names of images without their extensions.
///
/// # Errors
/// If one is no name that every system takes and shows, or those of a class are not in order; says why.
fn stems(names: &[Option<Cow<'_, str>>], classes: &[usize], count: usize) -> Result<Vec<String>, String> {
    let unnamed = names.iter().filter(|name| name.is_none()).count();
    if unnamed > 0 {
        return Err(format!("{} of {} has none", counted(unnamed, "image"), names.len()));
    }
    let stems: Vec<String> = names.iter().flatten().map(|name| stem(name)).collect::<Result<_, _>>()?;
    let mut by_class = vec![Vec::new(); count];
    for (stem, class) in stems.iter().zip(classes) {
        by_class[*class].push(stem.as_str());
    }
    by_class.into_iter().try_for_each(in_order)?;
    Ok(stems)
}

/// Checks that names are in the order of their text with an extension, and differ on systems that ignore case.
///
/// # Errors
/// If they are not.
fn in_order<'a>(stems: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    let mut before: Option<&str> = None;
    for stem in stems {
        if !seen.insert(stem.to_lowercase()) {
            return Err(format!("several are called `{stem}`"));
        }
        // As readers see it: `a.png` comes after `a-b.png`.
        if let Some(before) = before
            && format!("{before}.png") > format!("{stem}.png")
        {
            return Err(format!(
                "`{stem}` comes after `{before}` in the set, and before it where names are sorted"
            ));
        }
        before = Some(stem);
    }
    Ok(())
}

/// A name without its extension.
///
/// # Errors
/// If it is no name for a file that every system takes, and every reader sees.
fn stem(name: &str) -> Result<String, String> {
    let shown: String = name.chars().take(60).collect();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let reason = if name.contains(char::REPLACEMENT_CHARACTER) {
        "is not Unicode"
    } else if stem.contains(['/', '\\']) {
        "has a path separator"
    } else if stem.contains(['<', '>', ':', '"', '|', '?', '*']) || stem.contains(char::is_control) {
        "has a character that some systems do not take"
    } else if stem.is_empty() || stem.starts_with('.') {
        "is hidden from readers by its dot"
    } else if stem.ends_with([' ', '.']) {
        "ends in a way that some systems drop"
    } else if stem.len() > LONGEST {
        "is too long"
    } else {
        return Ok(stem.to_owned());
    };
    Err(format!("`{shown}` {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], classes: &[usize]) -> Result<Vec<String>, String> {
        let names: Vec<_> = names.iter().map(|name| Some(Cow::Borrowed(*name))).collect();
        stems(&names, classes, 1 + classes.iter().max().unwrap())
    }

    #[test]
    fn own_names_are_kept_where_they_are_in_order() {
        assert_eq!(of(&["a.JPEG", "b.x.png", "a"], &[0, 0, 1]).unwrap(), ["a", "b.x", "a"]);
        assert_eq!(of(&["0-1.jpg", "0.jpg"], &[0, 0]).unwrap(), ["0-1", "0"]);
        for (names, reason) in [
            (&["2.png", "10.png"][..], "`10` comes after `2` in the set"),
            (&["0.jpg", "0-1.jpg"], "`0-1` comes after `0` in the set"),
            (&["a.png", "a.jpg"], "several are called `a`"),
            (&["A.png", "a.png"], "several are called `a`"),
            (&["a/b.png", "c.png"], "path separator"),
            (&["a\\b.png", "c.png"], "path separator"),
            (&["a\u{fffd}.png", "c.png"], "not Unicode"),
            (&[".a.png", "c.png"], "hidden"),
            (&[".png", "c.png"], "hidden"),
            (&["..", "c.png"], "hidden"),
            (&["", "c.png"], "hidden"),
            (&["a:b.png", "c.png"], "do not take"),
            (&["a\n.png", "c.png"], "do not take"),
            (&["a .png", "c.png"], "drop"),
        ] {
            let refused = of(names, &[0, 0]).unwrap_err();
            assert!(refused.contains(reason), "{names:?}: {refused}");
        }
        assert!(of(&[&"x".repeat(300)], &[0]).unwrap_err().contains("too long"));
        assert!(stems(&[None, Some("a".into())], &[0, 0], 1).unwrap_err().contains("1 image of 2"));
    }

    #[test]
    fn in_one_place_names_differ_between_classes() {
        let names = |stems: &[&str]| FileNames {
            stems: stems.iter().map(ToString::to_string).collect(),
            ..FileNames::default()
        };
        assert_eq!(names(&["a", "b"]).in_one_place(), names(&["a", "b"]));
        assert_eq!(FileNames::numbers().in_one_place(), FileNames::numbers());
        for (stems, reason) in
            [(["a", "a"], "several"), (["b", "a"], "comes after"), (["a.b", "c"], "`a.b` has a dot")]
        {
            let numbered = names(&stems).in_one_place();
            assert!(numbered.stem(0).is_none() && numbered.note().unwrap().contains(reason), "{numbered:?}");
        }
    }

    #[test]
    fn numbers_have_the_digits_of_the_largest() {
        assert_eq!([0, 1, 10, 11, 100, 101].map(digits), [1, 1, 1, 2, 2, 3]);
        let classes = [vec![0; 11], vec![1; 3]].concat();
        assert_eq!(FileNames { classes, ..FileNames::default() }.digits(14), 2);
        assert_eq!(FileNames::numbers().digits(1001), 4);
    }
}

//! What diver's own files say of their classes, beside the labels: how many there are, their names, and the refiner's
//! class for each. It lies in `norm.json`, in the metadata of safetensors and in that of Parquet.

use super::info::SourceInfo;
use super::options::OpenOptions;
use super::sample::LabelKind;
use crate::labels::MAX_CLASSES;
use crate::wording::counted;
use crate::{ClassMap, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The classes of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassList {
    count: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    /// The refiner's class for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    indices: Option<Vec<usize>>,
}

impl ClassList {
    /// Where it lies among a file's metadata.
    pub(crate) const KEY: &str = "diver.classes";
    /// The most bytes that a list takes as JSON: 65,536 names of 60 bytes and their classes.
    pub(crate) const LONGEST: usize = 1 << 22;

    /// The classes of a set.
    pub(crate) fn of(info: &SourceInfo) -> Self {
        Self {
            count: info.num_classes,
            names: info.classes.clone(),
            indices: info.class_map.as_indices().map(<[usize]>::to_vec),
        }
    }

    /// The list for a format that has names of its own.
    pub(crate) fn without_names(self) -> Self {
        Self { names: None, ..self }
    }

    /// The refiner's class for each.
    pub(super) fn indices(&self) -> Option<&[usize]> {
        self.indices.as_deref()
    }

    /// As it lies in a file's metadata.
    pub(crate) fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// The list in the metadata of the file at `path`.
    ///
    /// # Errors
    /// As [`check`](Self::check); if it is no list.
    pub(super) fn from_json(path: &Path, text: &str) -> Result<Self> {
        let parsed = serde_json::from_str::<Self>(text);
        let list = parsed.map_err(|e| Error::field(path, Self::KEY, format!("{e}. {EXPECTED}")))?;
        list.check(path)?;
        Ok(list)
    }

    /// # Errors
    /// If it has no classes, or names or indices of another number, naming `from`, where it lies.
    pub(super) fn check(&self, from: &Path) -> Result<()> {
        let refused = |reason: String| Err(Error::field(from, "classes", format!("{reason}. {EXPECTED}")));
        if self.count == 0 {
            return refused("no classes".into());
        }
        let names = self.names.as_ref().map(|names| (names.len(), "name"));
        let indices = self.indices.as_ref().map(|indices| (indices.len(), "index"));
        for (count, of) in [names, indices].into_iter().flatten() {
            if count != self.count {
                let of = if of == "name" { counted(count, of) } else { format!("{count} indices") };
                return refused(format!("{of} for {}", counted(self.count, "class")));
            }
        }
        Ok(())
    }

    /// Checks that what the caller says of the classes, if anything, is not another thing than the list in `from`.
    ///
    /// # Errors
    /// If it is.
    pub(super) fn check_given(&self, from: &Path, options: &OpenOptions) -> Result<()> {
        let listed = || format!("{} lists {}", from.display(), counted(self.count, "class"));
        match options.class_count() {
            None if self.count > MAX_CLASSES => {
                let reason = format!(
                    "it lists {}; pass `num_classes` if more than {MAX_CLASSES} are meant",
                    counted(self.count, "class")
                );
                return Err(Error::field(from, "classes", reason));
            }
            Some(given) if given < self.count => {
                return Err(Error::config(
                    options.class_count_option(),
                    format!("it says {given}, but {}", listed()),
                ));
            }
            _ => {}
        }
        match (options.class_indices(), self.indices()) {
            (Some(given), Some(own))
                if !given.starts_with(own) && own.iter().all(|class| given.contains(class)) =>
            {
                let reason = format!(
                    "{} lists these classes in another order, which the labels follow: leave `classes` out",
                    from.display()
                );
                Err(Error::config("classes", reason))
            }
            (None, Some(_)) if options.num_classes.is_some_and(|given| given != self.count) => {
                let reason = format!(
                    "it says {}, but {}: pass `classes`, too",
                    options.num_classes.unwrap_or_default(),
                    listed()
                );
                Err(Error::config("num_classes", reason))
            }
            _ => Ok(()),
        }
    }

    /// The options of a set of class folders, with what they leave open.
    pub(super) fn fill(&self, options: &OpenOptions) -> OpenOptions {
        let mut filled = options.clone();
        if options.class_count().is_none() {
            filled.num_classes = Some(self.count);
        }
        if let (None, Some(count), Some(indices)) =
            (options.class_indices(), filled.num_classes, self.indices())
            && count == indices.len()
            && let Ok(classes) = ClassMap::indices(indices.to_vec())
        {
            filled = filled.with_listed(classes);
        }
        filled
    }

    /// Number of classes.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The refiner's class for each, if the list has them.
    pub(super) fn class_map(&self) -> Option<ClassMap> {
        ClassMap::indices(self.indices.clone()?).ok()
    }

    /// Checks that the labels of the set at `path`, of `found` classes, can be of these, unless the caller says how many
    /// there are.
    ///
    /// # Errors
    /// If they cannot.
    pub(super) fn check_fits(
        &self,
        from: &Path,
        path: &Path,
        found: usize,
        kind: LabelKind,
        options: &OpenOptions,
    ) -> Result<()> {
        let fits = if kind == LabelKind::Hard { self.count >= found } else { self.count == found };
        if fits || options.class_count().is_some() {
            return Ok(());
        }
        let reason =
            format!("it lists {}, but {} has {}", self.count, path.display(), counted(found, "class"));
        Err(Error::field(from, "classes", reason))
    }
}

const EXPECTED: &str = "Expected {\"count\": n, \"names\": [...], \"indices\": [...]}, where names and the refiner's \
                        indices may be missing";

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "norm.json";

    fn list(text: &str) -> Result<ClassList> {
        ClassList::from_json(Path::new(FROM), text)
    }

    fn check(text: &str, found: usize, options: &OpenOptions) -> Result<()> {
        let (list, from, options) = (list(text)?, Path::new(FROM), &options.checked()?);
        list.check_given(from, options)?;
        list.check_fits(from, Path::new("memory"), found, LabelKind::Hard, options)
    }

    #[test]
    fn a_list_agrees_with_what_the_caller_says_and_the_labels_are() {
        let whole = r#"{"count": 3, "names": ["a", "b", "c"], "indices": [155, 182, 193]}"#;
        let map = |indices: &[usize]| ClassMap::indices(indices.to_vec()).unwrap();
        assert!(check(whole, 2, &OpenOptions::new()).is_ok());
        assert!(check(r#"{"count": 3}"#, 2, &OpenOptions::new().num_classes(5)).is_ok());
        // A backbone of other classes.
        assert!(check(whole, 2, &OpenOptions::new().classes(map(&[7, 8, 9, 1]))).is_ok());
        for (options, option) in [
            (OpenOptions::new().num_classes(2), "num_classes"),
            (OpenOptions::new().num_classes(4), "num_classes"),
            (OpenOptions::new().classes(map(&[1, 2])), "classes"),
            (OpenOptions::new().classes(map(&[193, 182, 9, 155])), "classes"),
        ] {
            let error = check(whole, 2, &options).unwrap_err();
            assert!(matches!(&error, Error::Config { option: of, .. } if *of == option), "{error}");
            assert!(error.to_string().contains(FROM), "{error}");
        }
        let error = check(r#"{"count": 1}"#, 2, &OpenOptions::new()).unwrap_err().to_string();
        assert!(error.contains("norm.json: `classes`") && error.contains("memory has 2 classes"), "{error}");
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        for (text, reason) in [
            ("10", "`diver.classes`: invalid type"),
            (r#"{"count": 0}"#, "`classes`: no classes"),
            (r#"{"count": -1}"#, "`diver.classes`: invalid value"),
            (r#"{"count": 2, "names": ["a"]}"#, "`classes`: 1 name for 2 classes"),
            (r#"{"count": 1, "indices": [1, 2]}"#, "`classes`: 2 indices for 1 class"),
            (r#"{"count": 1, "more": 2}"#, "unknown field `more`"),
        ] {
            let error = list(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("Expected"), "{error}");
        }
        let huge = r#"{"count": 1000000000000}"#;
        let error = check(huge, 2, &OpenOptions::new()).unwrap_err().to_string();
        assert!(error.contains("1000000000000 classes") && error.contains("num_classes"), "{error}");
    }
}

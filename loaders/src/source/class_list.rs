//! What diver's own files say of their classes, beside the labels: how many there are, their names, and the refiner's
//! class for each. It lies in `norm.json`, in the metadata of safetensors and in that of Parquet.

use super::{Label, LabelKind, OpenOptions, Sample, Source, SourceInfo};
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
            count: info.classes,
            names: info.class_names.clone(),
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
        let list = parsed.map_err(|e| Error::field(path, Self::KEY, format!("{e}: {EXPECTED}")))?;
        list.check(path)?;
        Ok(list)
    }

    /// # Errors
    /// If it has no classes, or names or indices of another number, naming `from`, where it lies.
    pub(super) fn check(&self, from: &Path) -> Result<()> {
        let refused = |reason: String| Err(Error::field(from, "classes", format!("{reason}: {EXPECTED}")));
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
                    "{}, more than {MAX_CLASSES}: set the number of classes if it is meant",
                    counted(self.count, "class")
                );
                return Err(Error::field(from, "classes", reason));
            }
            Some(given) if given < self.count => {
                return Err(Error::config(
                    options.class_count_option(),
                    format!("{given}, where {}", listed()),
                ));
            }
            _ => {}
        }
        match (options.classes.as_indices(), self.indices()) {
            (Some(given), Some(own))
                if !given.starts_with(own) && own.iter().all(|class| given.contains(class)) =>
            {
                let reason = format!(
                    "the labels follow another order of these classes, which is in {}: leave `classes` out",
                    from.display()
                );
                Err(Error::config("classes", reason))
            }
            (None, Some(_)) if options.num_classes.is_some_and(|given| given != self.count) => {
                let reason = format!(
                    "{}, where {}: give `classes`, too",
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
            (options.classes.as_indices(), filled.num_classes, self.indices())
            && count == indices.len()
            && let Ok(classes) = ClassMap::indices(indices.to_vec())
        {
            filled.classes = classes;
        }
        filled
    }

    /// `whole` with these classes, as far as the caller leaves them open and the set has none of its own.
    ///
    /// # Errors
    /// As [`check_given`](Self::check_given); if a label is of none of them.
    pub(super) fn apply(
        self,
        from: &Path,
        whole: Box<dyn Source>,
        options: &OpenOptions,
    ) -> Result<Box<dyn Source>> {
        self.check_given(from, options)?;
        let mut info = whole.info().clone();
        let fits = match info.labels {
            LabelKind::Logits => self.count == info.classes,
            LabelKind::Hard => self.count >= info.classes,
        };
        if !fits && options.class_count().is_none() {
            let reason = format!(
                "{}, where {} has {}",
                self.count,
                info.path.display(),
                counted(info.classes, "class")
            );
            return Err(Error::field(from, "classes", reason));
        }
        info.classes = options.class_count().unwrap_or(self.count);
        if let (None, Some(indices)) = (info.class_map.as_indices(), self.indices) {
            info.class_map = ClassMap::indices(indices)?;
        }
        info.class_names = info.class_names.or(self.names).map(|mut names| {
            names.extend((names.len()..info.classes).map(|class| class.to_string()));
            names
        });
        Ok(Box::new(Listed { whole, info }))
    }
}

const EXPECTED: &str = "{\"count\": n, \"names\": [...], \"indices\": [...]} is expected, of which names and the refiner's \
                        indices may be missing";

/// A source that says more of its classes.
#[derive(Debug)]
struct Listed {
    whole: Box<dyn Source>,
    info: SourceInfo,
}

impl Source for Listed {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.whole.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.whole.sample(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemorySource, conformance};
    use super::*;

    const FROM: &str = "norm.json";

    fn list(text: &str) -> Result<ClassList> {
        ClassList::from_json(Path::new(FROM), text)
    }

    fn apply(text: &str, options: &OpenOptions) -> Result<SourceInfo> {
        let set = MemorySource::unit(2, [3, 1, 1], vec![0.5; 6], vec![0, 1]).unwrap();
        let info = SourceInfo { class_map: options.classes.clone(), ..set.info().clone() };
        let set = MemorySource::new(info, vec![0.5; 6], vec![Label::Hard(0), Label::Hard(1)])?;
        let listed = list(text)?.apply(Path::new(FROM), Box::new(set), options)?;
        conformance::check(&listed);
        Ok(listed.info().clone())
    }

    #[test]
    fn a_set_has_the_listed_classes_unless_the_caller_says_otherwise() {
        let whole = r#"{"count": 3, "names": ["a", "b", "c"], "indices": [155, 182, 193]}"#;
        let map = |indices: &[usize]| ClassMap::indices(indices.to_vec()).unwrap();
        let info = apply(whole, &OpenOptions::new()).unwrap();
        assert_eq!((info.classes, info.class_map), (3, map(&[155, 182, 193])));
        assert_eq!(info.class_names.unwrap(), ["a", "b", "c"]);
        let info = apply(r#"{"count": 3}"#, &OpenOptions::new().num_classes(5)).unwrap();
        assert_eq!((info.classes, info.class_names, info.class_map), (5, None, ClassMap::identity()));
        // A backbone of other classes.
        let info = apply(whole, &OpenOptions::new().classes(map(&[7, 8, 9, 1]))).unwrap();
        assert_eq!((info.classes, info.class_map), (4, map(&[7, 8, 9, 1])));
        assert_eq!(info.class_names.unwrap(), ["a", "b", "c", "3"]);

        for (options, reason) in [
            (OpenOptions::new().num_classes(2), "num_classes: 2, where norm.json lists 3 classes"),
            (OpenOptions::new().num_classes(4), "num_classes: 4, where norm.json lists 3 classes: give"),
            (OpenOptions::new().classes(map(&[1, 2])), "classes: 2, where norm.json lists 3 classes"),
            (
                OpenOptions::new().classes(map(&[193, 182, 9, 155])),
                "classes: the labels follow another order of these classes, which is in norm.json",
            ),
        ] {
            let error = apply(whole, &options).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
        let error = apply(r#"{"count": 1}"#, &OpenOptions::new()).unwrap_err().to_string();
        assert!(error.contains("norm.json: `classes`: 1, where memory has 2 classes"), "{error}");
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
            assert!(error.contains(reason) && error.contains("is expected"), "{error}");
        }
        let huge = r#"{"count": 1000000000000}"#;
        let error = apply(huge, &OpenOptions::new()).unwrap_err().to_string();
        assert!(error.contains("1000000000000 classes, more than 65536: set the number"), "{error}");
    }
}

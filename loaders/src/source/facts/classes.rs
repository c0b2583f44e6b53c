//! What is known of a set's classes: how many there are, their names, and which classes of a refiner they are.

use super::Facts;
use crate::source::class_list::ClassList;
use crate::source::info::{Fact, Format, Right};
use crate::source::sample::LabelKind;
use crate::wording::counted;
use crate::{ClassMap, Result, imagenet};
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;

/// Classes without a sample that a note names.
const NAMED: usize = 8;

/// The classes of a set.
#[derive(Debug)]
pub(crate) struct Classes {
    pub(crate) count: usize,
    pub(crate) names: Option<Vec<String>>,
    pub(crate) map: ClassMap,
}

impl Facts<'_> {
    /// The list of classes in the sidecar or the files, with the file that has it.
    pub(crate) fn class_list(&self) -> Option<(&Path, &ClassList, Right)> {
        let sidecar = self.sidecar.as_ref();
        let beside = sidecar.and_then(|s| Some((s.file.as_path(), s.classes.as_ref()?, Right::Sidecar)));
        let embedded = || {
            let (file, list) = self.embedded.classes.as_ref()?;
            Some((file.as_path(), list, Right::Embedded))
        };
        beside.or_else(embedded)
    }

    /// Leaves the list of classes out of account, as labels follow the one that the options give.
    pub(crate) fn set_class_list_aside(&mut self) {
        self.embedded.classes = None;
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.classes = None;
        }
    }

    /// The classes of a set whose labels are of `found` classes, with the names and the class map that the data itself has.
    ///
    /// # Errors
    /// If what the options, the sidecar and the files say of the classes does not agree.
    pub(crate) fn classes(
        &mut self,
        found: usize,
        kind: LabelKind,
        names: Option<Vec<String>>,
        map: Option<ClassMap>,
    ) -> Result<Classes> {
        let list = self.class_list().map(|(file, list, right)| (file.to_owned(), list.clone(), right));
        if let Some((file, list, _)) = &list {
            list.check_given(file, self.options)?;
            list.check_fits(file, &self.path, found, kind, self.options)?;
        }
        let implied = self.implied_classes(found);
        let listed = list.as_ref().map(|(_, list, right)| (list.count(), *right));
        let given = self.options.class_count().map(|count| (count, Right::Option));
        let of_dataset = || {
            let (_, map) = implied.as_ref().filter(|_| kind == LabelKind::Hard)?;
            Some((map.as_indices()?.len(), Right::Option))
        };
        let known = given.or(listed).or_else(of_dataset);
        let (count, right) =
            known.unwrap_or((found, if names.is_some() { Right::Embedded } else { Right::Guess }));
        self.state("classes", count.to_string(), right);

        let list_map = || {
            let (_, list, right) = list.as_ref()?;
            Some((list.class_map()?, *right, "the classes in norm.json or the files".to_owned()))
        };
        // Names of ImageNet's classes say which these are.
        let by_names = || {
            let classes = imagenet::classes_of(names.as_ref()?)?;
            Some((ClassMap::imagenet(classes).ok()?, Right::Embedded, "the names of the classes".to_owned()))
        };
        let option_map = self.options.class_indices().is_some();
        let map = if self.options.are_refiners_classes() {
            let same = ClassMap::indices((0..count).collect())?;
            Some((same, Right::Option, "`classes`: the labels are the refiner's classes".to_owned()))
        } else if option_map {
            Some((self.options.class_map(), Right::Option, "`classes`".to_owned()))
        } else {
            let own = map.map(|map| (map, Right::Embedded, "the names of the classes".to_owned()));
            let of_dataset = || {
                let (name, map) = implied.clone()?;
                Some((map, Right::Option, format!("the class list {name}, by `dataset`")))
            };
            list_map().or(own).or_else(of_dataset).or_else(by_names)
        };
        let map = match map {
            Some((map, right, by)) => {
                self.state("class map", by, right);
                map
            }
            None => ClassMap::identity(),
        };
        if let Some((name, _)) = implied.as_ref().filter(|_| self.format == Format::Idc && !option_map)
            && name.ends_with("-ncfm")
        {
            self.note(format!(
                "the classes are those of {name}: NCFM's list, which differs from MTT's in one class; pass `classes` for \
                 another list"
            ));
        }
        let names = names.or_else(|| list.and_then(|(_, list, _)| list.names().map(<[String]>::to_vec)));
        if let Some((first, again)) = names.as_deref().and_then(twice) {
            let name = &names.as_deref().unwrap_or_default()[first];
            self.note(format!("labels {first} and {again} have one class name, {name}"));
        }
        if let Some((first, again)) = map.as_indices().and_then(twice) {
            let class = map.as_indices().unwrap_or_default()[first];
            self.note(format!("labels {first} and {again} are both class {class} of the refiner"));
        }
        let names = names.or_else(|| map.names().map(|names| names.into_iter().map(str::to_owned).collect()));
        // Classes without a name are called by their number.
        let names = names.map(|mut names| {
            names.truncate(count);
            names.extend((names.len()..count).map(|class| class.to_string()));
            names
        });
        Ok(Classes { count, names, map })
    }

    /// The class list of the dataset that the option names, if the labels can be of it.
    pub(crate) fn implied_classes(&self, found: usize) -> Option<(String, ClassMap)> {
        let (name, map) = self.dataset.as_ref()?.classes(self.format)?;
        let classes = map.as_indices()?.len();
        // `imagenet` is said of its subsets, too.
        let fits = if name == "imagenet" { found == classes } else { found <= classes };
        fits.then_some((name, map))
    }

    /// Notes what is odd in the classes of hard labels, where nobody says how many there are: it may be a shift by one, or a
    /// part of a set.
    pub(crate) fn note_odd_classes(&mut self, labels: impl Iterator<Item = usize>, count: usize) {
        let is_told = |fact: &Fact| fact.name == "classes" && fact.right < Right::Embedded;
        let is_listed = self.embedded.classes.is_some();
        if self.is_part || is_listed || self.facts.iter().any(is_told) {
            return;
        }
        let mut seen = vec![false; count];
        for label in labels {
            if let Some(seen) = seen.get_mut(label) {
                *seen = true;
            }
        }
        let missing: Vec<usize> = (0..count).filter(|class| !seen[*class]).collect();
        if count == 1 {
            self.note("the set has a single class");
        } else if missing == [0] {
            self.note(format!(
                "no sample has label 0: labels run from 1 to {}. If they count from 1, pass `first_label=1`",
                count - 1
            ));
        } else if !missing.is_empty() {
            let shown: Vec<String> = missing.iter().take(NAMED).map(usize::to_string).collect();
            let more = if missing.len() > NAMED { ", ..." } else { "" };
            self.note(format!(
                "{} of {} {} no samples: {}{more}",
                missing.len(),
                counted(count, "class"),
                if missing.len() == 1 { "has" } else { "have" },
                shown.join(", ")
            ));
        }
    }
}

/// The places of the first item that is listed twice.
fn twice<T: Eq + Hash>(items: &[T]) -> Option<(usize, usize)> {
    let mut first = HashMap::new();
    items.iter().enumerate().find_map(|(at, item)| first.insert(item, at).map(|before| (before, at)))
}

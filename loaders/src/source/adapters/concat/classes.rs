//! The classes of a set that is made of several.

use crate::source::SourceInfo;
use crate::{ClassMap, Error, Result};
use std::collections::{BTreeSet, HashMap};

/// The most classes that may be asked for: every batch of targets is as wide.
const MOST: usize = 1 << 20;

/// The classes of the combined set, and which of them each set has.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) count: usize,
    pub(super) names: Option<Vec<String>>,
    pub(super) map: ClassMap,
    /// For each set, the combined label of each of its own labels.
    pub(super) labels: Vec<Vec<usize>>,
    pub(super) notes: Vec<String>,
}

/// What classes are matched by.
enum Key<'a> {
    /// By the classes of ImageNet-1K that the sets say they are.
    Imagenet(Vec<&'a [usize]>),
    Names(Vec<&'a [String]>),
    /// By their numbers, of which all sets have as many.
    Numbers,
}

/// Matches the classes of sets: by ImageNet's classes if all sets say them, by name if all have names, by number if none
/// has. The first set's classes come first, then those that the second adds, and so on.
///
/// # Errors
/// [`Error::Config`] for `sets` if there is no way to match them, a set has two classes of one name, or a class is
/// another class of the refiner in two sets.
pub(super) fn matched(sets: &[&SourceInfo]) -> Result<Matched> {
    let mut notes = Vec::new();
    let labels = match key(sets)? {
        Key::Imagenet(lists) => union(sets, &lists)?,
        Key::Names(lists) => union(sets, &lists)?,
        Key::Numbers => {
            if sets.len() > 1 {
                notes.push(
                    "classes are matched by number, because the sets do not name them; pass `classes` if label 0 is not \
                     the same class in all sets"
                        .to_owned(),
                );
            }
            sets.iter().map(|set| (0..set.num_classes).collect()).collect()
        }
    };
    of_labels(sets, labels, notes)
}

/// The classes that the caller asks for. `labels` has, for each set, the combined label of each of its own labels.
///
/// # Errors
/// [`Error::Config`] for `classes` if there is not one list for each set and one label for each of its classes, or no set
/// has a class; for `sets` as [`matched`].
pub(super) fn asked(sets: &[&SourceInfo], labels: Vec<Vec<usize>>) -> Result<Matched> {
    let refused = |reason: String| Err(Error::config("classes", reason));
    if labels.len() != sets.len() {
        return refused(format!("{} lists for {} sets: give one for each set", labels.len(), sets.len()));
    }
    for (number, (set, labels)) in sets.iter().zip(&labels).enumerate() {
        if labels.len() != set.num_classes {
            return refused(format!(
                "{} labels for set {number}, {}, which has {} classes: give one label for each class",
                labels.len(),
                set.path.display(),
                set.num_classes
            ));
        }
    }
    let known: BTreeSet<usize> = labels.iter().flatten().copied().collect();
    if let Some(most) = known.last().filter(|most| **most >= MOST) {
        return refused(format!("label {most}: it must be below {MOST}"));
    }
    if let Some((missing, _)) = known.iter().enumerate().find(|(place, label)| place != *label) {
        return refused(format!(
            "no set has class {missing}, although class {} is given: labels must run from 0 without a gap",
            known.last().copied().unwrap_or_default()
        ));
    }
    of_labels(sets, labels, Vec::new())
}

fn key<'a>(sets: &[&'a SourceInfo]) -> Result<Key<'a>> {
    let imagenet = |set: &&'a SourceInfo| {
        set.class_map.names()?;
        set.class_map.as_indices()?.get(..set.num_classes)
    };
    if let Some(lists) = sets.iter().map(imagenet).collect() {
        return Ok(Key::Imagenet(lists));
    }
    // Numbers are names only if all sets have them.
    let is_number = |(label, name): (usize, &String)| name.parse() == Ok(label);
    let has_names = |set: &&SourceInfo| {
        set.classes.as_ref().is_some_and(|names| !names.iter().enumerate().all(is_number))
    };
    let named = sets.iter().filter(|set| has_names(set)).count();
    let lists: Option<Vec<&[String]>> = sets.iter().map(|set| set.classes.as_deref()).collect();
    if let Some(lists) = lists
        && (named == 0 || named == sets.len())
    {
        return Ok(Key::Names(lists));
    }
    let (Some(first), None) = (sets.first(), sets.iter().find(|set| has_names(set))) else {
        let with = sets.iter().find(|set| has_names(set)).map(|set| set.path.display().to_string());
        let without = sets.iter().find(|set| !has_names(set)).map(|set| set.path.display().to_string());
        return Err(unmatched(&format!(
            "the classes of {} have names and those of {} have none",
            with.unwrap_or_default(),
            without.unwrap_or_default()
        )));
    };
    match sets.iter().find(|set| set.num_classes != first.num_classes) {
        None => Ok(Key::Numbers),
        Some(other) => Err(unmatched(&format!(
            "{} has {} classes and {} has {}, and they have no names",
            first.path.display(),
            first.num_classes,
            other.path.display(),
            other.num_classes
        ))),
    }
}

fn unmatched(fault: &str) -> Error {
    let way_out = "it is unclear which classes are the same. Pass `classes`: for each set, a list that gives each of its \
                   classes a label in the combined set, as in [[0, 1, 2], [2, 3]]";
    Error::config("sets", format!("{fault}, so {way_out}"))
}

/// The place of each class in the union of all.
fn union<T: Eq + std::hash::Hash + std::fmt::Display>(
    sets: &[&SourceInfo],
    lists: &[&[T]],
) -> Result<Vec<Vec<usize>>> {
    // Equal lists match label by label, even if two classes have one name.
    if lists.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(lists.iter().map(|list| (0..list.len()).collect()).collect());
    }
    let mut places = HashMap::new();
    let mut labels = Vec::with_capacity(lists.len());
    for (set, list) in sets.iter().zip(lists) {
        let mut own = HashMap::new();
        let mut of_set = Vec::with_capacity(list.len());
        for (label, class) in list.iter().enumerate() {
            if let Some(before) = own.insert(class, label) {
                return Err(unmatched(&format!(
                    "labels {before} and {label} of {} are both class {class}",
                    set.path.display()
                )));
            }
            let next = places.len();
            of_set.push(*places.entry(class).or_insert(next));
        }
        labels.push(of_set);
    }
    Ok(labels)
}

/// The combined classes, once the label of each is known.
fn of_labels(sets: &[&SourceInfo], labels: Vec<Vec<usize>>, mut notes: Vec<String>) -> Result<Matched> {
    let count = labels.iter().flatten().max().map_or(0, |most| most + 1);
    let names = sets.iter().any(|set| set.classes.is_some()).then(|| {
        let mut names: Vec<Option<&String>> = vec![None; count];
        for (set, labels) in sets.iter().zip(&labels) {
            for (name, label) in set.classes.iter().flatten().zip(labels) {
                names[*label].get_or_insert(name);
            }
        }
        let name =
            |(label, name): (usize, Option<&String>)| name.cloned().unwrap_or_else(|| label.to_string());
        names.into_iter().enumerate().map(name).collect::<Vec<String>>()
    });
    let name = |label: usize| names.as_ref().map_or_else(|| label.to_string(), |names| names[label].clone());
    let map = class_map(sets, &labels, count, &name)?;
    let mut refined: HashMap<usize, usize> = HashMap::new();
    for (label, class) in map.as_indices().into_iter().flatten().enumerate() {
        if let Some(before) = refined.insert(*class, label) {
            notes.push(format!(
                "classes {} and {} are both class {class} of the refiner: pass `classes` if they are the same class",
                name(before),
                name(label)
            ));
        }
    }
    Ok(Matched { count, names, map, labels, notes })
}

/// The refiner's class for each combined class, from the sets that say it. If no set says any, the combined labels are
/// taken to be the refiner's classes, as the labels of any other set are.
///
/// # Errors
/// [`Error::Config`] for `sets` if two sets contradict each other, or some say it and leave a class open.
fn class_map(
    sets: &[&SourceInfo],
    labels: &[Vec<usize>],
    count: usize,
    name: &dyn Fn(usize) -> String,
) -> Result<ClassMap> {
    // With the set that says it.
    let mut said: Vec<Option<(usize, &SourceInfo)>> = vec![None; count];
    for (set, labels) in sets.iter().zip(labels) {
        for (class, label) in set.class_map.as_indices().into_iter().flatten().zip(labels) {
            match said[*label] {
                Some((before, by)) if before != *class => {
                    let reason = format!(
                        "class {} is class {before} of the refiner in {} and class {class} in {}. Open both sets with \
                         `classes` that agree, or pass `classes` here to keep the two classes apart",
                        name(*label),
                        by.path.display(),
                        set.path.display()
                    );
                    return Err(Error::config("sets", reason));
                }
                Some(_) => {}
                None => said[*label] = Some((*class, set)),
            }
        }
    }
    let Some((_, by)) = said.iter().copied().flatten().next() else { return Ok(ClassMap::identity()) };
    let known: Option<Vec<usize>> = said.iter().map(|said| said.map(|(class, _)| class)).collect();
    let Some(indices) = known else {
        let missing = said.iter().position(Option::is_none).unwrap_or_default();
        let set = sets.iter().zip(labels).find(|(_, labels)| labels.contains(&missing));
        let reason = format!(
            "{} says which classes of the refiner its classes are, but {} does not say it for class {}: open it with \
             `classes`",
            by.path.display(),
            set.map(|(set, _)| set.path.display().to_string()).unwrap_or_default(),
            name(missing)
        );
        return Err(Error::config("sets", reason));
    };
    let speak = sets.iter().filter(|set| set.class_map.as_indices().is_some());
    let is_imagenet = speak.map(|set| set.class_map.names()).all(|names| names.is_some());
    if is_imagenet { ClassMap::imagenet(indices) } else { ClassMap::indices(indices) }
}

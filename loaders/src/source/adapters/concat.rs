//! Several sets as one.
//!
//! [`Joined`](super::Joined) joins the parts of one set, which are alike; here sets may differ.

mod classes;

use super::super::info::{Fact, Format, Right};
use super::super::{Label, LabelKind, Portion, Sample, Source, SourceInfo, ValueSpace};
use super::in_memory;
use crate::wording::counted;
use crate::{Error, Normalize, Result};
use classes::Matched;
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

/// The sets that a path names; of more, their number.
const NAMED: usize = 4;

/// Several sets as one, the samples of one set after those of the other.
///
/// Samples are as their sets store them. So a refined image is found in the cache whether its set is streamed alone or with
/// others, as long as its class is the same class of the refiner in both. Images must have the same size and channels. Sets
/// may differ in:
///
/// - **Classes**: matched by ImageNet's classes if all sets say which they are; else by name; else by number, if no set
///   names its classes and all have equally many. The first set's classes come first, then those that the second adds,
///   and so on. [`with_classes`](Self::with_classes) takes any other match.
/// - **Values**: pixels in one set, normalised in another. Batches are normalised with the first set's constants
///   ([`SourceInfo::normalize`]); values that are stored with other constants are turned into pixels and normalised anew.
///   [`Source::value_space`] has the space of each sample. A whitened set can be combined with whitened sets only.
/// - **Labels**: classes in one set, probabilities in another. Then all labels are probabilities, 0 for classes that the
///   sample's set lacks. A set of logits can be combined only with sets of logits for the same classes, because nothing
///   says what its logits for other classes would be.
///
/// ```
/// use diver_loaders::{Concat, MemorySource, Source};
///
/// let set = |value, label| MemorySource::unit(1, [3, 1, 1], vec![value; 3], vec![label]);
/// let both = Concat::new(vec![Box::new(set(0.0, 1)?), Box::new(set(1.0, 1)?)])?;
/// assert_eq!((both.info().num_samples, both.info().num_classes), (2, 2));
/// // The second set's class 1 is another class than the first set's.
/// let classes = vec![vec![0, 1], vec![2, 3]];
/// let apart = Concat::with_classes(vec![Box::new(set(0.0, 1)?), Box::new(set(1.0, 1)?)], classes)?;
/// assert_eq!((apart.info().num_classes, apart.label(1)?.class()), (4, 3));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct Concat {
    info: SourceInfo,
    parts: Vec<Part>,
    /// Empty if no part has any, and no weights were given.
    portions: Vec<Portion>,
}

#[derive(Debug)]
struct Part {
    source: Box<dyn Source>,
    /// Where its samples begin and end in the combined set.
    start: usize,
    end: usize,
    /// The combined label of each of its own labels; `None` if its labels need no change.
    labels: Option<Vec<usize>>,
}

impl Concat {
    /// The samples of `sets`, one set after the other.
    ///
    /// # Errors
    /// [`Error::Config`] for `sets` if there are none, they differ in size or channels, only some are whitened, only some
    /// have logits, their classes cannot be matched, or a class is a different class of the refiner in two sets.
    pub fn new(sets: Vec<Box<dyn Source>>) -> Result<Self> {
        let infos: Vec<&SourceInfo> = sets.iter().map(|set| set.info()).collect();
        check_images(&infos)?;
        let matched = classes::matched(&infos)?;
        Self::of(sets, matched)
    }

    /// As [`new`](Self::new), with classes matched by hand: class `label` of set `k` has the combined label
    /// `classes[k][label]`. Classes with the same combined label become one class.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Config`] for `classes` if there is not one list for each set with one label for each of
    /// its classes, or the labels do not run from 0 without a gap.
    pub fn with_classes(sets: Vec<Box<dyn Source>>, classes: Vec<Vec<usize>>) -> Result<Self> {
        let infos: Vec<&SourceInfo> = sets.iter().map(|set| set.info()).collect();
        check_images(&infos)?;
        let matched = classes::asked(&infos, classes)?;
        Self::of(sets, matched)
    }

    /// Sets the share of each set in a loader's epoch: `weights[k] / sum(weights)` for set `k` ([`Portion::weighted`]).
    /// Every sample comes at least once in an epoch. The samples of a set come equally often, give or take one; which ones
    /// come once more changes with the epoch. Without weights, each sample comes once.
    ///
    /// ```
    /// use diver_loaders::{Concat, Loader, MemorySource};
    ///
    /// let set = |samples| MemorySource::unit(samples, [1, 1, 1], vec![0.5; samples], vec![0; samples]);
    /// let both = Concat::new(vec![Box::new(set(2)?), Box::new(set(2)?)])?.weights(&[2.0, 1.0])?;
    /// let mut loader = Loader::builder(both).build()?;
    /// let indices: Vec<usize> = loader.iter().flat_map(|batch| batch.unwrap().indices().to_vec()).collect();
    /// assert_eq!(indices, [0, 1, 0, 1, 2, 3]);
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Portion::weighted`]; [`Error::Config`] for `weights` if a set has weights of its own.
    pub fn weights(self, weights: &[f64]) -> Result<Self> {
        if let Some(part) = self.parts.iter().find(|part| !part.source.portions().is_empty()) {
            let reason = format!(
                "{} has weights of its own: combine all sets at once, with one weight for each",
                part.source.info().path.display()
            );
            return Err(Error::config("weights", reason));
        }
        let samples: Vec<usize> = self.parts.iter().map(|part| part.end - part.start).collect();
        Ok(Self { portions: Portion::weighted(&samples, weights)?, ..self })
    }

    fn of(sets: Vec<Box<dyn Source>>, matched: Matched) -> Result<Self> {
        let infos: Vec<&SourceInfo> = sets.iter().map(|set| set.info()).collect();
        let Some(first) = infos.first() else { return Err(no_sets()) };
        let labels = label_kind(&infos, &matched)?;
        let mut notes = matched.notes;
        let mut num_samples = 0_usize;
        for info in &infos {
            num_samples = num_samples.saturating_add(info.num_samples);
            notes.extend(info.notes.iter().map(|note| format!("{}: {note}", info.path.display())));
            if info.normalize != first.normalize && info.value_space != ValueSpace::Whitened {
                notes.push(other_constants(first, info));
            }
        }
        if first.value_space == ValueSpace::Whitened && infos.len() > 1 {
            notes.push(
                "the sets are assumed to be whitened by the same ZCA transform, because it is not stored with them".into(),
            );
        }
        let info = SourceInfo {
            format: Format::Concat,
            method: common(&infos, |info| info.method.clone()),
            path: path(&infos),
            num_samples,
            num_classes: matched.count,
            classes: matched.names,
            class_map: matched.map,
            shape: first.shape,
            labels,
            value_space: common(&infos, |info| Some(info.value_space)).unwrap_or(ValueSpace::Mixed),
            normalize: first.normalize,
            learning_rate: common(&infos, |info| info.learning_rate),
            facts: infos.iter().map(|info| fact(info)).collect(),
            notes,
        };
        let mut start = 0;
        let part = |(source, own): (Box<dyn Source>, Vec<usize>)| {
            let of_part = source.info();
            let is_same = own.iter().enumerate().all(|(label, whole)| label == *whole)
                && of_part.labels == info.labels
                && (info.labels == LabelKind::Hard || own.len() == info.num_classes);
            let end = start + of_part.num_samples;
            let part = Part { start, end, labels: (!is_same).then_some(own), source };
            start = end;
            part
        };
        let parts: Vec<Part> = sets.into_iter().zip(matched.labels).map(part).collect();
        let is_weighted = parts.iter().any(|part| !part.source.portions().is_empty());
        let portions = parts.iter().flat_map(|part| match part.source.portions() {
            [] => vec![Portion { samples: part.end - part.start, places: part.end - part.start }],
            own => own.to_vec(),
        });
        let portions = if is_weighted { portions.collect() } else { Vec::new() };
        Ok(Self { info, parts, portions })
    }

    /// The part with sample `index`.
    fn find(&self, index: usize) -> Result<&Part> {
        let part = self.parts.partition_point(|part| part.end <= index);
        self.parts.get(part).ok_or_else(|| self.info.no_sample(index))
    }

    /// The combined label of sample `index` of `part`, whose label there is `own`.
    fn relabelled(&self, part: &Part, index: usize, own: Label) -> Result<Label> {
        let Some(labels) = &part.labels else { return Ok(own) };
        let beyond =
            || Error::sample(&part.source.info().path, index, "its label is of a class beyond the set's");
        let classes = self.info.num_classes;
        let scattered = |scores: &[f32]| {
            if scores.len() != labels.len() {
                return Err(beyond());
            }
            let mut whole = vec![0.0; classes];
            scores.iter().zip(labels).for_each(|(score, label)| whole[*label] += score);
            Ok(whole)
        };
        Ok(match own {
            Label::Hard(class) => {
                let class = *labels.get(class).ok_or_else(beyond)?;
                match self.info.labels {
                    LabelKind::Hard => Label::Hard(class),
                    _ => Label::Probabilities(Label::Hard(class).target(classes, 1.0)),
                }
            }
            Label::Probabilities(shares) => Label::Probabilities(scattered(&shares)?),
            // Of as many classes, each of which has one place.
            Label::Logits(logits) => Label::Logits(scattered(&logits)?),
        })
    }
}

impl Source for Concat {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        let part = self.find(index)?;
        let own = index - part.start;
        self.relabelled(part, own, part.source.label(own)?)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let part = self.find(index)?;
        let own = index - part.start;
        let sample = part.source.sample(own)?;
        Ok(Sample { label: self.relabelled(part, own, sample.label)?, ..sample })
    }

    fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<()> {
        let part = self.find(index)?;
        let (source, own) = (&part.source, index - part.start);
        if source.info().normalize == self.info.normalize {
            return source.write_normalized(own, out);
        }
        let sample = source.sample(own)?;
        in_memory::write(&self.info, &source.value_space(own), index, sample.pixels.borrow(), out)
    }

    fn value_space(&self, index: usize) -> ValueSpace {
        self.find(index).map_or(self.info.value_space, |part| part.source.value_space(index - part.start))
    }

    fn portions(&self) -> &[Portion] {
        &self.portions
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        let part = self.find(index).ok()?;
        part.source.name(index - part.start)
    }
}

fn no_sets() -> Error {
    Error::config("sets", "there are no sets: give at least one")
}

/// # Errors
/// If images differ in size or channels, or values lead to pixels in some sets only.
fn check_images(sets: &[&SourceInfo]) -> Result<()> {
    let Some((first, others)) = sets.split_first() else { return Err(no_sets()) };
    let [channels, height, width] = first.shape;
    for other in others {
        let (path, before) = (other.path.display(), first.path.display());
        let reason = if other.shape[0] != channels {
            format!(
                "{before} has images of {} and {path} of {}: all sets must have equally many",
                counted(channels, "channel"),
                counted(other.shape[0], "channel")
            )
        } else if other.shape != first.shape {
            format!(
                "{before} has images of {height} x {width} pixels and {path} of {} x {}: all sets must have one size. A \
                 set of image files is brought to a size when it is opened, with `image_size` and `fit` crop",
                other.shape[1], other.shape[2]
            )
        } else if (other.value_space == ValueSpace::Whitened) != (first.value_space == ValueSpace::Whitened) {
            let is_first = first.value_space == ValueSpace::Whitened;
            let (whitened, not) = if is_first { (before, path) } else { (path, before) };
            format!(
                "the values of {whitened} are ZCA-whitened and those of {not} are not, so batches would mix two value \
                 spaces: open {whitened} with `zca`, the file of its transform"
            )
        } else if first.value_space == ValueSpace::Whitened
            && (other.format == Format::Kip) != (first.format == Format::Kip)
        {
            format!(
                "{before} and {path} are whitened in different ways, because only one of the two is of KIP"
            )
        } else {
            continue;
        };
        return Err(Error::config("sets", reason));
    }
    Ok(())
}

/// The kind of label that all labels can be written as.
///
/// # Errors
/// If some are logits and others are not, or logits lack classes.
fn label_kind(sets: &[&SourceInfo], matched: &Matched) -> Result<LabelKind> {
    let with_logits = sets.iter().find(|set| set.labels == LabelKind::Logits);
    let Some(with_logits) = with_logits else {
        let is_hard = sets.iter().all(|set| set.labels == LabelKind::Hard);
        return Ok(if is_hard { LabelKind::Hard } else { LabelKind::Probabilities });
    };
    if let Some(other) = sets.iter().find(|set| set.labels != LabelKind::Logits) {
        let reason = format!(
            "the labels of {} are logits and those of {} are {}: a temperature would change the first kind and not the \
             second, so one loader cannot stream both",
            with_logits.path.display(),
            other.path.display(),
            if other.labels == LabelKind::Hard { "classes" } else { "probabilities" }
        );
        return Err(Error::config("sets", reason));
    }
    for (set, labels) in sets.iter().zip(&matched.labels) {
        let mut has = vec![false; matched.count];
        labels.iter().for_each(|label| has[*label] = true);
        let name =
            |label: usize| matched.names.as_ref().map_or(label.to_string(), |names| names[label].clone());
        let reason = if let Some(missing) = has.iter().position(|has| !has) {
            format!(
                "the labels of {} are logits, with none for class {}, which another set has: sets of logits must have \
                 the same classes",
                set.path.display(),
                name(missing)
            )
        } else if labels.len() > matched.count {
            format!("the labels of {} are logits, and two logits cannot become one", set.path.display())
        } else {
            continue;
        };
        return Err(Error::config("sets", reason));
    }
    Ok(LabelKind::Logits)
}

/// What is the same in all sets.
fn common<T: PartialEq>(sets: &[&SourceInfo], of: impl Fn(&SourceInfo) -> Option<T>) -> Option<T> {
    let first = of(sets.first()?)?;
    sets.iter().all(|set| of(set).as_ref() == Some(&first)).then_some(first)
}

/// What messages call the combined set.
fn path(sets: &[&SourceInfo]) -> PathBuf {
    let mut whole = OsString::new();
    for (number, set) in sets.iter().enumerate() {
        if number == NAMED {
            whole.push(format!(" + {}", counted(sets.len() - NAMED, "set")));
            break;
        }
        if number > 0 {
            whole.push(" + ");
        }
        whole.push(&set.path);
    }
    PathBuf::from(whole)
}

fn fact(set: &SourceInfo) -> Fact {
    let value = format!(
        "{}, {} of {}",
        set.path.display(),
        counted(set.num_samples, "sample"),
        counted(set.num_classes, "class")
    );
    Fact { name: "set", value, right: Right::Option }
}

fn other_constants(first: &SourceInfo, other: &SourceInfo) -> String {
    let said = |Normalize { mean, std }: Normalize| format!("mean {mean:?}, std {std:?}");
    format!(
        "batches are normalised with the constants of the first set, {} ({}); the images of {} are normalised anew, \
         because its own constants differ ({})",
        first.path.display(),
        said(first.normalize),
        other.path.display(),
        said(other.normalize)
    )
}

#[cfg(test)]
mod tests;

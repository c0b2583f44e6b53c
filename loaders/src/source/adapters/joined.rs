//! Several sources as one, one after another.

use super::super::{Label, LabelKind, Sample, Source, SourceInfo, ValueSpace};
use crate::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

/// Sources of the same kind, whose labels are of the same classes.
#[derive(Debug)]
pub struct Joined {
    info: SourceInfo,
    parts: Vec<Box<dyn Source>>,
    /// Where each part ends.
    ends: Vec<usize>,
}

impl Joined {
    /// Joins sources that somebody opened, in the place of the first.
    ///
    /// # Errors
    /// If there are none, or one has images, labels or classes of another kind than the first.
    pub fn of(parts: Vec<Box<dyn Source>>) -> Result<Self> {
        let path = parts.first().map(|first| first.info().path.clone()).unwrap_or_default();
        Self::new(&path, parts)
    }

    /// Joins `parts`, of which there is at least one, as the set at `path`.
    ///
    /// # Errors
    /// If one has images or labels of another kind than the first.
    pub(crate) fn new(path: &Path, parts: Vec<Box<dyn Source>>) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::format(path, "there are no parts of a set"));
        };
        let mut info = SourceInfo { path: path.to_owned(), num_samples: 0, ..first.info().clone() };
        let mut ends = Vec::with_capacity(parts.len());
        for part in &parts {
            let other = part.info();
            let of_first = first.info();
            let widths = |info: &SourceInfo| (info.labels != LabelKind::Hard).then_some(info.num_classes);
            let difference = if other.shape != of_first.shape {
                Some(format!("its images have the shape {:?}, not {:?}", other.shape, of_first.shape))
            } else if (other.labels, widths(other)) != (of_first.labels, widths(of_first)) {
                Some("its labels are of another kind".to_owned())
            } else {
                let is_same =
                    (other.value_space, other.normalize) == (of_first.value_space, of_first.normalize);
                (!is_same).then(|| "its values are others, or are normalised with other constants".to_owned())
            };
            if let Some(difference) = difference {
                let reason =
                    format!("{difference}, unlike those of {}: open each alone", of_first.path.display());
                return Err(Error::format(&other.path, reason));
            }
            // A label must mean the same class in each; a part may lack the last ones.
            let names = other.classes.iter().flatten().zip(info.classes.iter().flatten());
            if let Some((class, (name, before))) = names.enumerate().find(|(_, (a, b))| a != b) {
                let reason = format!(
                    "its class {class} is {name}, but that of {} is {before}: open each alone",
                    of_first.path.display()
                );
                return Err(Error::format(&other.path, reason));
            }
            let maps = other.class_map.as_indices().zip(info.class_map.as_indices());
            if maps.is_some_and(|(a, b)| a.iter().zip(b).any(|(a, b)| a != b)) {
                let reason = format!(
                    "its labels are other classes of the refiner than those of {}: open each alone",
                    of_first.path.display()
                );
                return Err(Error::format(&other.path, reason));
            }
            if other.num_classes > info.num_classes {
                info.classes.clone_from(&other.classes);
                info.class_map.clone_from(&other.class_map);
            }
            info.num_classes = info.num_classes.max(other.num_classes);
            info.num_samples += other.num_samples;
            ends.push(info.num_samples);
            if !part.portions().is_empty() {
                info.notes.push(format!(
                    "the weights of {} are not kept: its samples come once each in an epoch",
                    other.path.display()
                ));
            }
            for note in &other.notes {
                if !info.notes.contains(note) {
                    info.notes.push(note.clone());
                }
            }
        }
        Ok(Self { info, parts, ends })
    }

    /// The part with sample `index`, and its index there.
    fn find(&self, index: usize) -> Result<(&dyn Source, usize)> {
        let part = self.ends.partition_point(|end| *end <= index);
        let source = self.parts.get(part).ok_or_else(|| self.info.no_sample(index))?;
        let first = part.checked_sub(1).map_or(0, |before| self.ends[before]);
        Ok((&**source, index - first))
    }
}

impl Source for Joined {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        let (source, index) = self.find(index)?;
        source.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (source, index) = self.find(index)?;
        source.sample(index)
    }

    fn value_space(&self, index: usize) -> ValueSpace {
        self.find(index).map_or(self.info.value_space, |(source, index)| source.value_space(index))
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        let (source, index) = self.find(index).ok()?;
        source.name(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{MemorySource, conformance};
    use super::*;

    fn part(value: f32, labels: &[usize]) -> Box<dyn Source> {
        let values = (0..labels.len() * 3).map(|i| value + i as f32 / 100.0).collect();
        Box::new(MemorySource::unit(labels.len(), [3, 1, 1], values, labels.to_vec()).unwrap())
    }

    #[test]
    fn parts_follow_each_other() {
        let joined =
            Joined::new(Path::new("x"), vec![part(0.1, &[0, 1]), part(0.2, &[3]), part(0.3, &[2])]).unwrap();
        conformance::check(&joined);
        assert_eq!((joined.info().num_samples, joined.info().num_classes), (4, 4));
        let labels: Vec<usize> = (0..4).map(|i| joined.label(i).unwrap().class()).collect();
        assert_eq!(labels, [0, 1, 3, 2]);
        assert_eq!(joined.sample(2).unwrap(), part(0.2, &[3]).sample(0).unwrap());
    }

    #[test]
    fn parts_of_another_kind_are_refused() {
        let other = MemorySource::unit(1, [3, 1, 2], vec![0.0; 6], vec![0]).unwrap();
        assert!(Joined::new(Path::new("x"), vec![part(0.1, &[0]), Box::new(other)]).is_err());
        assert!(Joined::new(Path::new("x"), vec![]).is_err());
    }
}

//! Some samples of a source, in an order of their own.

use super::super::{Label, Sample, Source, SourceInfo, ValueSpace};
use crate::{Error, Result};
use std::borrow::Cow;

/// The samples of another source at some indices, in their order; an index may come several times.
///
/// ```
/// use diver_loaders::{MemorySource, Source, source::Subset};
///
/// let set = MemorySource::unit(2, [3, 1, 1], vec![0.0, 0.5, 1.0, 1.0, 0.5, 0.0], vec![0, 1])?;
/// let subset = Subset::new(Box::new(set), vec![1])?;
/// assert_eq!(subset.sample(0)?.label.class(), 1);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct Subset {
    info: SourceInfo,
    source: Box<dyn Source>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples of `source` at `indices`.
    ///
    /// # Errors
    /// If there are no indices, or one is of no sample.
    pub fn new(source: Box<dyn Source>, indices: Vec<usize>) -> Result<Self> {
        let info = source.info();
        if let Some(index) = indices.iter().find(|index| **index >= info.num_samples) {
            return Err(info.no_sample(*index));
        }
        if indices.is_empty() {
            return Err(Error::format(&info.path, "the subset has no samples"));
        }
        let mut info = SourceInfo { num_samples: indices.len(), ..info.clone() };
        if !source.portions().is_empty() {
            info.notes.push("a subset has no weights: its samples come once each in an epoch".to_owned());
        }
        Ok(Self { info, source, indices })
    }

    fn find(&self, index: usize) -> Result<usize> {
        self.indices.get(index).copied().ok_or_else(|| self.info.no_sample(index))
    }
}

impl Source for Subset {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.source.label(self.find(index)?)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.source.sample(self.find(index)?)
    }

    fn value_space(&self, index: usize) -> ValueSpace {
        self.indices.get(index).map_or(self.info.value_space, |index| self.source.value_space(*index))
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        self.source.name(*self.indices.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{MemorySource, conformance};
    use super::*;

    #[test]
    fn samples_are_those_at_the_indices() {
        let source = || {
            let values = (0..9).map(|value| value as f32 / 9.0).collect();
            Box::new(MemorySource::unit(3, [3, 1, 1], values, vec![0, 1, 2]).unwrap())
        };
        let subset = Subset::new(source(), vec![2, 0, 2]).unwrap();
        conformance::check(&subset);
        let labels: Vec<usize> = (0..3).map(|index| subset.label(index).unwrap().class()).collect();
        assert_eq!((labels, subset.info().num_classes), (vec![2, 0, 2], 3));
        assert_eq!(subset.sample(1).unwrap(), source().sample(0).unwrap());
        assert!(Subset::new(source(), vec![3]).is_err() && Subset::new(source(), vec![]).is_err());
    }
}

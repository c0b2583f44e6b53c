//! From a dataset's labels to what its refiner is conditioned on.

use crate::{Conditioning, Error, Result};

/// The conditioning of each class of a dataset: position `label` holds the index in the refiner's class table.
///
/// ```
/// use diver_loaders::{ClassMap, Conditioning};
///
/// let imagefruit = ClassMap::indices(vec![953, 954, 949, 950, 951, 957, 952, 945, 943, 948])?;
/// assert_eq!(imagefruit.conditioning(0)?, Conditioning::Class(953));
/// assert_eq!(ClassMap::identity().conditioning(7)?, Conditioning::Class(7));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap(Option<Vec<usize>>);

impl Default for ClassMap {
    fn default() -> Self {
        Self::identity()
    }
}

impl ClassMap {
    /// Labels are the refiner's classes already.
    pub fn identity() -> Self {
        Self(None)
    }

    /// Label `i` is the refiner's class `indices[i]`.
    ///
    /// # Errors
    /// If the list is empty.
    pub fn indices(indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::config("classes", "the list is empty: one index for each class is expected"));
        }
        Ok(Self(Some(indices)))
    }

    /// The conditioning of `label`.
    ///
    /// # Errors
    /// If the map has no such label.
    pub fn conditioning(&self, label: usize) -> Result<Conditioning> {
        match &self.0 {
            None => Ok(Conditioning::Class(label)),
            Some(indices) => indices.get(label).copied().map(Conditioning::Class).ok_or_else(|| {
                let reason = format!("label {label} is beyond the list, which has {} entries", indices.len());
                Error::config("classes", reason)
            }),
        }
    }
}

//! A partition, whatever its rows hold.

use super::compact::Compacted;
use super::listing::{Holds, Listing};
use super::verify::Verified;
use crate::cache::{Cache, Fingerprint, ImageRow, LogitRow, Partition, RowKey};
use crate::{CancelToken, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A partition that is listed, opened.
pub(super) enum AnyPartition {
    Images(Partition<ImageRow>),
    Logits(Partition<LogitRow>),
}

impl AnyPartition {
    /// Opens it; none if its fingerprint is damaged, or another one's.
    pub(super) fn open(cache: &Cache, listing: &Listing) -> Result<Option<Self>> {
        let own =
            listing.fingerprint.as_ref().filter(|json| Fingerprint::new(json).folder_name() == listing.name);
        let Some(fingerprint) = own else { return Ok(None) };
        Ok(Some(match listing.holds {
            Holds::Images => Self::Images(Partition::open(cache, fingerprint)?),
            Holds::Logits => Self::Logits(Partition::open(cache, fingerprint)?),
        }))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Logits(logits) => logits.len(),
        }
    }

    /// How many of these keys it has.
    pub(super) fn count(&self, keys: &BTreeSet<RowKey>) -> usize {
        keys.iter().filter(|key| self.contains(key)).count()
    }

    fn contains(&self, key: &RowKey) -> bool {
        match self {
            Self::Images(images) => images.contains(key),
            Self::Logits(logits) => logits.contains(key),
        }
    }

    pub(super) fn parts(&self) -> Vec<u32> {
        match self {
            Self::Images(images) => images.parts(),
            Self::Logits(logits) => logits.parts(),
        }
    }

    pub(super) fn skipped(&self) -> Vec<PathBuf> {
        match self {
            Self::Images(images) => images.skipped(),
            Self::Logits(logits) => logits.skipped(),
        }
    }

    pub(super) fn verify(&self, number: u32, found: &mut Verified) -> Result<()> {
        match self {
            Self::Images(images) => images.verify(number, found),
            Self::Logits(logits) => logits.verify(number, found),
        }
    }

    pub(super) fn compact(&self, cancel: &CancelToken) -> Result<Compacted> {
        match self {
            Self::Images(images) => images.compact(cancel),
            Self::Logits(logits) => logits.compact(cancel),
        }
    }
}

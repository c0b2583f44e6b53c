//! Reading everything, to see whether it is sound.

use super::any::AnyPartition;
use super::listing::{partitions, summary};
use crate::cache::part;
use crate::cache::partition::FINGERPRINT;
use crate::cache::{Artifact, Cache, Partition};
use crate::{CancelToken, Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// What a check of a cache found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    /// Rows that were decoded, and are what was written.
    pub rows: usize,
    /// Parts in which all are.
    pub parts: usize,
    /// Damaged parts, which are set aside now: their rows will be made again. As JSON, what is not text in their names
    /// is replaced.
    #[serde(serialize_with = "as_texts")]
    pub damaged: Vec<PathBuf>,
    /// What else is wrong, in words.
    pub faults: Vec<String>,
}

fn as_texts<S: serde::Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}

impl Cache {
    /// Decodes every row and compares its digest; damaged parts are set aside. `progress` hears how many parts are done,
    /// and of how many.
    ///
    /// # Errors
    /// If the store cannot be read; [`Error::Cancelled`].
    pub fn verify(&self, cancel: &CancelToken, progress: &dyn Fn(usize, usize)) -> Result<Verified> {
        let mut found = Verified::default();
        let mut opened: Vec<AnyPartition> = Vec::new();
        for folder in partitions(&*self.store)? {
            let place = self.store.place(&format!("{folder}/{FINGERPRINT}"));
            let listing = summary(&*self.store, &folder)?;
            if let Some(partition) = AnyPartition::open(self, &listing)? {
                opened.push(partition);
                continue;
            }
            match listing.fingerprint {
                Some(_) => found
                    .faults
                    .push(format!("{} describes other rows than its folder's name", place.display())),
                None => found
                    .faults
                    .push(format!("{} is missing or damaged: its rows cannot be used", place.display())),
            }
        }
        let parts: Vec<(usize, u32)> = opened
            .iter()
            .enumerate()
            .flat_map(|(at, partition)| partition.parts().into_iter().map(move |number| (at, number)))
            .collect();
        for (done, (at, number)) in parts.iter().enumerate() {
            cancel.check()?;
            progress(done, parts.len());
            opened[*at].verify(*number, &mut found)?;
        }
        progress(parts.len(), parts.len());
        Ok(found)
    }
}

impl<A: Artifact> Partition<A> {
    /// Goes through one part, and sets it aside if it is damaged.
    pub(super) fn verify(&self, number: u32, found: &mut Verified) -> Result<()> {
        let name = self.part_name(number);
        match part::whole::<A>(self.store(), &name) {
            Ok(whole) => {
                found.rows += whole.part.keys.len();
                found.parts += 1;
            }
            Err(error @ Error::Format { .. }) => {
                found.damaged.push(self.store().place(&name));
                self.give_up(number, error)?;
            }
            // Gone meanwhile, or for the reader to wait for.
            Err(error) => self.give_up(number, error)?,
        }
        Ok(())
    }
}

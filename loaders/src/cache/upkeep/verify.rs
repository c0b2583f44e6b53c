//! Reading everything, to see whether it is sound.

use crate::cache::part;
use crate::cache::{Artifact, Partition};
use crate::{Error, Result};
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

impl<A: Artifact> Partition<A> {
    /// Goes through one part, and sets it aside if it is damaged.
    pub(super) fn verify(&self, number: u32, found: &mut Verified) -> Result<()> {
        let name = self.part_name(number);
        match part::sound::<A>(self.store(), &name) {
            Ok(part) => {
                found.rows += part.keys.len();
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

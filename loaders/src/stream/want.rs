//! What a batch holds, sample by sample.

use crate::refine::Refinement;

/// A batch of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) epoch: u64,
    /// The place in the epoch's order, of all ranks, that batch 0 begins at: above 0 where a training went on in the
    /// middle of the epoch.
    pub(super) first: usize,
    pub(super) batch: usize,
}

impl Position {
    /// The first batch of an epoch.
    pub(super) fn start(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }
}

/// One sample of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Want {
    /// Its position in its dataset.
    pub(super) index: usize,
    pub(super) form: Form,
    /// Its place in the epoch's order, of all ranks.
    pub(super) place: usize,
}

/// What a sample comes as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Raw,
    /// The refinement of this number.
    Refined(u32),
    /// So much of that refinement, above 0 and below 1; the rest is raw.
    Blend(u32, f32),
}

impl Want {
    /// The refinement that it takes.
    pub(super) fn refinement(&self) -> Option<Refinement> {
        match self.form {
            Form::Raw => None,
            Form::Refined(variant) | Form::Blend(variant, _) => {
                Some(Refinement { index: self.index, variant })
            }
        }
    }
}

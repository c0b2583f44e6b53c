//! Which of several refinements of a sample comes.

use crate::options::named_enum;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

named_enum! {
    /// Which refinement of a sample comes, where there are several ([`variants`](super::LoaderBuilder::variants)).
    #[derive(Default)]
    Pick, "pick" {
        /// One in an epoch, another in the next, until all have come.
        #[default]
        Turn = "turn",
        /// All of them in every epoch, which is longer by that.
        All = "all",
        /// The one whose class is most probable to the teacher, in every epoch.
        Best = "best",
        /// The one nearest to the raw image, by the mean squared difference of their pixels, in every epoch.
        Nearest = "nearest",
    }
}

impl Pick {
    /// Whether the images decide.
    pub(super) fn is_choice(self) -> bool {
        matches!(self, Self::Best | Self::Nearest)
    }
}

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Chosen(Mutex<HashMap<usize, u32>>);

impl Chosen {
    /// The refinement of sample `index` that is taken, once that is known.
    pub(super) fn get(&self, index: usize) -> Option<u32> {
        self.lock().get(&index).copied()
    }

    pub(super) fn set(&self, index: usize, variant: u32) {
        self.lock().insert(index, variant);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, u32>> {
        // Every update leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

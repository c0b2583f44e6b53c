//! What every format of datasets answers: whether a place holds one of its sets, and if not, how near it came.

use super::options::OpenOptions;
use super::place::Place;
use super::traits::Source;
use crate::Result;

/// A format of datasets. A new one is a file in `formats` and a line in the registry of `detect`.
pub(super) trait Format: Sync {
    /// Its name in messages, by the methods or tools that write it.
    fn name(&self) -> &'static str;

    /// The options of `open` that mean something to it, beside those that mean the same to all.
    fn takes(&self) -> &'static [&'static str];

    /// Whether `place` is one of its sets. Looks at names and first bytes, and reads no images.
    ///
    /// # Errors
    /// If `place` is one, but is damaged or can be read in several ways.
    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>>;
}

/// The answer of a format.
pub(super) enum Probe<'a> {
    /// It is one, opened by this.
    Match(Opener<'a>),
    /// It is one, unless there are sets in its folders.
    Doubtful(Opener<'a>),
    /// It is none.
    Miss(Miss),
}

/// Opens a set that was recognised.
pub(super) type Opener<'a> = Box<dyn FnOnce() -> Result<Box<dyn Source>> + 'a>;

impl<'a> Probe<'a> {
    pub(super) fn matched(open: impl FnOnce() -> Result<Box<dyn Source>> + 'a) -> Self {
        Self::Match(Box::new(open))
    }

    /// Nothing speaks for the format; `lacks` is what would.
    pub(super) fn miss(lacks: impl Into<String>) -> Self {
        Self::Miss(Miss { likeness: 0, reason: lacks.into() })
    }

    /// Something speaks for the format: the more, the higher `likeness`.
    pub(super) fn near(likeness: u8, reason: impl Into<String>) -> Self {
        Self::Miss(Miss { likeness, reason: reason.into() })
    }
}

/// From this likeness on, a format knows the place, and its reason says what to do.
pub(super) const KNOWN: u8 = 3;

/// Why a place is not of a format.
#[derive(Debug)]
pub(super) struct Miss {
    /// How much speaks for it; 0 for nothing.
    pub(super) likeness: u8,
    /// What was found, what lacks, and what to do if that is known.
    pub(super) reason: String,
}

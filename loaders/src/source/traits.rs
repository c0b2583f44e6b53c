//! What a dataset is to everything above it.

use super::adapters;
use super::info::SourceInfo;
use super::portion::Portion;
use super::sample::{Label, Sample, ValueSpace};
use crate::Result;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A dataset of samples that can be read in any order, from several threads at once.
pub trait Source: Send + Sync + fmt::Debug {
    /// What the source is.
    fn info(&self) -> &SourceInfo;

    /// The label of sample `index`, without reading its pixels; its class is below `info().num_classes`.
    ///
    /// # Errors
    /// If there is no such sample.
    fn label(&self, index: usize) -> Result<Label>;

    /// Reads sample `index`, `index < info().num_samples`; its shape is `info().shape`, its values are finite and
    /// its class is below `info().num_classes`.
    ///
    /// # Errors
    /// If the sample cannot be read, with the file and the sample in the message.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// Writes sample `index` as a network is trained on it, planar `[C, H, W]`: its values normalised with
    /// `info().normalize` ([`Sample::into_normalized`]). A source that can do so without a sample in between does.
    ///
    /// # Errors
    /// As [`sample`](Self::sample); if `out` has another number of values.
    fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<()> {
        let (info, space) = (self.info(), self.value_space(index));
        adapters::write(info, &space, index, self.sample(index)?.pixels.borrow(), out)
    }

    /// The space of the stored values of sample `index`: `info().value_space`, unless that is [`ValueSpace::Mixed`].
    fn value_space(&self, index: usize) -> ValueSpace {
        let _ = index;
        self.info().value_space
    }

    /// How many places of a loader's epoch each run of samples takes, in the order of the samples; empty if each sample
    /// comes once in an epoch.
    fn portions(&self) -> &[Portion] {
        &[]
    }

    /// The name of the file that image `index` alone is in, without its folders; `None` where images have no files of
    /// their own. What is not Unicode in it is replaced by U+FFFD. An export keeps such names.
    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        let _ = index;
        None
    }
}

/// What a pointer holds is a source through it.
macro_rules! forwarded {
    ($pointer:ident) => {
        impl<S: Source + ?Sized> Source for $pointer<S> {
            fn info(&self) -> &SourceInfo {
                (**self).info()
            }

            fn label(&self, index: usize) -> Result<Label> {
                (**self).label(index)
            }

            fn sample(&self, index: usize) -> Result<Sample> {
                (**self).sample(index)
            }

            fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<()> {
                (**self).write_normalized(index, out)
            }

            fn value_space(&self, index: usize) -> ValueSpace {
                (**self).value_space(index)
            }

            fn portions(&self) -> &[Portion] {
                (**self).portions()
            }

            fn name(&self, index: usize) -> Option<Cow<'_, str>> {
                (**self).name(index)
            }
        }
    };
}

forwarded!(Box);
forwarded!(Arc);

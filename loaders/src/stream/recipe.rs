//! What a teacher's logits hang on.

use super::stages::{Per, Taught};
use crate::augment::Augment;
use crate::cache::{LogitForm, LogitRow, Partition};
use crate::refine::Dataset;
use crate::teach::{Bank, Logits};
use crate::{Cache, Digest, Refine, Result, Teach};
use serde_json::{Value, json};

/// How a loader has its images labelled by a teacher.
pub(super) struct Recipe<'a> {
    pub(super) per: Per,
    pub(super) form: LogitForm,
    pub(super) augment: &'a Augment,
    pub(super) seed: u64,
    /// Bytes of logits that may stay in memory.
    pub(super) limit: usize,
}

impl Recipe<'_> {
    /// Opens the logits of `teacher` for images of `dataset`, refined by `refiner`.
    ///
    /// # Errors
    /// If the teacher knows another number of classes, or the cache cannot be used.
    pub(super) fn taught(
        &self,
        teacher: &dyn Teach,
        refiner: Option<&dyn Refine>,
        cache: Option<&Cache>,
        dataset: &Dataset,
    ) -> Result<Taught> {
        Logits::check_classes(teacher, dataset.info().num_classes)?;
        let made_by = refiner.map(Refine::fingerprint);
        let disk = match (cache, &made_by) {
            (None, _) => None,
            (Some(cache), Some(None)) => {
                // Nothing tells its images from another refiner's, so what is said of them cannot be found again.
                tracing::warn!(
                    "{}: the refiner has no fingerprint: what a teacher says of its images is kept in memory, and asked \
                     for again in the next run",
                    cache.root().display()
                );
                None
            }
            (Some(cache), _) => self.partition(cache, teacher, dataset)?,
        };
        let refiner = made_by.flatten().map(|fingerprint| fingerprint.to_string());
        Ok(Taught {
            per: self.per,
            bank: Bank::new(disk, self.form, self.limit),
            refiner: Digest::of(refiner.unwrap_or_default().as_bytes()),
        })
    }

    fn partition(
        &self,
        cache: &Cache,
        teacher: &dyn Teach,
        dataset: &Dataset,
    ) -> Result<Option<Partition<LogitRow>>> {
        let Some(fingerprint) = teacher.fingerprint() else {
            tracing::warn!(
                "{}: the teacher has no fingerprint: its logits are kept in memory, and asked for again in the next run",
                cache.root().display()
            );
            return Ok(None);
        };
        let (height, width) = dataset.size();
        let normalize = dataset.normalize();
        let view = match self.per {
            Per::Image => Value::Null,
            Per::View => json!({ "augment": self.augment.recipe(), "seed": self.seed }),
        };
        // Bits, because how JSON prints a number is a feature that any crate of a build can change.
        let fingerprint = json!({
            "teacher": fingerprint,
            "view": view,
            "size": [height, width],
            "mean": normalize.mean.map(f32::to_bits),
            "std": normalize.std.map(f32::to_bits),
            "form": self.form,
        });
        cache.logits(&fingerprint).map(Some)
    }
}

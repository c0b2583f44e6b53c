//! Where a loader stands, to go on from there.

use super::plan::Plan;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The position of a loader with what its order depends on. As JSON the same in Rust and in Python; it does not
/// depend on threads, prefetch, cache or mix, which may all change between save and load. Ranks go through an epoch in
/// step, so one rank's state serves all of them: rank 0 saves, every rank loads.
///
/// ```
/// use diver_loaders::{Loader, LoaderState, MemorySource};
///
/// let set = || MemorySource::unit(4, [1, 1, 1], vec![0.5; 4], vec![0; 4]);
/// let mut loader = Loader::builder(set()?).batch_size(2).build()?;
/// loader.iter().next();
/// let saved = serde_json::to_string(&loader.state())?;
///
/// let mut resumed = Loader::builder(set()?).batch_size(2).build()?;
/// resumed.load_state(&serde_json::from_str(&saved)?)?;
/// assert_eq!(resumed.iter().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Version of this layout, 1.
    pub version: u32,
    /// The epoch of the next batch.
    pub epoch: u64,
    /// The number of the next batch in its epoch; 0 where an epoch has just ended.
    pub batch: usize,
    /// Samples of the dataset.
    pub samples: usize,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Whether the order is shuffled.
    pub shuffle: bool,
    /// Whether a last, smaller batch is left out.
    pub drop_last: bool,
    /// The seed of the order.
    pub seed: u64,
    /// The rank that saved it; any other may load it.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
}

impl LoaderState {
    pub(super) fn new(plan: &Plan, epoch: u64, batch: usize) -> Self {
        Self {
            version: 1,
            epoch,
            batch,
            samples: plan.samples,
            batch_size: plan.batch_size,
            shuffle: plan.shuffle,
            drop_last: plan.drop_last,
            seed: plan.seed,
            rank: plan.rank,
            world: plan.world,
        }
    }

    /// Checks that the state was saved by a loader with the same order as `plan`, of this rank or another.
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let own = Self::new(plan, self.epoch, self.batch);
        let differs = |field, expected: &dyn ToString, found: &dyn ToString| {
            let (expected, found) = (expected.to_string(), found.to_string());
            if expected == found { Ok(()) } else { Err(Error::State { field, expected, found }) }
        };
        differs("version", &own.version, &self.version)?;
        differs("samples", &own.samples, &self.samples)?;
        differs("batch_size", &own.batch_size, &self.batch_size)?;
        differs("shuffle", &own.shuffle, &self.shuffle)?;
        differs("drop_last", &own.drop_last, &self.drop_last)?;
        differs("seed", &own.seed, &self.seed)?;
        differs("world", &own.world, &self.world)?;
        let batches = plan.most_batches();
        if self.batch >= batches {
            let expected = format!("below {batches}");
            return Err(Error::State { field: "batch", expected, found: self.batch.to_string() });
        }
        // Room for every epoch that a loader can come to.
        if self.epoch > u64::MAX / 2 {
            let expected = format!("at most {}", u64::MAX / 2);
            return Err(Error::State { field: "epoch", expected, found: self.epoch.to_string() });
        }
        Ok(())
    }
}

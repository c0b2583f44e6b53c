//! Where a loader stands, to go on from there.

use super::plan::Plan;
use super::want::Position;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The position of a loader with what its order depends on. As JSON the same in Rust and in Python. It does not
/// depend on ranks, samples of a batch, threads, prefetch, cache or mix, which may all change between save and load; where
/// raw and refined samples come beside each other, the share of that epoch may not. Ranks go through an epoch in step, so
/// one rank's state serves all of them: rank 0 saves, every rank loads.
///
/// ```
/// use diver_loaders::{Loader, LoaderState, MemorySource};
///
/// let set = || MemorySource::unit(6, [1, 1, 1], vec![0.5; 6], vec![0; 6]);
/// let mut loader = Loader::builder(set()?).batch_size(2).build()?;
/// loader.iter().next();
/// let saved = serde_json::to_string(&loader.state())?;
///
/// let mut resumed = Loader::builder(set()?).batch_size(4).build()?;
/// resumed.load_state(&serde_json::from_str(&saved)?)?;
/// let indices: Vec<usize> = resumed.iter().flat_map(|batch| batch.unwrap().indices().to_vec()).collect();
/// assert_eq!(indices, [2, 3, 4, 5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Version of this layout, 2.
    pub version: u32,
    /// The epoch of the next batch.
    pub epoch: u64,
    /// How many places of that epoch's order, of all ranks together, have come.
    pub seen: usize,
    /// How many there are.
    pub places: usize,
    /// Samples of the dataset.
    pub samples: usize,
    /// Whether the order is shuffled.
    pub shuffle: bool,
    /// The seed of the order.
    pub seed: u64,
    /// How many places of an epoch are each set's, where several are streamed with
    /// [weights](crate::Concat::weights); empty, and left out of the JSON, where each sample comes once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_places: Vec<usize>,
}

impl LoaderState {
    pub(super) const VERSION: u32 = 2;

    pub(super) fn new(plan: &Plan, next: Position) -> Self {
        Self {
            version: Self::VERSION,
            epoch: next.epoch,
            seen: plan.places_before(next),
            places: plan.places(next.epoch),
            samples: plan.samples,
            shuffle: plan.shuffle,
            seed: plan.seed,
            set_places: set_places(plan),
        }
    }

    /// Checks that the state was saved by a loader with the same order as `plan`, of this rank or another.
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let differs = |field, expected: &dyn ToString, found: &dyn ToString| {
            let (expected, found) = (expected.to_string(), found.to_string());
            if expected == found { Ok(()) } else { Err(Error::State { field, expected, found }) }
        };
        differs("version", &Self::VERSION, &self.version)?;
        differs("samples", &plan.samples, &self.samples)?;
        differs("shuffle", &plan.shuffle, &self.shuffle)?;
        differs("seed", &plan.seed, &self.seed)?;
        let listed = |places: &[usize]| match places {
            [] => "none".to_owned(),
            places => format!("{places:?}"),
        };
        differs("set_places", &listed(&set_places(plan)), &listed(&self.set_places))?;
        // Room for every epoch that a loader can come to.
        if self.epoch > u64::MAX / 2 {
            let expected = format!("at most {}", u64::MAX / 2);
            return Err(Error::State { field: "epoch", expected, found: self.epoch.to_string() });
        }
        // An epoch that has not begun is as long as the loader makes it.
        if self.seen > 0 {
            differs("places", &plan.places(self.epoch), &self.places)?;
        }
        if self.seen > self.places {
            let expected = format!("at most {}", self.places);
            return Err(Error::State { field: "seen", expected, found: self.seen.to_string() });
        }
        Ok(())
    }
}

fn set_places(plan: &Plan) -> Vec<usize> {
    plan.draw.as_ref().map(|draw| draw.places()).unwrap_or_default()
}

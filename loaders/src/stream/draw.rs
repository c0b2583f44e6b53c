//! Which sample each place of an epoch takes, where some come more often than others.

use super::order::Permutation;
use crate::source::Portion;
use crate::{Error, Result};

/// Maps the entries of an epoch to samples, some of which come more often than others.
///
/// A portion with `n` samples and `p` places has `p / n` whole rounds, in which every sample comes, and `p % n` samples
/// that come once more. The latter are taken in turn from a seeded order of the samples: each epoch goes on in that order
/// where the epoch before it stopped.
#[derive(Debug)]
pub(super) struct Draw {
    runs: Vec<Run>,
    entries: usize,
}

#[derive(Debug)]
struct Run {
    portion: Portion,
    /// Its first sample, its first entry, and the entry after its last.
    first: usize,
    start: usize,
    end: usize,
    /// The order in which samples come once more.
    order: Permutation,
}

impl Draw {
    /// The entries of an epoch of a source with so many samples and these portions; none if each comes once.
    ///
    /// # Errors
    /// [`Error::Config`] for `source` if the portions are not of all samples, or too long.
    pub(super) fn new(portions: &[Portion], samples: usize, seed: u64) -> Result<Option<Self>> {
        if portions.iter().all(|portion| portion.places == portion.samples) {
            return Ok(None);
        }
        let (mut runs, mut first, mut entries) = (Vec::with_capacity(portions.len()), 0_usize, 0_usize);
        for (number, portion) in portions.iter().enumerate() {
            let ends = (first.checked_add(portion.samples), entries.checked_add(portion.places));
            let (Some(next), Some(end), 1..) = (ends.0, ends.1, portion.samples) else {
                return Err(Error::config(
                    "source",
                    format!("portion {number}, {portion:?}, is empty or too long"),
                ));
            };
            let order = Permutation::new(portion.samples, "once more", seed, number as u64);
            runs.push(Run { portion: *portion, first, start: entries, end, order });
            (first, entries) = (next, end);
        }
        if first != samples {
            return Err(Error::config("source", format!("its portions are of {first} of {samples} samples")));
        }
        Ok(Some(Self { runs, entries }))
    }

    /// Number of entries of an epoch.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// How many entries are each run's.
    pub(super) fn places(&self) -> Vec<usize> {
        self.runs.iter().map(|run| run.portion.places).collect()
    }

    /// Replaces each of some entries of an epoch, below [`entries`](Self::entries), by its sample.
    pub(super) fn send(&self, epoch: u64, entries: &mut [usize]) {
        // Run, slot, and position in the run's order, of those that come once more. A permutation sends many as fast as one.
        let mut more: Vec<(usize, usize, usize)> = Vec::new();
        for (slot, entry) in entries.iter_mut().enumerate() {
            let number = self.runs.partition_point(|run| run.end <= *entry);
            let Some(run) = self.runs.get(number) else { continue };
            let Portion { samples, places } = run.portion;
            let (at, extra) = (*entry - run.start, places % samples);
            match at.checked_sub(places - extra) {
                None => *entry = run.first + at % samples,
                Some(nth) => {
                    let before = u128::from(epoch) * extra as u128;
                    // Below `samples`.
                    let position = ((before + nth as u128) % samples as u128) as usize;
                    more.push((number, slot, position));
                }
            }
        }
        more.sort_unstable();
        for of_run in more.chunk_by(|a, b| a.0 == b.0) {
            let run = &self.runs[of_run[0].0];
            let mut positions: Vec<usize> = of_run.iter().map(|(_, _, position)| *position).collect();
            run.order.send(&mut positions);
            for ((_, slot, _), position) in of_run.iter().zip(positions) {
                entries[*slot] = run.first + position;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(draw: &Draw, epoch: u64) -> Vec<usize> {
        let mut entries: Vec<usize> = (0..draw.entries()).collect();
        draw.send(epoch, &mut entries);
        entries
    }

    proptest! {
        #[test]
        fn each_sample_comes_its_share_rounded_down_or_up(
            portions in proptest::collection::vec((1_usize..40, 0_usize..120), 1..5), seed: u64, epoch in 0_u64..1 << 60
        ) {
            let portions: Vec<Portion> =
                portions.into_iter().map(|(samples, places)| Portion { samples, places }).collect();
            let total: usize = portions.iter().map(|portion| portion.samples).sum();
            let Some(draw) = Draw::new(&portions, total, seed).unwrap() else { return Ok(()) };
            let drawn = samples(&draw, epoch);
            let mut counts = vec![0; total];
            drawn.iter().for_each(|sample| counts[*sample] += 1);
            let mut rest = &counts[..];
            for Portion { samples, places } in &portions {
                let (own, others) = rest.split_at(*samples);
                prop_assert_eq!(own.iter().sum::<usize>(), *places);
                prop_assert!(own.iter().all(|count| [places / samples, places.div_ceil(*samples)].contains(count)));
                rest = others;
            }
            // One by one, and in another order, as batches ask for them.
            for (entry, sample) in drawn.iter().enumerate().rev() {
                let mut one = [entry];
                draw.send(epoch, &mut one);
                prop_assert_eq!(one[0], *sample);
            }
        }

        #[test]
        fn over_as_many_epochs_as_samples_all_come_equally_often(n in 1_usize..30, places in 1_usize..90, seed: u64, from in 0_u64..1000) {
            let portions = [Portion { samples: n, places }, Portion { samples: 1, places: 2 }];
            let draw = Draw::new(&portions, n + 1, seed).unwrap().unwrap();
            let mut counts = vec![0; n + 1];
            for epoch in from..from + n as u64 {
                samples(&draw, epoch).into_iter().for_each(|sample| counts[sample] += 1);
            }
            prop_assert!(counts[..n].iter().all(|count| *count == places), "{counts:?}");
        }
    }

    #[test]
    fn which_ones_come_once_more_changes_with_the_epoch_and_the_seed() {
        let portions = [Portion { samples: 50, places: 60 }];
        let extra = |seed, epoch| {
            let draw = Draw::new(&portions, 50, seed).unwrap().unwrap();
            samples(&draw, epoch)[50..].to_vec()
        };
        assert_eq!(extra(1, 0), extra(1, 0));
        assert!(extra(1, 0).iter().all(|sample| !extra(1, 1).contains(sample)));
        assert_ne!(extra(1, 0), extra(2, 0));
        // A change would be another order of epochs that are under way.
        assert_eq!(extra(7, 0)[..4], [17, 45, 23, 2]);
    }

    #[test]
    fn portions_must_be_of_all_samples() {
        let portions = [Portion { samples: 2, places: 4 }];
        for samples in [1, 3] {
            assert!(matches!(Draw::new(&portions, samples, 0), Err(Error::Config { option: "source", .. })));
        }
        let empty = [Portion { samples: 0, places: 4 }];
        assert!(matches!(Draw::new(&empty, 0, 0), Err(Error::Config { option: "source", .. })));
        assert!(Draw::new(&[], 5, 0).unwrap().is_none());
        assert!(Draw::new(&[Portion { samples: 5, places: 5 }], 5, 0).unwrap().is_none());
    }
}

//! What the places of an epoch hold: which entry, raw or refined.

use super::order::Permutation;
use crate::options::named_enum;
use std::sync::Arc;

named_enum! {
    /// How raw and refined samples make an epoch.
    #[derive(Default)]
    MixMode, "mode" {
        /// Each sample comes once, raw or refined: the share of the mix is the share of refined ones.
        #[default]
        Replace = "replace",
        /// Each sample comes raw, and a share of them, as large as the mix says, refined as well: the epoch is longer by
        /// that.
        Both = "both",
        /// Each sample comes once, as `(1 - share) * raw + share * refined`, in normalised pixels and in targets.
        Blend = "blend",
    }
}

/// The places of an epoch. The first ones are its entries, once each. Behind them come those of its entries again that
/// come refined, in this mode or in several copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) mode: MixMode,
    pub(super) entries: usize,
    /// How many entries come refined, at most all of them.
    pub(super) refined: usize,
    /// How often each of these comes refined, at least once.
    pub(super) copies: u32,
}

impl Places {
    /// How many copies come among the first places.
    fn first_copies(&self) -> u32 {
        if self.mode == MixMode::Both { 0 } else { 1 }
    }

    /// Number of places.
    pub(super) fn places(&self) -> usize {
        let copies = (self.copies - self.first_copies()) as usize;
        self.entries.saturating_add(self.refined.saturating_mul(copies))
    }

    /// Replaces each of some places by its entry, and says which copy of its refinement comes; none where it comes raw.
    /// `lots` is the lot that each entry draws: those with the lowest come refined, so that exactly as many are as should.
    pub(super) fn resolve(
        &self,
        places: &mut [usize],
        lots: impl FnOnce() -> Arc<Permutation>,
    ) -> Vec<Option<u32>> {
        let Self { entries, refined, .. } = *self;
        let first_copies = self.first_copies();
        let is_first = |place: usize| place < entries;
        // Where all are alike no lots are drawn, which would take longer than everything else.
        let lots = (1..entries).contains(&refined).then(lots);
        let mut lot: Vec<usize> =
            places.iter().map(|place| if is_first(*place) { *place } else { 0 }).collect();
        // Of an entry that comes again its lot is known, and the entry looked for.
        let mut again: Vec<usize> =
            places.iter().map(|place| place.saturating_sub(entries) % refined.max(1)).collect();
        if let Some(lots) = lots {
            if first_copies > 0 {
                lots.send(&mut lot);
            }
            if self.places() > entries {
                lots.fetch(&mut again);
            }
        }
        let resolve = |((place, lot), again): ((&mut usize, usize), usize)| {
            if is_first(*place) {
                return (first_copies > 0 && lot < refined).then_some(0);
            }
            // Below the number of copies.
            let copy = first_copies + ((*place - entries) / refined.max(1)) as u32;
            *place = again;
            Some(copy)
        };
        places.iter_mut().zip(lot).zip(again).map(resolve).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_entry_comes_as_often_as_it_should(
            entries in 1_usize..60, share in 0.0_f64..=1.0, copies in 1_u32..5, seed: u64
        ) {
            let refined = (share * entries as f64).round() as usize;
            for mode in [MixMode::Replace, MixMode::Both] {
                let layout = Places { mode, entries, refined, copies };
                let mut places: Vec<usize> = (0..layout.places()).collect();
                let lots = || Arc::new(Permutation::new(entries, "mix", seed, 0));
                let came = layout.resolve(&mut places, lots);
                // One by one, they are the same.
                for (place, (entry, copy)) in places.iter().zip(&came).enumerate() {
                    let mut one = [place];
                    prop_assert_eq!((&layout.resolve(&mut one, lots)[..], one), (&[*copy][..], [*entry]));
                }
                let mut seen: Vec<Vec<Option<u32>>> = vec![Vec::new(); entries];
                for (entry, copy) in places.into_iter().zip(came) {
                    seen[entry].push(copy);
                }
                seen.iter_mut().for_each(|copies| copies.sort_unstable());
                let all: Vec<Option<u32>> = (0..copies).map(Some).collect();
                let with_raw = [&[None], &all[..]].concat();
                let expected = if mode == MixMode::Both { &with_raw } else { &all };
                prop_assert_eq!(seen.iter().filter(|copies| *copies == expected).count(), refined);
                prop_assert_eq!(seen.iter().filter(|copies| **copies == [None]).count(), entries - refined);
            }
        }
    }
}

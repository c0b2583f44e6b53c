//! What every batch of every epoch holds, computed from its number alone.

use super::Mix;
use super::draw::Draw;
use super::order::{Orders, Permutation};
use super::pick::Pick;
use super::places::{MixMode, Places};
use super::want::{Form, Position, Want};
use crate::kernels::mix_bits;
use crate::options::named_enum;
use crate::refine::Refinement;
use crate::wording::counted;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

named_enum! {
    /// What a rank does where the samples do not divide evenly among the ranks.
    #[derive(Default)]
    Uneven, "uneven" {
        /// The last samples of an epoch's order are left out: all ranks hold equally many.
        Drop = "drop",
        /// The first samples of an epoch's order come again at its end: all ranks hold equally many. Distilled sets are
        /// small, and each of their samples stands for many: none is left out unless that is asked for.
        #[default]
        Pad = "pad",
        /// Every sample comes once: the last ranks hold one sample less, and perhaps one batch less.
        Partial = "partial",
    }
}

/// Epochs of a training, or more.
const EPOCHS: u64 = 1000;

/// The order of samples for every epoch, as one rank sees it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Samples of the dataset.
    pub(super) samples: usize,
    /// Which sample each entry of an epoch is; `None` if the entries are the samples.
    pub(super) draw: Option<Arc<Draw>>,
    pub(super) batch_size: usize,
    pub(super) shuffle: bool,
    pub(super) drop_last: bool,
    pub(super) seed: u64,
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) uneven: Uneven,
    pub(super) mix: Mix,
    pub(super) mode: MixMode,
    /// Refinements of each sample, at least 1, and which of them comes.
    pub(super) variants: u32,
    pub(super) pick: Pick,
    pub(super) orders: Orders,
}

impl Plan {
    /// Checks that the parts agree.
    pub(super) fn validated(self) -> Result<Self> {
        if self.world == 0 || self.rank >= self.world {
            let reason =
                format!("{} of {}: ranks run from 0 to one less than their number", self.rank, self.world);
            return Err(Error::config("rank", reason));
        }
        // No epoch has fewer places.
        let here = self.share_of(self.entries());
        if here == 0 {
            let reason = format!(
                "of {}, none is left for rank {} of {}: take fewer ranks, or let `uneven` be pad",
                counted(self.entries(), "sample"),
                self.rank,
                self.world
            );
            return Err(Error::config("rank", reason));
        }
        if self.batches_of(here) == 0 {
            let reason = format!(
                "there is no batch of {3} in {0} on rank {1} of {2}: lower the batch size or keep the last batch",
                counted(here, "sample"),
                self.rank,
                self.world,
                self.batch_size
            );
            return Err(Error::config("batch_size", reason));
        }
        Ok(self)
    }

    /// Entries of an epoch, each of which is a sample: as many as there are samples, unless some come more often.
    pub(super) fn entries(&self) -> usize {
        self.draw.as_ref().map_or(self.samples, |draw| draw.entries())
    }

    /// Places in the order of an epoch, of all ranks together.
    pub(super) fn places(&self, epoch: u64) -> usize {
        self.layout(epoch).places()
    }

    fn layout(&self, epoch: u64) -> Places {
        let (entries, share) = (self.entries(), self.mix.share(epoch));
        let refined = match self.mode {
            MixMode::Replace | MixMode::Both => (share * entries as f64).round() as usize,
            // All alike.
            MixMode::Blend if share > 0.0 => entries,
            MixMode::Blend => 0,
        };
        let copies = if self.pick == Pick::All { self.variants } else { 1 };
        Places { mode: self.mode, entries, refined, copies }
    }

    /// This rank's share of so many places.
    fn share_of(&self, places: usize) -> usize {
        match self.uneven {
            Uneven::Drop => places / self.world,
            Uneven::Pad => places.div_ceil(self.world),
            Uneven::Partial => places.saturating_sub(self.rank).div_ceil(self.world),
        }
    }

    fn batches_of(&self, samples: usize) -> usize {
        if self.drop_last { samples / self.batch_size } else { samples.div_ceil(self.batch_size) }
    }

    /// Samples of this rank in an epoch, from place `first` of its order on.
    fn samples_here(&self, epoch: u64, first: usize) -> usize {
        self.share_of(self.places(epoch).saturating_sub(first))
    }

    /// How many samples of how many no rank holds, as they do not divide among the ranks, in the first epoch in which that
    /// is so. Looks as far as a schedule of the mix is likely to reach.
    pub(super) fn left_out(&self) -> Option<(usize, usize)> {
        let places = (0..EPOCHS).filter(|_| self.uneven == Uneven::Drop).map(|epoch| self.places(epoch));
        places.map(|places| (places % self.world, places)).find(|(left, _)| *left > 0)
    }

    /// Batches of this rank in an epoch, from place `first` of its order on.
    pub(super) fn batches(&self, epoch: u64, first: usize) -> usize {
        self.batches_of(self.samples_here(epoch, first))
    }

    /// The batch that comes next.
    pub(super) fn after(&self, position: Position) -> Position {
        if position.batch + 1 < self.batches(position.epoch, position.first) {
            Position { batch: position.batch + 1, ..position }
        } else {
            Position::start(position.epoch.saturating_add(1))
        }
    }

    /// How many places of the epoch's order, of all ranks together, come before a batch.
    pub(super) fn places_before(&self, position: Position) -> usize {
        let before = position.batch.saturating_mul(self.batch_size).saturating_mul(self.world);
        position.first.saturating_add(before).min(self.places(position.epoch))
    }

    /// The refinements that may be asked for in some epoch, each once.
    pub(super) fn refined_ever(&self) -> Vec<Refinement> {
        let all = |indices: &mut dyn Iterator<Item = usize>| {
            let each = |index| (0..self.variants).map(move |variant| Refinement { index, variant });
            indices.flat_map(each).collect()
        };
        if self.mix.is_raw() {
            return Vec::new();
        }
        // Which samples come once more changes with the epoch.
        if self.shuffle || self.mode == MixMode::Both || self.draw.is_some() {
            return all(&mut (0..self.samples));
        }
        let batches = (0..self.batches(0, 0)).map(|batch| Position { batch, ..Position::default() });
        let indices: BTreeSet<usize> =
            batches.flat_map(|position| self.wants(position)).map(|want| want.index).collect();
        all(&mut indices.into_iter())
    }

    /// The samples of a batch.
    pub(super) fn wants(&self, position: Position) -> Vec<Want> {
        let Position { epoch, first, batch } = position;
        let total = self.places(epoch);
        let from = batch * self.batch_size;
        let places: Vec<usize> = (from..self.samples_here(epoch, first).min(from + self.batch_size))
            .map(|number| (first + number * self.world + self.rank) % total)
            .collect();
        let mut order = places.clone();
        if self.shuffle {
            self.orders.get(total, "order", self.seed, epoch).send(&mut order);
        }
        let copies = self.layout(epoch).resolve(&mut order, || self.lots(epoch));
        if let Some(draw) = &self.draw {
            draw.send(epoch, &mut order);
        }
        let want = |((place, index), copy): ((usize, usize), Option<u32>)| {
            let form = copy.map_or(Form::Raw, |copy| self.form(epoch, index, copy));
            Want { index, form, place }
        };
        places.into_iter().zip(order).zip(copies).map(want).collect()
    }

    /// What comes of an entry that does not come raw.
    fn form(&self, epoch: u64, index: usize, copy: u32) -> Form {
        let variant = match self.pick {
            Pick::Turn => self.variant(epoch, index),
            Pick::All => copy,
            // Any of them, until it is chosen.
            Pick::Best | Pick::Nearest => 0,
        };
        match (self.mode, self.mix.share(epoch)) {
            (MixMode::Blend, share) if share < 1.0 => Form::Blend(variant, share as f32),
            _ => Form::Refined(variant),
        }
    }

    /// The refinements that a sample of a batch takes, or that are chosen from.
    pub(super) fn refinements(&self, want: &Want) -> impl Iterator<Item = Refinement> + use<> {
        let (index, one) = (want.index, want.refinement().map(|refinement| refinement.variant));
        let variants = match one {
            None => 0..0,
            Some(_) if self.pick.is_choice() => 0..self.variants,
            Some(variant) => variant..variant + 1,
        };
        variants.map(move |variant| Refinement { index, variant })
    }

    /// The lot that each entry draws in an epoch.
    fn lots(&self, epoch: u64) -> Arc<Permutation> {
        self.orders.get(self.entries(), "mix", self.seed, epoch)
    }

    /// Which refinement of a sample comes in an epoch: each comes once in as many epochs as there are, beginning with any.
    fn variant(&self, epoch: u64, index: usize) -> u32 {
        let variants = u64::from(self.variants);
        if variants == 1 {
            return 0;
        }
        let start = mix_bits(self.seed ^ mix_bits((index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15)));
        // Below `variants`.
        ((start % variants + epoch % variants) % variants) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(samples: usize, batch_size: usize, world: usize, uneven: Uneven) -> Plan {
        Plan {
            samples,
            draw: None,
            batch_size,
            shuffle: true,
            drop_last: false,
            seed: 3,
            rank: 0,
            world,
            uneven,
            mix: Mix::constant(0.0).unwrap(),
            mode: MixMode::Replace,
            variants: 1,
            pick: Pick::Turn,
            orders: Orders::default(),
        }
    }

    fn wants(plan: &Plan, epoch: u64) -> Vec<Want> {
        wants_from(plan, epoch, 0)
    }

    fn wants_from(plan: &Plan, epoch: u64, first: usize) -> Vec<Want> {
        let position = |batch| Position { epoch, first, batch };
        (0..plan.batches(epoch, first)).flat_map(|batch| plan.wants(position(batch))).collect()
    }

    fn indices(plan: &Plan, epoch: u64) -> Vec<usize> {
        wants(plan, epoch).into_iter().map(|want| want.index).collect()
    }

    proptest! {
        #[test]
        fn ranks_share_an_epoch_out(samples in 1_usize..200, batch in 1_usize..20, world in 1_usize..7, epoch in 0_u64..5) {
            for uneven in [Uneven::Drop, Uneven::Pad, Uneven::Partial] {
                let mut counts = vec![0; samples];
                let mut lengths = Vec::new();
                let mut left_out = 0;
                for rank in 0..world {
                    let plan = Plan { rank, ..plan(samples, batch, world, uneven) };
                    let mine = indices(&plan, epoch);
                    prop_assert_eq!(mine.len(), plan.samples_here(epoch, 0));
                    left_out = plan.left_out().map_or(0, |(left, _)| left);
                    lengths.push(plan.batches(epoch, 0));
                    for index in mine { counts[index] += 1; }
                }
                prop_assert_eq!(counts.iter().filter(|c| **c == 0).count(), left_out);
                match uneven {
                    Uneven::Drop => prop_assert!(counts.iter().all(|c| *c <= 1)),
                    Uneven::Pad => prop_assert!(counts.iter().all(|c| *c >= 1)),
                    Uneven::Partial => prop_assert!(counts.iter().all(|c| *c == 1)),
                }
                if uneven != Uneven::Partial {
                    prop_assert!(lengths.iter().all(|l| *l == lengths[0]));
                }
            }
        }

        #[test]
        fn without_shuffling_the_same_samples_come_in_every_epoch(
            samples in 1_usize..60, batch in 1_usize..9, rank in 0_usize..4, drop_last: bool, epoch in 0_u64..5
        ) {
            for uneven in [Uneven::Drop, Uneven::Pad, Uneven::Partial] {
                let raw = Plan { rank, shuffle: false, drop_last, ..plan(samples, batch, 4, uneven) };
                prop_assert!(raw.refined_ever().is_empty());
                let refined = Plan { mix: Mix::constant(1.0).unwrap(), ..raw };
                let here: BTreeSet<usize> = indices(&refined, epoch).into_iter().collect();
                let ever = refined.refined_ever();
                prop_assert_eq!(ever.len(), here.len());
                prop_assert!(ever.iter().all(|refinement| here.contains(&refinement.index)));
            }
        }

        #[test]
        fn exactly_the_share_is_refined(samples in 1_usize..300, share in 0.0_f64..=1.0, shuffle: bool) {
            let mix = Mix::constant(share).unwrap();
            let replace = Plan { mix, shuffle, ..plan(samples, 7, 1, Uneven::Drop) };
            let expected = (share * samples as f64).round() as usize;
            let is_refined = |want: &Want| want.form != Form::Raw;
            prop_assert_eq!(wants(&replace, 1).iter().filter(|want| is_refined(want)).count(), expected);

            let both = wants(&Plan { mode: MixMode::Both, ..replace.clone() }, 1);
            prop_assert_eq!(both.len(), samples + expected);
            let (refined, raw): (Vec<&Want>, Vec<&Want>) = both.iter().partition(|want| is_refined(want));
            for (wants, count) in [(raw, samples), (refined, expected)] {
                let mut indices: Vec<_> = wants.iter().map(|want| want.index).collect();
                indices.sort_unstable();
                indices.dedup();
                prop_assert_eq!(indices.len(), count, "each once");
            }
        }

        /// The places of an epoch are seen once, whoever goes on in the middle of it.
        #[test]
        fn an_epoch_goes_on_with_other_ranks_and_batches(
            samples in 1_usize..120, seen in 0_usize..5, before in 1_usize..9, worlds in (1_usize..5, 1_usize..5), after in 1_usize..9
        ) {
            let old = plan(samples, before, worlds.0, Uneven::Partial);
            let stop = Position { batch: seen, ..Position::start(2) };
            let mut places = Vec::new();
            for rank in 0..worlds.0 {
                let old = Plan { rank, ..old.clone() };
                let batches = old.batches(2, 0).min(seen);
                let position = |batch| Position { batch, ..stop };
                places.extend((0..batches).flat_map(|batch| old.wants(position(batch))).map(|want| want.place));
            }
            let first = old.places_before(stop);
            for rank in 0..worlds.1 {
                let new = Plan { rank, ..plan(samples, after, worlds.1, Uneven::Partial) };
                places.extend(wants_from(&new, 2, first).into_iter().map(|want| want.place));
            }
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..samples));
        }

        #[test]
        fn every_variant_comes_once_in_as_many_epochs(index in 0_usize..1000, seed: u64, variants in 1_u32..9, from in 0_u64..40) {
            let plan = Plan { seed, variants, ..plan(1000, 1, 1, Uneven::Drop) };
            let mut seen: Vec<u32> =
                (from..from + u64::from(variants)).map(|epoch| plan.variant(epoch, index)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..variants));
        }
    }

    #[test]
    fn blends_are_pure_at_both_ends() {
        let mix = Mix::linear(0.0, 1.0, 3).unwrap();
        let plan = Plan { mix, mode: MixMode::Blend, ..plan(4, 4, 1, Uneven::Drop) };
        let form = |epoch| wants(&plan, epoch)[0].form;
        assert_eq!([0, 1, 2].map(form), [Form::Raw, Form::Blend(0, 0.5), Form::Refined(0)]);
    }

    #[test]
    fn the_epoch_of_both_grows_with_the_share() {
        let mix = Mix::linear(0.0, 1.0, 3).unwrap();
        let plan = Plan { mix, mode: MixMode::Both, ..plan(4, 3, 1, Uneven::Drop) };
        assert_eq!([0, 1, 2].map(|epoch| plan.batches(epoch, 0)), [2, 2, 3]);
        let end = Position { batch: 1, ..Position::start(1) };
        assert_eq!(plan.after(end), Position::start(2));
        // In order, all of them come twice.
        let in_order = Plan { shuffle: false, ..plan };
        assert_eq!(indices(&in_order, 2), [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let a = plan(100, 10, 1, Uneven::Drop);
        let b = Plan { seed: 4, orders: Orders::default(), ..a.clone() };
        assert_ne!(indices(&a, 0), indices(&a, 1));
        assert_ne!(indices(&a, 0), indices(&b, 0));
        assert_eq!(indices(&a, 1), indices(&a, 1));
        let in_order = Plan { shuffle: false, ..a };
        assert_eq!(indices(&in_order, 5), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(Plan { rank: 2, ..plan(5, 1, 2, Uneven::Drop) }.validated().is_err());
        assert!(Plan { drop_last: true, ..plan(5, 6, 1, Uneven::Drop) }.validated().is_err());
        assert!(plan(2, 1, 3, Uneven::Drop).validated().is_err());
    }
}

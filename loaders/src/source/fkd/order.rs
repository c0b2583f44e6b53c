//! The order in which torch's `RandomSampler` drew images when the soft labels were made.

use rand_mt::Mt;

/// How the images of a batch are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By indices in the files.
    Stored,
    /// By the sampler.
    Drawn(Draws),
}

/// How many permutations the sampler draws for each epoch; the first of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draws {
    /// Older torch.
    One,
    /// torch 1.12 and later.
    Two,
}

impl Draws {
    /// The permutation of `samples` images in `epoch`.
    pub(super) fn permutation(self, seed: u32, samples: usize, epoch: usize) -> Vec<usize> {
        let before = match self {
            Self::One => epoch,
            Self::Two => 2 * epoch,
        };
        let mut random = Mt::new(seed);
        let draws = samples.saturating_sub(1);
        for _ in 0..before.saturating_mul(draws) {
            random.next_u32();
        }
        // As `torch.randperm` on the CPU.
        let mut permutation: Vec<usize> = (0..samples).collect();
        for place in 0..draws {
            let other = place + random.next_u32() as usize % (samples - place);
            permutation.swap(place, other);
        }
        permutation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_torchs() {
        // torch.randperm(1000, generator=torch.Generator().manual_seed(42)), its second and its third call.
        let first = Draws::One.permutation(42, 1000, 0);
        assert_eq!(first[..6], [542, 618, 816, 68, 94, 215]);
        assert_eq!(Draws::Two.permutation(42, 1000, 0), first);
        assert_eq!(Draws::Two.permutation(42, 1000, 1), Draws::One.permutation(42, 1000, 2));
        assert_ne!(Draws::Two.permutation(42, 1000, 1), Draws::One.permutation(42, 1000, 1));
        let mut sorted = first;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!((Draws::One.permutation(42, 0, 3), Draws::Two.permutation(42, 1, 3)), (vec![], vec![0]));
    }
}

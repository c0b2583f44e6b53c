//! The identity of one refined image within a fingerprint.

use crate::refine::{Conditioning, NoiseKey};
use crate::{Digest, ValueSpace};
use serde::{Deserialize, Serialize};

/// The key of a cached row: the stored bytes, the recipe that turns them into pixels, the conditioning and the
/// variant. Neither path nor time nor position nor seed of a shuffle: a set that moves, or a subset of it, finds
/// its refined images again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey(Digest);

impl RowKey {
    /// The key of the sample with noise key `noise`, stored in `space`, refined under `conditioning`.
    pub fn new(noise: &NoiseKey, space: &ValueSpace, conditioning: &Conditioning) -> Self {
        // Bits, because how JSON prints a number is a feature that any crate of a build can change.
        let space = match space {
            ValueSpace::Unit => serde_json::json!("unit"),
            // No such sample is refined, but each has a key.
            ValueSpace::Whitened => serde_json::json!("whitened"),
            ValueSpace::Mixed => serde_json::json!("mixed"),
            ValueSpace::Normalized(constants) => serde_json::json!({
                "mean": constants.mean.map(f32::to_bits),
                "std": constants.std.map(f32::to_bits),
            }),
        };
        let recipe = serde_json::json!({
            "content": noise.content,
            "variant": noise.variant,
            "space": space,
            "clamp": [0, 1],
            "conditioning": conditioning,
        });
        Self(super::Fingerprint::new(&recipe).digest())
    }

    /// The key's hash.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl From<Digest> for RowKey {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Normalize;

    #[test]
    fn every_part_of_the_identity_changes_the_key() {
        let noise = NoiseKey { content: Digest::of(b"a"), variant: 0 };
        let class = Conditioning::Class(3);
        let base = RowKey::new(&noise, &ValueSpace::Unit, &class);
        let normalized = ValueSpace::Normalized(Normalize::IMAGENET);
        let others = [
            RowKey::new(&NoiseKey { content: Digest::of(b"b"), ..noise }, &ValueSpace::Unit, &class),
            RowKey::new(&NoiseKey { variant: 1, ..noise }, &ValueSpace::Unit, &class),
            RowKey::new(&noise, &normalized, &class),
            RowKey::new(&noise, &ValueSpace::Unit, &Conditioning::Class(4)),
            RowKey::new(&noise, &ValueSpace::Unit, &Conditioning::Prompt("3".into())),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(base, RowKey::new(&noise, &ValueSpace::Unit, &class));
    }

    /// A change of the key's recipe would orphan every cache in the world: it must be a decision.
    #[test]
    fn keys_are_stable_across_versions() {
        let noise = NoiseKey { content: Digest::of(b"diver"), variant: 2 };
        let key = RowKey::new(&noise, &ValueSpace::Normalized(Normalize::IMAGENET), &Conditioning::Class(7));
        assert_eq!(
            key.digest().to_string(),
            "de40560f5b2960b1c041c0d2e260e970e985aff49c188e08b9ac16ed28bfc75c"
        );
    }
}

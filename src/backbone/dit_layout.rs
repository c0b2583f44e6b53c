//! The two ways in which files name a DiT's weights.

use super::layers::Linear;
use super::weights::{Place, Weights};
use crate::Result;

/// Names inside a block: the DiT repository's, diffusers'.
const BLOCK: [(&str, &str); 4] = [
    ("attn.proj", "attn1.to_out.0"),
    ("mlp.fc1", "ff.net.0.proj"),
    ("mlp.fc2", "ff.net.2"),
    ("adaLN_modulation.1", "norm1.linear"),
];

/// Names outside the blocks. diffusers gives every block a copy of the embedders; the first block's are read.
const TOP: [(&str, &str); 6] = [
    ("x_embedder.proj", "pos_embed.proj"),
    ("final_layer.adaLN_modulation.1", "proj_out_1"),
    ("final_layer.linear", "proj_out_2"),
    ("t_embedder.mlp.0", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1"),
    ("t_embedder.mlp.2", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2"),
    (
        "y_embedder.embedding_table.weight",
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
    ),
];

/// What every diffusers block holds a copy of.
const COPIED: [&str; 5] = [
    "timestep_embedder.linear_1.weight",
    "timestep_embedder.linear_1.bias",
    "timestep_embedder.linear_2.weight",
    "timestep_embedder.linear_2.bias",
    "class_embedder.embedding_table.weight",
];

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// facebookresearch/DiT.
    Official,
    /// diffusers' `DiTTransformer2DModel`.
    Diffusers,
}

impl Layout {
    pub(super) fn of(weights: &Weights) -> Self {
        if weights.contains("x_embedder.proj.weight") { Self::Official } else { Self::Diffusers }
    }

    /// What the file calls the tensor or layer with this official name.
    pub(super) fn name(self, official: &str) -> String {
        if self == Self::Official {
            return official.to_owned();
        }
        let of_block = official.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
        let known = |table: &[(&str, &str)], name: &str| {
            table.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| (*ours).to_owned())
        };
        match of_block {
            Some((block, part)) => {
                let part = known(&BLOCK, part).unwrap_or_else(|| part.to_owned());
                format!("transformer_blocks.{block}.{part}")
            }
            None => known(&TOP, official).unwrap_or_else(|| official.to_owned()),
        }
    }

    /// The joint query, key and value projection of a block, which diffusers keeps in three.
    pub(super) fn take_qkv(self, w: &mut Weights, block: i64, hidden: i64, place: Place) -> Result<Linear> {
        match self {
            Self::Official => Linear::take(w, &format!("blocks.{block}.attn.qkv"), 3 * hidden, hidden, place),
            Self::Diffusers => {
                let name = |part| (format!("transformer_blocks.{block}.attn1.{part}"), hidden);
                Linear::take_stacked(w, &["to_q", "to_k", "to_v"].map(name), hidden, place)
            }
        }
    }

    /// Takes the embedders' copies out of all blocks but the first.
    pub(super) fn drop_embedder_copies(self, w: &mut Weights, depth: i64) -> Result<()> {
        if self == Self::Diffusers {
            for part in COPIED {
                let of = |block: i64| format!("transformer_blocks.{block}.norm1.emb.{part}");
                w.drop_copies(&of(0), (1..depth).map(of))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn names_follow_the_layout() {
        assert_eq!(Layout::Diffusers.name("blocks.11.mlp.fc2"), "transformer_blocks.11.ff.net.2");
        assert_eq!(Layout::Diffusers.name("final_layer.linear"), "proj_out_2");
        assert_eq!(Layout::Official.name("blocks.11.mlp.fc2"), "blocks.11.mlp.fc2");
    }
}

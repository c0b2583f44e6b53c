//! The checkpoints of the DiT and SiT repositories: one file of weights, whose names and shapes tell the sizes.

use super::config::DitConfig;
use super::weights::Weights;
use crate::{Error, Family, Result};
use std::path::Path;

/// Attention heads of the published sizes (S, B, L and XL of both repositories), by the width of a token: no weight
/// tells them.
const HEADS: [(i64, i64); 4] = [(384, 6), (768, 12), (1024, 16), (1152, 16)];

/// Classes of ImageNet-1K, which the published networks know beside the null class.
const IMAGENET: i64 = 1000;

/// Whether a file is a DiT's or a SiT's, whose weights have the same names and shapes: by its name.
///
/// # Errors
/// If the name says neither, or both.
pub(super) fn family_of(path: &Path) -> Result<Family> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    let says = |family: &str| name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == family);
    match (says("dit"), says("sit")) {
        (true, false) => Ok(Family::Dit),
        (false, true) => Ok(Family::Sit),
        _ => {
            let reason = "the weights of a DiT and a SiT look the same, and the file's name does not say which these \
                          are: set `model` to dit or sit";
            Err(Error::file(path, reason))
        }
    }
}

/// The sizes of the network that the weights are of. The last row of its table of labels is taken for the null class of
/// classifier-free guidance, which no weight tells: both repositories train with one.
///
/// # Errors
/// If they are not those of a DiT or SiT with its repository's names, or of a width whose number of heads is unknown.
pub(super) fn config_of(weights: &Weights, heads: Option<i64>) -> Result<DitConfig> {
    let refused = |reason: String| Error::file(weights.path(), reason);
    let not_one = |name: &str, what: &str| {
        format!("{what} `{name}`: not the weights of a DiT or SiT under its repository's names")
    };
    let shape = |name: &str, dimensions: usize| match weights.shape(name) {
        Some(shape) if shape.len() == dimensions && shape.iter().all(|side| *side > 0) => Ok(shape),
        Some(shape) => Err(refused(not_one(name, &format!("shape {shape:?} of")))),
        None => Err(refused(not_one(name, "there is no"))),
    };
    let patches = shape("x_embedder.proj.weight", 4)?;
    let (hidden, in_channels, patch_size) = (patches[0], patches[1], patches[2]);
    let tokens = shape("pos_embed", 3)?[1];
    let classes = shape("y_embedder.embedding_table.weight", 2)?[0] - 1;
    if classes + 1 == IMAGENET {
        tracing::warn!(
            "{}: a table of {IMAGENET} labels, the last of which is taken for the null class; if these are ImageNet's, the \
             network was trained without one (class_dropout_prob 0), and cannot be guided",
            weights.path().display()
        );
    }
    let outputs = shape("final_layer.linear.weight", 2)?[0];
    let depth = weights.count("blocks.", ".attn.qkv.weight");

    let grid = (tokens as f64).sqrt().round() as i64;
    if grid * grid != tokens {
        return Err(refused(format!("`pos_embed` is of {tokens} tokens, which make no square")));
    }
    let known = HEADS.into_iter().find(|(width, _)| *width == hidden).map(|(_, heads)| heads);
    let Some(heads) = heads.or(known) else {
        let reason = "as in none of the published sizes: set `num_heads`, which no weight tells";
        return Err(refused(format!("tokens are {hidden} wide, {reason}")));
    };
    if heads < 1 || hidden % heads != 0 {
        return Err(Error::knob("num_heads", format!("{heads} do not divide a width of {hidden}")));
    }
    let config = serde_json::json!({
        "num_attention_heads": heads,
        "attention_head_dim": hidden / heads,
        "in_channels": in_channels,
        "out_channels": outputs / (patch_size * patch_size),
        "num_layers": depth,
        "sample_size": grid * patch_size,
        "patch_size": patch_size,
        "num_embeds_ada_norm": classes,
    });
    serde_json::from_value(config).map_err(|error| Error::file(weights.path(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    fn weights(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> Weights {
        let zeros =
            |name: &str, shape: &[i64]| (name.to_owned(), Tensor::zeros(shape, (Kind::Int8, Device::Cpu)));
        let mut tensors = vec![
            zeros("x_embedder.proj.weight", &[1152, 4, 2, 2]),
            zeros("pos_embed", &[1, 256, 1152]),
            zeros("y_embedder.embedding_table.weight", &[1001, 1152]),
            zeros("final_layer.linear.weight", &[32, 1152]),
            zeros("blocks.0.attn.qkv.weight", &[1]),
            zeros("blocks.1.attn.qkv.weight", &[1]),
        ];
        change(&mut tensors);
        Weights::from_tensors("x.pt", tensors)
    }

    #[test]
    fn shapes_tell_the_sizes() {
        let config = config_of(&weights(|_| {}), None).unwrap();
        assert_eq!((config.hidden(), config.tokens(), config.out(), config.num_layers), (1152, 256, 8, 2));
        assert_eq!((config.num_attention_heads, config.num_embeds_ada_norm), (16, 1000));
    }

    #[test]
    fn what_they_do_not_tell_is_asked_for() {
        let refused = |weights: Weights, heads| config_of(&weights, heads).unwrap_err().to_string();
        let text = refused(weights(|tensors| drop(tensors.remove(1))), None);
        assert!(text.starts_with("x.pt: there is no `pos_embed`: not the weights of a DiT or SiT"), "{text}");
        let narrow = || {
            weights(|tensors| {
                tensors[0].1 = Tensor::zeros([32, 4, 2, 2], (Kind::Int8, Device::Cpu));
            })
        };
        assert!(
            refused(narrow(), None).contains("32 wide, as in none of the published sizes: set `num_heads`")
        );
        assert_eq!(refused(narrow(), Some(5)), "num_heads: 5 do not divide a width of 32");
        assert_eq!(config_of(&narrow(), Some(4)).unwrap().attention_head_dim, 8);
    }

    #[test]
    fn names_tell_the_family() {
        assert_eq!(family_of("DiT-XL-2-256x256.pt".as_ref()).unwrap(), Family::Dit);
        assert_eq!(family_of("models/SiT-XL-2-256x256.pt".as_ref()).unwrap(), Family::Sit);
        for name in ["0050000.pt", "dit-or-sit.pt", "dit/0050000.pt", "edited.pt", "position.pt"] {
            assert!(family_of(name.as_ref()).unwrap_err().to_string().contains("set `model` to dit or sit"));
        }
    }
}

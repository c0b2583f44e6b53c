//! CLIP's text encoder (Radford et al. 2021), which turns a prompt's tokens into what a UNet attends to.

use super::config::sizes;
use super::layers::{LayerNorm, Linear};
use super::weights::{Place, Weights};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::Tensor;

/// More blocks than any text encoder has.
const MOST_LAYERS: i64 = 256;

/// Sizes of a text encoder (`text_encoder/config.json` of transformers' `CLIPTextModel`). What a file leaves out has
/// the class's own default.
///
/// ```
/// use diver::backbone::ClipConfig;
///
/// let config: ClipConfig = serde_json::from_str(r#"{"hidden_size": 768, "num_attention_heads": 12}"#)?;
/// assert_eq!((config.vocab_size, config.max_position_embeddings), (49408, 77));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// transformers' name of the kind of model; `clip_text_model`, if it is named.
    pub model_type: Option<String>,
    /// Tokens that it knows.
    pub vocab_size: i64,
    /// Width of a token.
    pub hidden_size: i64,
    /// Width inside the MLPs.
    pub intermediate_size: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// The most tokens of a prompt.
    pub max_position_embeddings: i64,
    /// The activation: `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// Epsilon of the layer normalisations.
    pub layer_norm_eps: f64,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            model_type: None,
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipConfig {
    /// Refuses sizes that make no network; `path` is named.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let refuse = |reason: String| Err(Error::file(path, reason));
        sizes(
            path,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_attention_heads", self.num_attention_heads),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        if let Some(other) = self.model_type.as_deref().filter(|kind| *kind != "clip_text_model") {
            return refuse(format!("model_type `{other}` is not clip_text_model"));
        }
        if !(1..=MOST_LAYERS).contains(&self.num_hidden_layers) {
            let layers = self.num_hidden_layers;
            return refuse(format!("num_hidden_layers {layers} is not from 1 to {MOST_LAYERS}"));
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            return refuse(format!(
                "num_attention_heads {} does not divide hidden_size {}",
                self.num_attention_heads, self.hidden_size
            ));
        }
        if !["quick_gelu", "gelu"].contains(&self.hidden_act.as_str()) {
            return refuse(format!("hidden_act `{}` is neither quick_gelu nor gelu", self.hidden_act));
        }
        if !self.layer_norm_eps.is_finite() || self.layer_norm_eps <= 0.0 {
            return refuse(format!("layer_norm_eps {} is not above 0", self.layer_norm_eps));
        }
        Ok(())
    }
}

/// A frozen text encoder.
///
/// ```no_run
/// use diver::backbone::{ClipConfig, ClipText, Place, Weights};
/// use tch::{Device, Kind, Tensor};
///
/// let config = ClipConfig {
///     hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12, ..ClipConfig::default()
/// };
/// let place = Place { device: Device::Cpu, kind: Kind::Float };
/// let weights = Weights::read_folder("stable-diffusion-v1-5/text_encoder".as_ref())?;
/// let text = ClipText::new(config, weights, place)?;
/// let ids = Tensor::full([1, 77], 49407, (Kind::Int64, Device::Cpu));
/// assert_eq!(text.forward(&ids)?.size(), [1, 77, 768]);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct ClipText {
    config: ClipConfig,
    place: Place,
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipText {
    /// A text encoder from weights with transformers' names, with or without the prefix `text_model.`.
    ///
    /// # Errors
    /// [`Error::File`] if the configuration makes no network, or the weights are not exactly its own.
    pub fn new(config: ClipConfig, mut weights: Weights, place: Place) -> Result<Self> {
        config.check(weights.path())?;
        // Files on the hub have the prefix; what transformers 5 saves has not.
        let prefix = if weights.contains("embeddings.token_embedding.weight") { "" } else { "text_model." };
        let w = &mut weights;
        w.ignore(&format!("{prefix}embeddings.position_ids"));
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let embedding = |w: &mut Weights, part: &str, count: i64| {
            w.take(&format!("{prefix}embeddings.{part}_embedding.weight"), &[count, width], place)
        };
        let tokens = embedding(w, "token", config.vocab_size)?;
        let positions = embedding(w, "position", config.max_position_embeddings)?;
        let blocks = (0..config.num_hidden_layers)
            .map(|i| Block::take(w, &format!("{prefix}encoder.layers.{i}"), &config, place))
            .collect::<Result<_>>()?;
        let norm = LayerNorm::take(w, &format!("{prefix}final_layer_norm"), width, eps, place)?;
        weights.finish()?;
        Ok(Self { config, place, tokens, positions, blocks, norm })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The last hidden states, after the final normalisation, of token ids `[R, tokens]` (i64):
    /// `[R, tokens, hidden_size]`. A token sees those before it alone; padding is a token like others.
    ///
    /// # Errors
    /// If there are too many tokens, or one does not exist.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (most, known) = (self.config.max_position_embeddings, self.config.vocab_size);
        let (rows, tokens) = match ids.size()[..] {
            [rows, tokens] if rows > 0 && (1..=most).contains(&tokens) => (rows, tokens),
            _ => {
                let expected = format!("[R, tokens] with 1 to {most} tokens");
                return Err(Error::tensor("token ids", expected, format!("{:?}", ids.size())));
            }
        };
        // Looking up one that does not exist would end a process on CUDA.
        let range = (ids.f_min()?.f_int64_value(&[])?, ids.f_max()?.f_int64_value(&[])?);
        if range.0 < 0 || range.1 >= known {
            let found = format!("{} to {}", range.0, range.1);
            return Err(Error::tensor("token ids", format!("0 to {}", known - 1), found));
        }
        let ids = ids.f_to_device(self.place.device)?.f_flatten(0, 1)?;
        let embedded =
            self.tokens.f_index_select(0, &ids)?.f_view([rows, tokens, self.config.hidden_size])?;
        let mut h = embedded.f_add(&self.positions.f_narrow(0, 0, tokens)?)?;
        let is_quick = self.config.hidden_act == "quick_gelu";
        for block in &self.blocks {
            h = h.f_add_(&block.attention(&block.norm1.forward(&h)?, self.config.num_attention_heads)?)?;
            h = h.f_add_(&block.mlp(&block.norm2.forward(&h)?, is_quick)?)?;
        }
        self.norm.forward(&h)
    }
}

impl Block {
    fn take(w: &mut Weights, name: &str, config: &ClipConfig, place: Place) -> Result<Self> {
        let (width, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let qkv = ["q", "k", "v"].map(|part| (format!("{name}.self_attn.{part}_proj"), width));
        Ok(Self {
            norm1: LayerNorm::take(w, &format!("{name}.layer_norm1"), width, eps, place)?,
            qkv: Linear::take_stacked(w, &qkv, width, place)?,
            out: Linear::take(w, &format!("{name}.self_attn.out_proj"), width, width, place)?,
            norm2: LayerNorm::take(w, &format!("{name}.layer_norm2"), width, eps, place)?,
            fc1: Linear::take(w, &format!("{name}.mlp.fc1"), wide, width, place)?,
            fc2: Linear::take(w, &format!("{name}.mlp.fc2"), width, wide, place)?,
        })
    }

    /// Causal self-attention of tokens `[R, tokens, width]`.
    fn attention(&self, u: &Tensor, heads: i64) -> Result<Tensor> {
        let (rows, tokens, width) = u.size3()?;
        let qkv = self.qkv.forward(u)?.f_view([rows, tokens, 3, heads, width / heads])?;
        let qkv = qkv.f_permute([2, 0, 3, 1, 4])?;
        let (q, k, v) = (qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?);
        let mixed =
            Tensor::f_scaled_dot_product_attention::<&Tensor>(&q, &k, &v, None, 0.0, true, None, false)?;
        self.out.forward(&mixed.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }

    fn mlp(&self, u: &Tensor, is_quick: bool) -> Result<Tensor> {
        let mut wide = self.fc1.forward(u)?;
        let wide = match is_quick {
            // OpenAI's approximation of the GELU.
            true => wide.f_mul_(&wide.f_mul_scalar(1.702)?.f_sigmoid_()?)?,
            false => wide.f_gelu_("none")?,
        };
        self.fc2.forward(&wide)
    }
}

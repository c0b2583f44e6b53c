//! `unet/config.json` of diffusers' `UNet2DConditionModel`, as far as it decides what is computed.

use crate::backbone::config::sizes;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// More layers in a level than any network has; a typing error beyond it would name millions of weights.
const MOST_LAYERS: i64 = 64;

/// A number for all levels, or one for each of them.
///
/// ```
/// use diver::backbone::PerLevel;
///
/// let heads: PerLevel = serde_json::from_str("[5, 10, 20, 20]")?;
/// assert_eq!((heads.at(1), PerLevel::One(8).at(1)), (10, 8));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    One(i64),
    /// From the image inward.
    Each(Vec<i64>),
}

impl PerLevel {
    /// The number of a level, counted from the image inward; 0 past the last.
    #[must_use]
    pub fn at(&self, level: usize) -> i64 {
        match self {
            Self::One(number) => *number,
            Self::Each(numbers) => numbers.get(level).copied().unwrap_or(0),
        }
    }
}

/// Sizes of a UNet (`unet/config.json` of diffusers' `UNet2DConditionModel`). What a file leaves out has the class's
/// own default; reading one fails where it asks for parts that this crate does not know.
///
/// ```
/// use diver::backbone::UnetConfig;
///
/// let config: UnetConfig = serde_json::from_str(r#"{"cross_attention_dim": 768, "sample_size": 64}"#)?;
/// assert_eq!((config.levels(), config.heads(0), config.downscale()), (4, 8, 8));
///
/// let refused = serde_json::from_str::<UnetConfig>(r#"{"class_embed_type": "timestep"}"#).unwrap_err();
/// assert_eq!(refused.to_string(), "class_embed_type: \"timestep\" is not supported");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct UnetConfig {
    /// Rows and columns of the latents of training. Other sizes work, too.
    pub sample_size: Option<i64>,
    /// Channels of a latent.
    pub in_channels: i64,
    /// Channels that come out.
    pub out_channels: i64,
    /// Width of each level, from the image inward.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of a level going down; going up there is one more.
    pub layers_per_block: i64,
    /// Types of the levels: `CrossAttnDownBlock2D`, or `DownBlock2D` without attention.
    pub down_block_types: Vec<String>,
    /// Types of the levels going up, from the innermost: `CrossAttnUpBlock2D` or `UpBlock2D`.
    pub up_block_types: Vec<String>,
    /// Width of a prompt's tokens.
    pub cross_attention_dim: i64,
    /// In spite of its name the number of heads, unless `num_attention_heads` says it.
    pub attention_head_dim: PerLevel,
    /// Attention heads.
    pub num_attention_heads: Option<PerLevel>,
    /// Groups of every group normalisation.
    pub norm_num_groups: i64,
    /// Epsilon of the residual blocks' group normalisations.
    pub norm_eps: f64,
    /// Whether the time features are cosines and then sines.
    pub flip_sin_to_cos: bool,
    /// Frequency `j` of the time features is `10000^(-j / (half - this))`.
    pub freq_shift: i64,
}

impl Default for UnetConfig {
    fn default() -> Self {
        let types = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            down_block_types: types([CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN]),
            up_block_types: types([UP, CROSS_UP, CROSS_UP, CROSS_UP]),
            cross_attention_dim: 1280,
            attention_head_dim: PerLevel::One(8),
            num_attention_heads: None,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0,
        }
    }
}

const CROSS_DOWN: &str = "CrossAttnDownBlock2D";
const DOWN: &str = "DownBlock2D";
const CROSS_UP: &str = "CrossAttnUpBlock2D";
const UP: &str = "UpBlock2D";

/// The one value that a field may have which this crate does not read.
enum Only {
    /// `null` or `false`.
    Off,
    /// This number.
    Number(f64),
    /// This word.
    Word(&'static str),
}

/// Fields that would change the network. `use_linear_projection` is none of them: a linear layer is a 1x1
/// convolution, and either shape of its weight is read. Nor is `upcast_attention`, which diffusers' own fused
/// attention passes over.
const FIXED: [(&str, Only); 27] = [
    ("act_fn", Only::Word("silu")),
    ("addition_embed_type", Only::Off),
    ("attention_type", Only::Word("default")),
    ("center_input_sample", Only::Off),
    ("class_embed_type", Only::Off),
    ("class_embeddings_concat", Only::Off),
    ("conv_in_kernel", Only::Number(3.0)),
    ("conv_out_kernel", Only::Number(3.0)),
    ("cross_attention_norm", Only::Off),
    ("downsample_padding", Only::Number(1.0)),
    ("dual_cross_attention", Only::Off),
    ("encoder_hid_dim", Only::Off),
    ("encoder_hid_dim_type", Only::Off),
    ("mid_block_only_cross_attention", Only::Off),
    ("mid_block_scale_factor", Only::Number(1.0)),
    ("mid_block_type", Only::Word("UNetMidBlock2DCrossAttn")),
    ("num_class_embeds", Only::Off),
    ("only_cross_attention", Only::Off),
    ("resnet_out_scale_factor", Only::Number(1.0)),
    ("resnet_skip_time_act", Only::Off),
    ("resnet_time_scale_shift", Only::Word("default")),
    ("reverse_transformer_layers_per_block", Only::Off),
    ("time_cond_proj_dim", Only::Off),
    ("time_embedding_act_fn", Only::Off),
    ("time_embedding_dim", Only::Off),
    ("time_embedding_type", Only::Word("positional")),
    ("timestep_post_act", Only::Off),
];

impl Only {
    /// Whether `value`, or every value of a list of one per level, is the one.
    fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Array(values)) => values.iter().all(|value| self.allows(value)),
            (Self::Off, value) => matches!(value, Value::Null | Value::Bool(false)),
            (Self::Number(number), value) => value.as_f64() == Some(*number),
            (Self::Word(word), value) => value.as_str() == Some(word),
        }
    }
}

impl TryFrom<Map<String, Value>> for UnetConfig {
    type Error = String;

    fn try_from(fields: Map<String, Value>) -> Result<Self, String> {
        let one_layer = ("transformer_layers_per_block", Only::Number(1.0));
        for (name, only) in FIXED.iter().chain([&one_layer]) {
            if let Some(value) = fields.get(*name).filter(|value| !only.allows(value)) {
                return Err(format!("{name}: {value} is not supported"));
            }
        }
        let default = Self::default();
        Ok(Self {
            sample_size: field(&fields, "sample_size", default.sample_size)?,
            in_channels: field(&fields, "in_channels", default.in_channels)?,
            out_channels: field(&fields, "out_channels", default.out_channels)?,
            block_out_channels: field(&fields, "block_out_channels", default.block_out_channels)?,
            layers_per_block: field(&fields, "layers_per_block", default.layers_per_block)?,
            down_block_types: field(&fields, "down_block_types", default.down_block_types)?,
            up_block_types: field(&fields, "up_block_types", default.up_block_types)?,
            cross_attention_dim: field(&fields, "cross_attention_dim", default.cross_attention_dim)?,
            attention_head_dim: field(&fields, "attention_head_dim", default.attention_head_dim)?,
            num_attention_heads: field(&fields, "num_attention_heads", default.num_attention_heads)?,
            norm_num_groups: field(&fields, "norm_num_groups", default.norm_num_groups)?,
            norm_eps: field(&fields, "norm_eps", default.norm_eps)?,
            flip_sin_to_cos: field(&fields, "flip_sin_to_cos", default.flip_sin_to_cos)?,
            freq_shift: field(&fields, "freq_shift", default.freq_shift)?,
        })
    }
}

fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str, default: T) -> Result<T, String> {
    match fields.get(name) {
        None => Ok(default),
        Some(value) => T::deserialize(value).map_err(|e| format!("{name}: {value} is not understood ({e})")),
    }
}

impl UnetConfig {
    /// Levels of the UNet.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Attention heads of a level, counted from the image inward.
    #[must_use]
    pub fn heads(&self, level: usize) -> i64 {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(level)
    }

    /// What the sides of a latent must be multiples of.
    #[must_use]
    pub fn downscale(&self) -> i64 {
        1 << self.levels().saturating_sub(1)
    }

    /// Whether a level going down has attention.
    pub(super) fn attends_down(&self, level: usize) -> bool {
        self.down_block_types.get(level).is_some_and(|kind| kind == CROSS_DOWN)
    }

    /// Whether a level going up has attention; levels are counted from the image inward here, too.
    pub(super) fn attends_up(&self, level: usize) -> bool {
        self.up_block_types.iter().rev().nth(level).is_some_and(|kind| kind == CROSS_UP)
    }

    /// Refuses sizes that make no network; `path` is named.
    pub(in crate::backbone) fn check(&self, path: &Path) -> Result<()> {
        let refuse = |reason: String| Err(Error::file(path, reason));
        let levels = self.levels();
        if !(1..=8).contains(&levels) {
            return refuse(format!("block_out_channels {:?} is not 1 to 8 widths", self.block_out_channels));
        }
        sizes(
            path,
            &[
                ("sample_size", self.sample_size.unwrap_or(1)),
                ("in_channels", self.in_channels),
                ("out_channels", self.out_channels),
                ("cross_attention_dim", self.cross_attention_dim),
                ("norm_num_groups", self.norm_num_groups),
            ],
        )?;
        if !(1..=MOST_LAYERS).contains(&self.layers_per_block) {
            let layers = self.layers_per_block;
            return refuse(format!("layers_per_block {layers} is not from 1 to {MOST_LAYERS}"));
        }
        for (name, types, known) in [
            ("down_block_types", &self.down_block_types, [CROSS_DOWN, DOWN]),
            ("up_block_types", &self.up_block_types, [CROSS_UP, UP]),
        ] {
            if types.len() != levels {
                return refuse(format!("{name} has {} entries for {levels} levels", types.len()));
            }
            if let Some(other) = types.iter().find(|kind| !known.contains(&kind.as_str())) {
                return refuse(format!("{name}: `{other}` is neither {} nor {}", known[0], known[1]));
            }
        }
        for (level, &width) in self.block_out_channels.iter().enumerate() {
            sizes(path, &[("block_out_channels", width)])?;
            if width % self.norm_num_groups != 0 {
                return refuse(format!("norm_num_groups {} does not divide {width}", self.norm_num_groups));
            }
            // The middle has attention, whether the innermost level has it or not.
            let attends = self.attends_down(level) || self.attends_up(level) || level + 1 == levels;
            let heads = self.heads(level);
            if attends && (heads < 1 || width % heads != 0) {
                return refuse(format!(
                    "{heads} heads (attention_head_dim, or num_attention_heads) do not divide {width}"
                ));
            }
        }
        for (name, numbers) in [
            ("attention_head_dim", Some(&self.attention_head_dim)),
            ("num_attention_heads", self.num_attention_heads.as_ref()),
        ] {
            if let Some(PerLevel::Each(numbers)) = numbers
                && numbers.len() != levels
            {
                return refuse(format!("{name} has {} entries for {levels} levels", numbers.len()));
            }
        }
        let features = self.block_out_channels[0];
        if features % 2 != 0 || !(0..features / 2).contains(&self.freq_shift) {
            return refuse(format!("{features} time features with freq_shift {}", self.freq_shift));
        }
        if !self.norm_eps.is_finite() || self.norm_eps <= 0.0 {
            return refuse(format!("norm_eps {} is not above 0", self.norm_eps));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<UnetConfig, String> {
        serde_json::from_value(fields).map_err(|e| e.to_string())
    }

    fn refused(fields: Value) -> String {
        read(fields).unwrap().check("unet".as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn what_diffusers_writes_is_read() {
        // Every field of a configuration that diffusers 0.42 saves for Stable Diffusion v1.5.
        let fields = r#"{
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1", "act_fn": "silu",
            "addition_embed_type": null, "addition_embed_type_num_heads": 64, "addition_time_embed_dim": null,
            "attention_head_dim": 8, "attention_type": "default", "block_out_channels": [320, 640, 1280, 1280],
            "center_input_sample": false, "class_embed_type": null, "class_embeddings_concat": false,
            "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": 768, "cross_attention_norm": null,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "downsample_padding": 1, "dropout": 0.0, "dual_cross_attention": false, "encoder_hid_dim": null,
            "encoder_hid_dim_type": null, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4,
            "layers_per_block": 2, "mid_block_only_cross_attention": null, "mid_block_scale_factor": 1,
            "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05, "norm_num_groups": 32,
            "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false, "out_channels": 4,
            "projection_class_embeddings_input_dim": null, "resnet_out_scale_factor": 1.0,
            "resnet_skip_time_act": false, "resnet_time_scale_shift": "default",
            "reverse_transformer_layers_per_block": null, "sample_size": 64, "time_cond_proj_dim": null,
            "time_embedding_act_fn": null, "time_embedding_dim": null, "time_embedding_type": "positional",
            "timestep_post_act": null, "transformer_layers_per_block": 1,
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "upcast_attention": false, "use_linear_projection": false
        }"#;
        let config = read(serde_json::from_str(fields).unwrap()).unwrap();
        config.check("unet".as_ref()).unwrap();
        let default = UnetConfig { cross_attention_dim: 768, sample_size: Some(64), ..UnetConfig::default() };
        assert_eq!(config, default);
        assert_eq!(read(serde_json::to_value(&config).unwrap()), Ok(config));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (name, value) in [
            ("class_embed_type", json!("timestep")),
            ("addition_embed_type", json!("text_time")),
            ("time_cond_proj_dim", json!(256)),
            ("dual_cross_attention", json!(true)),
            ("only_cross_attention", json!([true, true, true, false])),
            ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
            ("mid_block_type", json!(null)),
            ("transformer_layers_per_block", json!([1, 2, 10])),
            ("resnet_time_scale_shift", json!("scale_shift")),
            ("act_fn", json!("gelu")),
        ] {
            let found = read(json!({ name: value })).unwrap_err();
            assert_eq!(found, format!("{name}: {value} is not supported"));
        }
        assert!(read(json!({"transformer_layers_per_block": [1, 1, 1, 1]})).is_ok());
        let found = read(json!({"cross_attention_dim": null})).unwrap_err();
        assert!(found.starts_with("cross_attention_dim: null is not understood ("), "{found}");
    }

    #[test]
    fn sizes_that_make_no_network_are_named() {
        for (fields, expected) in [
            (json!({"block_out_channels": []}), "block_out_channels [] is not 1 to 8 widths"),
            (json!({"in_channels": 0}), "in_channels 0 is not from 1 to 65536"),
            (json!({"layers_per_block": 65}), "layers_per_block 65 is not from 1 to 64"),
            (json!({"down_block_types": ["DownBlock2D"]}), "down_block_types has 1 entries for 4 levels"),
            (
                json!({"up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}),
                "up_block_types: `AttnUpBlock2D` is neither CrossAttnUpBlock2D nor UpBlock2D",
            ),
            (json!({"norm_num_groups": 3}), "norm_num_groups 3 does not divide 320"),
            (
                json!({"attention_head_dim": [8, 8, 7, 8]}),
                "7 heads (attention_head_dim, or num_attention_heads) do not divide 1280",
            ),
            (
                json!({"num_attention_heads": 0}),
                "0 heads (attention_head_dim, or num_attention_heads) do not divide 320",
            ),
            (json!({"attention_head_dim": [8, 8, 8, 8, 8]}), "attention_head_dim has 5 entries for 4 levels"),
            (json!({"freq_shift": 160}), "320 time features with freq_shift 160"),
            (json!({"norm_eps": 0.0}), "norm_eps 0 is not above 0"),
        ] {
            assert_eq!(refused(fields), format!("unet: {expected}"));
        }
    }
}

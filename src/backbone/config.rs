//! The `config.json` files of a diffusers folder, as far as they decide what a network computes.

use crate::{Error, NoiseSchedule, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// No size in a configuration exceeds this; larger ones are typing errors that would exhaust memory.
const LARGEST: i64 = 1 << 16;

/// More timesteps than any model was trained on.
const MOST_TIMESTEPS: usize = 100_000;

/// Schedulers of diffusers that add noise by betas, whatever they take it away by. Others (flow matching, EDM) have
/// fields of the same names that mean nothing, or something else.
const WITH_BETAS: [&str; 19] = [
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
];

/// Sizes of a DiT (`transformer/config.json` of diffusers' `DiTTransformer2DModel`).
///
/// ```
/// use diver::backbone::DitConfig;
///
/// let xl_2: DitConfig = serde_json::from_str(
///     r#"{"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
///         "num_layers": 28, "sample_size": 32, "patch_size": 2, "num_embeds_ada_norm": 1000}"#,
/// )?;
/// assert_eq!((xl_2.hidden(), xl_2.tokens()), (1152, 256));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DitConfig {
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Width of one head.
    pub attention_head_dim: i64,
    /// Channels of a latent.
    pub in_channels: i64,
    /// Channels that come out: those of a latent, or twice as many with a variance head.
    pub out_channels: Option<i64>,
    /// Transformer blocks.
    pub num_layers: i64,
    /// Rows and columns of a latent.
    pub sample_size: i64,
    /// Rows and columns of a patch.
    pub patch_size: i64,
    /// Classes, without the null class.
    pub num_embeds_ada_norm: i64,
    /// `ada_norm_zero`, the only one that is a DiT.
    #[serde(default = "ada_norm_zero")]
    pub norm_type: String,
    /// `gelu-approximate`, the only one that is a DiT.
    #[serde(default = "gelu_approximate")]
    pub activation_fn: String,
}

fn ada_norm_zero() -> String {
    "ada_norm_zero".to_owned()
}

fn gelu_approximate() -> String {
    "gelu-approximate".to_owned()
}

impl DitConfig {
    /// Width of a token.
    #[must_use]
    pub fn hidden(&self) -> i64 {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Rows and columns of patches.
    #[must_use]
    pub fn grid(&self) -> i64 {
        self.sample_size / self.patch_size
    }

    /// Tokens of one latent.
    #[must_use]
    pub fn tokens(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// Channels that come out of the network.
    #[must_use]
    pub fn out(&self) -> i64 {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Whether the variance of a step comes out beside the noise.
    pub(super) fn has_variance(&self) -> bool {
        self.out() > self.in_channels
    }

    /// Refuses sizes that make no network; `path` is named.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        sizes(
            path,
            &[
                ("num_attention_heads", self.num_attention_heads),
                ("attention_head_dim", self.attention_head_dim),
                ("in_channels", self.in_channels),
                ("out_channels", self.out()),
                ("num_layers", self.num_layers),
                ("sample_size", self.sample_size),
                ("patch_size", self.patch_size),
                ("num_embeds_ada_norm", self.num_embeds_ada_norm),
            ],
        )?;
        sizes(path, &[("the width", self.hidden()), ("the number of tokens", self.tokens())])?;
        let refuse = |reason: String| Err(Error::file(path, reason));
        if self.norm_type != ada_norm_zero() {
            return refuse(format!("norm_type `{}` is not ada_norm_zero", self.norm_type));
        }
        if self.activation_fn != gelu_approximate() {
            return refuse(format!("activation_fn `{}` is not gelu-approximate", self.activation_fn));
        }
        if self.sample_size % self.patch_size != 0 {
            return refuse(format!(
                "patch_size {} does not divide sample_size {}",
                self.patch_size, self.sample_size
            ));
        }
        if self.hidden() % 4 != 0 {
            return refuse(format!("a width of {} has no two-dimensional position embedding", self.hidden()));
        }
        if self.out() != self.in_channels && self.out() != 2 * self.in_channels {
            return refuse(format!("out_channels {} is neither once nor twice in_channels", self.out()));
        }
        Ok(())
    }
}

/// Sizes of an autoencoder (`vae/config.json` of diffusers' `AutoencoderKL`). What a file leaves out has the class's
/// own default.
///
/// ```
/// use diver::backbone::VaeConfig;
///
/// let config: VaeConfig = serde_json::from_str(r#"{"block_out_channels": [128, 256, 512, 512]}"#)?;
/// assert_eq!((config.downscale(), config.scaling_factor), (8, 0.18215));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of an image going in.
    pub in_channels: i64,
    /// Channels of an image coming out.
    pub out_channels: i64,
    /// Channels of a latent.
    pub latent_channels: i64,
    /// Width of each level, from the image inward.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// Groups of every group normalisation.
    pub norm_num_groups: i64,
    /// The activation; only `silu` is known.
    pub act_fn: String,
    /// Types of the levels; only `DownEncoderBlock2D` is known.
    pub down_block_types: Option<Vec<String>>,
    /// Types of the levels; only `UpDecoderBlock2D` is known.
    pub up_block_types: Option<Vec<String>>,
    /// Whether the middle has an attention block.
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Factor from the encoder's mean to the latent that the diffusion model knows.
    pub scaling_factor: f64,
    /// What is taken from the mean before scaling.
    pub shift_factor: Option<f64>,
    /// Statistics per channel, which this crate does not know.
    pub latents_mean: Option<Vec<f64>>,
    /// Statistics per channel, which this crate does not know.
    pub latents_std: Option<Vec<f64>>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![64],
            layers_per_block: 1,
            norm_num_groups: 32,
            act_fn: "silu".to_owned(),
            down_block_types: None,
            up_block_types: None,
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
        }
    }
}

impl VaeConfig {
    /// Image rows (or columns) for each of a latent.
    #[must_use]
    pub fn downscale(&self) -> i64 {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Refuses sizes that make no network; `path` is named.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let refuse = |reason: String| Err(Error::file(path, reason));
        if !(1..=8).contains(&self.block_out_channels.len()) {
            return refuse(format!("block_out_channels {:?} is not 1 to 8 widths", self.block_out_channels));
        }
        sizes(
            path,
            &[
                ("latent_channels", self.latent_channels),
                ("layers_per_block", self.layers_per_block),
                ("norm_num_groups", self.norm_num_groups),
            ],
        )?;
        for width in &self.block_out_channels {
            sizes(path, &[("block_out_channels", *width)])?;
            if width % self.norm_num_groups != 0 {
                return refuse(format!("norm_num_groups {} does not divide {width}", self.norm_num_groups));
            }
        }
        if (self.in_channels, self.out_channels) != (3, 3) {
            return refuse("in_channels and out_channels are not those of RGB images".to_owned());
        }
        if self.act_fn != "silu" {
            return refuse(format!("act_fn `{}` is not silu", self.act_fn));
        }
        for (types, known) in
            [(&self.down_block_types, "DownEncoderBlock2D"), (&self.up_block_types, "UpDecoderBlock2D")]
        {
            if let Some(other) = types.iter().flatten().find(|kind| *kind != known) {
                return refuse(format!("block type `{other}` is not {known}"));
            }
        }
        if self.latents_mean.is_some() || self.latents_std.is_some() {
            return refuse("latents_mean and latents_std are not supported".to_owned());
        }
        if !self.scaling_factor.is_finite() || self.scaling_factor <= 0.0 {
            return refuse(format!("scaling_factor {} is not above 0", self.scaling_factor));
        }
        Ok(())
    }
}

/// What a diffusers scheduler says about training (`scheduler/scheduler_config.json`); which timesteps are visited
/// is the sampler's own business.
///
/// ```
/// use diver::backbone::SchedulerConfig;
///
/// let config: SchedulerConfig = serde_json::from_str(
///     r#"{"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}"#,
/// )?;
/// assert_eq!(config.noise_schedule()?.betas().len(), 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// diffusers' class; one that adds noise by betas, if it is named.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// First `beta`.
    pub beta_start: f64,
    /// Last `beta`.
    pub beta_end: f64,
    /// `linear` or `scaled_linear`.
    pub beta_schedule: String,
    /// Betas that no formula gives, which this crate does not know.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether the last latent of training is pure noise, which this crate does not know.
    pub rescale_betas_zero_snr: bool,
    /// Number of timesteps.
    pub num_train_timesteps: usize,
    /// What the network predicts; only `epsilon` is known.
    pub prediction_type: String,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: None,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: "linear".to_owned(),
            trained_betas: None,
            rescale_betas_zero_snr: false,
            num_train_timesteps: 1000,
            prediction_type: "epsilon".to_owned(),
        }
    }
}

impl SchedulerConfig {
    /// The noise levels of training.
    ///
    /// # Errors
    /// [`Error::Knob`] if the scheduler is not one with betas, the schedule is of an unknown type or does not rise
    /// from above 0 to below 1, or the network predicts something other than the noise.
    pub fn noise_schedule(&self) -> Result<NoiseSchedule> {
        if let Some(name) = self.class_name.as_deref().filter(|name| !WITH_BETAS.contains(name)) {
            return Err(Error::knob("_class_name", format!("`{name}` is not a known scheduler with betas")));
        }
        if self.prediction_type != "epsilon" {
            let reason = format!("`{}` is not epsilon", self.prediction_type);
            return Err(Error::knob("prediction_type", reason));
        }
        if self.trained_betas.is_some() {
            return Err(Error::knob("trained_betas", "betas of their own are not supported"));
        }
        if self.rescale_betas_zero_snr {
            return Err(Error::knob("rescale_betas_zero_snr", "true is not supported"));
        }
        let (start, end, timesteps) = (self.beta_start, self.beta_end, self.num_train_timesteps);
        if !(1..=MOST_TIMESTEPS).contains(&timesteps) {
            let reason = format!("{timesteps} is not from 1 to {MOST_TIMESTEPS}");
            return Err(Error::knob("num_train_timesteps", reason));
        }
        match self.beta_schedule.as_str() {
            "linear" => NoiseSchedule::linear(start, end, timesteps),
            "scaled_linear" => NoiseSchedule::scaled_linear(start, end, timesteps),
            other => {
                let reason = format!("`{other}` is neither linear nor scaled_linear");
                Err(Error::knob("beta_schedule", reason))
            }
        }
    }
}

/// Reads a JSON file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io(path, "cannot read"))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, format!("cannot be understood: {e}")))
}

/// Refuses sizes below 1 or beyond all reason; `path` and the size's name are named.
pub(super) fn sizes(path: &Path, values: &[(&str, i64)]) -> Result<()> {
    match values.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        None => Ok(()),
        Some((name, value)) => Err(Error::file(path, format!("{name} {value} is not from 1 to {LARGEST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn schedulers_with_betas_are_taken() {
        let of = |config: Value| serde_json::from_value::<SchedulerConfig>(config).unwrap().noise_schedule();
        assert!(of(json!({})).is_ok());
        for name in WITH_BETAS {
            let config = json!({
                "_class_name": name, "trained_betas": null, "rescale_betas_zero_snr": false, "clip_sample": false,
            });
            assert_eq!(of(config).unwrap(), of(json!({})).unwrap(), "{name}");
        }
    }

    #[test]
    fn other_schedulers_are_refused() {
        let refused = |key: &str, value: Value| {
            let config: SchedulerConfig = serde_json::from_value(json!({ key: value })).unwrap();
            config.noise_schedule().unwrap_err().to_string()
        };
        assert_eq!(
            refused("_class_name", "FlowMatchEulerDiscreteScheduler".into()),
            "_class_name: `FlowMatchEulerDiscreteScheduler` is not a known scheduler with betas"
        );
        assert!(refused("_class_name", "EDMEulerScheduler".into()).starts_with("_class_name: "));
        for kind in ["v_prediction", "sample", "flow_prediction"] {
            assert_eq!(
                refused("prediction_type", kind.into()),
                format!("prediction_type: `{kind}` is not epsilon")
            );
        }
        assert!(refused("trained_betas", json!([0.1, 0.2])).starts_with("trained_betas: "));
        assert_eq!(
            refused("rescale_betas_zero_snr", true.into()),
            "rescale_betas_zero_snr: true is not supported"
        );
        for timesteps in [0, 100_001] {
            let expected = format!("num_train_timesteps: {timesteps} is not from 1 to 100000");
            assert_eq!(refused("num_train_timesteps", timesteps.into()), expected);
        }
    }
}

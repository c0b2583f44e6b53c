//! The UNet of Stable Diffusion (Rombach et al. 2022): diffusers' `UNet2DConditionModel` with the blocks of v1 and v2.

mod attention;
mod blocks;
mod config;
mod context;
mod parts;

pub use config::{PerLevel, UnetConfig};
pub use context::UnetContext;

use super::embedding::TimeEmbedding;
use super::layers::{Conv, GroupNorm, Linear};
use super::weights::{Place, Weights};
use crate::{Error, Result};
use blocks::{Level, Middle};
use context::KeyValue;
use parts::Parts;
use tch::{Device, Kind, Tensor};

/// A frozen UNet that denoises latents to a prompt.
///
/// ```no_run
/// use diver::backbone::{Place, Unet, UnetConfig, Weights};
/// use tch::{Device, Kind, Tensor};
///
/// let config = UnetConfig { cross_attention_dim: 768, ..UnetConfig::default() };
/// let place = Place { device: Device::Cpu, kind: Kind::Float };
/// let unet = Unet::new(config, Weights::read_folder("stable-diffusion-v1-5/unet".as_ref())?, place)?;
/// let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
/// let eps = unet.forward(&random(&[2, 4, 64, 64]), &Tensor::from_slice(&[981_i64]), &random(&[2, 77, 768]))?;
/// assert_eq!(eps.size(), [2, 4, 64, 64]);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Unet {
    config: UnetConfig,
    place: Place,
    time: TimeEmbedding,
    /// The projections of all residual blocks side by side: the time is projected once a step, not once a block.
    time_projection: Linear,
    prompt: Vec<KeyValue>,
    conv_in: Conv,
    down: Vec<Level>,
    middle: Middle,
    up: Vec<Level>,
    norm: GroupNorm,
    conv_out: Conv,
}

impl Unet {
    /// A UNet from weights with diffusers' names.
    ///
    /// # Errors
    /// [`Error::File`] if the configuration makes no network, or the weights are not exactly its own.
    pub fn new(config: UnetConfig, mut weights: Weights, place: Place) -> Result<Self> {
        config.check(weights.path())?;
        let first = config.block_out_channels[0];
        let mut p = Parts {
            weights: &mut weights,
            config: &config,
            place,
            time: Vec::new(),
            time_width: 0,
            prompt: Vec::new(),
        };
        let conv_in = Conv::take(p.weights, "conv_in", first, config.in_channels, 3, place)?;
        let (down, skips) = Level::take_down(&mut p)?;
        let middle = Middle::take(&mut p)?;
        let up = Level::take_up(&mut p, skips)?;
        let time_inputs = p.time_inputs();
        let (projections, prompt) = (p.time, p.prompt);

        let w = &mut weights;
        let time_projection = Linear::take_stacked(w, &projections, time_inputs, place)?;
        // Angles reach 999: bf16 would blur the time, so all of it is f32 up to its projections.
        let exact = Place { kind: Kind::Float, ..place };
        let names = ["time_embedding.linear_1", "time_embedding.linear_2"];
        let time = TimeEmbedding::named(w, names, first, time_inputs, config.freq_shift as f64, exact)?;
        let time = if config.flip_sin_to_cos { time } else { time.sine_first() };
        let (groups, eps) = (config.norm_num_groups, config.norm_eps);
        let norm = GroupNorm::take(w, "conv_norm_out", first, groups, eps, place)?;
        let conv_out = Conv::take(w, "conv_out", config.out_channels, first, 3, place)?;
        weights.finish()?;
        Ok(Self { config, place, time, time_projection, prompt, conv_in, down, middle, up, norm, conv_out })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The device that the network is on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.place.device
    }

    /// The dtype that it computes in.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.place.kind
    }

    /// What comes out for latents `x` `[R, C, h, w]`, timesteps `t` (`[R]`, or `[1]` for all rows) and embedded
    /// prompts `[R, tokens, width]` (or `[1, tokens, width]`): `[R, out_channels, h, w]`, in the network's dtype.
    ///
    /// # Errors
    /// If a shape does not fit, or libtorch fails.
    pub fn forward(&self, x: &Tensor, t: &Tensor, embeddings: &Tensor) -> Result<Tensor> {
        self.forward_in(x, t, &self.context(embeddings, None)?)
    }

    /// What does not depend on the step: keys and values for embedded prompts `[U, tokens, width]`. `of_row` tells
    /// the prompt of each row of a batch; without it, the prompts are the rows' own in order, or one is all rows'.
    ///
    /// # Errors
    /// If the shape does not fit, a row's prompt does not exist, or libtorch fails.
    pub fn context(&self, embeddings: &Tensor, of_row: Option<&[usize]>) -> Result<UnetContext> {
        let width = self.config.cross_attention_dim;
        let prompts = match embeddings.size()[..] {
            [prompts, tokens, w] if prompts > 0 && tokens > 0 && w == width => prompts,
            _ => {
                let expected = format!("[U, tokens, {width}]");
                return Err(Error::tensor("embeddings", expected, format!("{:?}", embeddings.size())));
            }
        };
        let index = match of_row {
            Some(rows) => {
                let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
                if rows.is_empty() || rows.iter().any(|row| *row >= prompts) {
                    return Err(Error::tensor(
                        "rows",
                        format!("prompts 0 to {}", prompts - 1),
                        format!("{rows:?}"),
                    ));
                }
                Some(Tensor::f_from_slice(&rows)?.f_to_device(self.place.device)?)
            }
            None => None,
        };
        let embeddings = embeddings.f_to_device(self.place.device)?.f_to_kind(self.place.kind)?;
        let attended =
            self.prompt.iter().map(|kv| kv.of(&embeddings, index.as_ref())).collect::<Result<_>>()?;
        Ok(UnetContext { attended, rows: of_row.map_or(prompts, |rows| rows.len() as i64) })
    }

    /// [`forward`](Self::forward) with what [`context`](Self::context) has made of the prompts.
    ///
    /// # Errors
    /// If a shape does not fit, or libtorch fails.
    pub fn forward_in(&self, x: &Tensor, t: &Tensor, context: &UnetContext) -> Result<Tensor> {
        let (channels, side) = (self.config.in_channels, self.config.downscale());
        let rows = match x.size()[..] {
            [r, c, h, w] if c == channels && h > 0 && w > 0 && h % side == 0 && w % side == 0 => r,
            _ => {
                let expected = format!("[B, {channels}, h, w] with sides that {side} divides");
                return Err(Error::tensor("latents", expected, format!("{:?}", x.size())));
            }
        };
        if context.rows != 1 && context.rows != rows {
            return Err(Error::tensor(
                "latents",
                format!("{} rows, one a prompt", context.rows),
                rows.to_string(),
            ));
        }
        if !matches!(t.size()[..], [times] if times == 1 || times == rows) {
            return Err(Error::tensor("timesteps", format!("[{rows}] or [1]"), format!("{:?}", t.size())));
        }
        let features = self.time.features(&t.f_to_device(self.place.device)?)?;
        let time = self.time.mlp(&features)?.f_silu_()?.f_to_kind(self.place.kind)?;
        let time = self.time_projection.forward(&time)?;
        let prompt = &context.attended;

        let mut h = self.conv_in.forward(&x.f_to_kind(self.place.kind)?)?;
        let mut skips = vec![h.shallow_clone()];
        for level in &self.down {
            h = level.down(h, &time, prompt, &mut skips)?;
        }
        h = self.middle.forward(&h, &time, prompt)?;
        for level in &self.up {
            h = level.up(h, &time, prompt, &mut skips)?;
        }
        self.conv_out.forward(&self.norm.forward(&h)?.f_silu_()?)
    }
}

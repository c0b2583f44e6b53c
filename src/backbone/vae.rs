//! The autoencoder: diffusers' `AutoencoderKL` of any size (Rombach et al. 2022; the Stable Diffusion VAE is one).

use super::config::VaeConfig;
use super::layers::{Conv, GroupNorm, Linear};
use super::weights::{Place, Weights};
use crate::{Error, Result, halving};
use std::cell::Cell;
use tch::Tensor;

/// Epsilon of every group normalisation.
const NORM_EPS: f64 = 1e-6;

/// Image pixels that the decoder works on at a time. Its peak memory, not the transformer's, is what limits a batch.
const PIXELS_AT_ONCE: usize = 16 * 256 * 256;

/// What the encoder says about an image: a normal distribution over latents, not yet scaled.
#[derive(Debug)]
pub struct Posterior {
    /// `[B, latent_channels, h, w]`.
    pub mean: Tensor,
    /// Logarithm of the variance, clamped to -30..20; same shape.
    pub logvar: Tensor,
}

/// A frozen autoencoder.
///
/// ```
/// use diver::backbone::Backbone;
/// use tch::{Device, Kind, Tensor};
///
/// let backbone = Backbone::builder("examples/digits/backbone").build(Device::Cpu, Kind::Float)?;
/// let images = Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu)); // grey: -1 is black, 1 is white
/// let latents = tch::no_grad(|| backbone.vae().encode(&images))?;
/// assert_eq!(latents.size(), [1, 4, 8, 8]);
/// assert_eq!(tch::no_grad(|| backbone.vae().decode(&latents))?.size(), images.size());
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    quant: Option<Conv>,
    post_quant: Option<Conv>,
    decoder: Decoder,
    /// The most pixels that go through at a time; less once memory ran out.
    pixels_at_once: Cell<usize>,
}

impl Vae {
    /// An autoencoder from weights with diffusers' names; the old names of the middle's attention are known too.
    ///
    /// # Errors
    /// [`Error::File`] if the configuration makes no network, or the weights are not exactly its own.
    pub fn new(config: VaeConfig, mut weights: Weights, place: Place) -> Result<Self> {
        config.check(weights.path())?;
        let latent = config.latent_channels;
        let w = &mut weights;
        let encoder = Encoder::take(w, &config, place)?;
        let decoder = Decoder::take(w, &config, place)?;
        let quant = match config.use_quant_conv {
            true => Some(Conv::take(w, "quant_conv", 2 * latent, 2 * latent, 1, place)?),
            false => None,
        };
        let post_quant = match config.use_post_quant_conv {
            true => Some(Conv::take(w, "post_quant_conv", latent, latent, 1, place)?),
            false => None,
        };
        weights.finish()?;
        let pixels_at_once = Cell::new(PIXELS_AT_ONCE);
        Ok(Self { config, encoder, quant, post_quant, decoder, pixels_at_once })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// What the encoder says about images `[B, 3, H, W]` in [-1, 1], whose sides are multiples of
    /// [`VaeConfig::downscale`].
    ///
    /// # Errors
    /// If the shape is another, or libtorch fails.
    pub fn posterior(&self, images: &Tensor) -> Result<Posterior> {
        let side = self.config.downscale();
        let fits =
            matches!(images.size()[..], [_, 3, h, w] if h > 0 && w > 0 && h % side == 0 && w % side == 0);
        if !fits {
            let expected = format!("[B, 3, H, W] with sides that {side} divides");
            return Err(Error::tensor("images", expected, format!("{:?}", images.size())));
        }
        let moments = self.encoder.forward(images)?;
        let moments = match &self.quant {
            Some(quant) => quant.forward(&moments)?,
            None => moments,
        };
        let latent = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.f_narrow(1, 0, latent)?,
            logvar: moments.f_narrow(1, latent, latent)?.f_clamp(-30.0, 20.0)?,
        })
    }

    /// The scaled latents of images: the posterior's mode. Shapes as in [`posterior`](Self::posterior).
    ///
    /// # Errors
    /// If the shape is another, or libtorch fails.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        self.in_chunks(images, 1, |images| self.to_latent(&self.posterior(images)?.mean))
    }

    /// A latent as the encoder gives it, scaled as the diffusion model knows it.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn to_latent(&self, sample: &Tensor) -> Result<Tensor> {
        let shifted = match self.config.shift_factor {
            Some(shift) => sample.f_sub_scalar(shift)?,
            None => sample.shallow_clone(),
        };
        Ok(shifted.f_mul_scalar(self.config.scaling_factor)?)
    }

    /// Images `[B, 3, H, W]`, about -1 to 1, from scaled latents `[B, latent_channels, h, w]`.
    ///
    /// # Errors
    /// If the shape is another, or libtorch fails.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let channels = self.config.latent_channels;
        if !matches!(latents.size()[..], [_, c, h, w] if c == channels && h > 0 && w > 0) {
            let expected = format!("[B, {channels}, h, w]");
            return Err(Error::tensor("latents", expected, format!("{:?}", latents.size())));
        }
        self.in_chunks(latents, self.config.downscale(), |latents| {
            let unscaled = latents.f_div_scalar(self.config.scaling_factor)?;
            let z = match self.config.shift_factor {
                Some(shift) => unscaled.f_add_scalar(shift)?,
                None => unscaled,
            };
            let z = match &self.post_quant {
                Some(post_quant) => post_quant.forward(&z)?,
                None => z,
            };
            self.decoder.forward(&z)
        })
    }

    /// Applies `f` to as many images of `batch` at a time as memory lasts for: the networks beside this one may need
    /// most of it. One of the batch's sides makes `scale` image sides.
    fn in_chunks(&self, batch: &Tensor, scale: i64, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let count = usize::try_from(batch.size()[0]).unwrap_or(0);
        if count == 0 {
            return f(batch);
        }
        let pixels: i64 = batch.size().iter().skip(2).map(|side| side * scale).product();
        let pixels = usize::try_from(pixels).unwrap_or(0).max(1);
        let mut chunk = (self.pixels_at_once.get() / pixels).max(1);
        let allowed = chunk;
        let done = halving::in_parts(count, &mut chunk, "the autoencoder", |images| {
            f(&batch.f_narrow(0, images.start as i64, images.len() as i64)?)
        });
        if chunk < allowed {
            self.pixels_at_once.set(chunk * pixels);
        }
        let mut parts = done?;
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(Tensor::f_cat(&parts, 0)?),
        }
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv,
    levels: Vec<Level>,
    middle: Middle,
    norm: GroupNorm,
    conv_out: Conv,
}

impl Encoder {
    fn take(w: &mut Weights, config: &VaeConfig, place: Place) -> Result<Self> {
        let widths = &config.block_out_channels;
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut levels = Vec::with_capacity(widths.len());
        let mut inputs = first;
        for (i, &outputs) in widths.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            let resample = if i + 1 < widths.len() { Some("downsamplers") } else { None };
            levels.push(Level::take(
                w,
                &name,
                inputs,
                outputs,
                config.layers_per_block,
                resample,
                config,
                place,
            )?);
            inputs = outputs;
        }
        Ok(Self {
            conv_in: Conv::take(w, "encoder.conv_in", first, config.in_channels, 3, place)?,
            levels,
            middle: Middle::take(w, "encoder.mid_block", last, config, place)?,
            norm: GroupNorm::take(w, "encoder.conv_norm_out", last, config.norm_num_groups, NORM_EPS, place)?,
            conv_out: Conv::take(w, "encoder.conv_out", 2 * config.latent_channels, last, 3, place)?,
        })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut h = self.conv_in.forward(images)?;
        for level in &self.levels {
            h = level.residuals(h)?;
            if let Some(conv) = &level.resample {
                // One row below and one column to the right, as the original's asymmetric padding.
                h = conv.forward(&h.f_constant_pad_nd([0, 1, 0, 1])?)?;
            }
        }
        h = self.middle.forward(h)?;
        self.conv_out.forward(&self.norm.forward(&h)?.f_silu_()?)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv,
    middle: Middle,
    levels: Vec<Level>,
    norm: GroupNorm,
    conv_out: Conv,
}

impl Decoder {
    fn take(w: &mut Weights, config: &VaeConfig, place: Place) -> Result<Self> {
        let widths = &config.block_out_channels;
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut levels = Vec::with_capacity(widths.len());
        let mut inputs = last;
        for (i, &outputs) in widths.iter().rev().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            let resample = if i + 1 < widths.len() { Some("upsamplers") } else { None };
            let layers = config.layers_per_block + 1;
            levels.push(Level::take(w, &name, inputs, outputs, layers, resample, config, place)?);
            inputs = outputs;
        }
        Ok(Self {
            conv_in: Conv::take(w, "decoder.conv_in", last, config.latent_channels, 3, place)?,
            middle: Middle::take(w, "decoder.mid_block", last, config, place)?,
            levels,
            norm: GroupNorm::take(
                w,
                "decoder.conv_norm_out",
                first,
                config.norm_num_groups,
                NORM_EPS,
                place,
            )?,
            conv_out: Conv::take(w, "decoder.conv_out", config.out_channels, first, 3, place)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut h = self.middle.forward(self.conv_in.forward(latents)?)?;
        for level in &self.levels {
            h = level.residuals(h)?;
            if let Some(conv) = &level.resample {
                let (_, _, rows, columns) = h.size4()?;
                h = conv.forward(&h.f_upsample_nearest2d([2 * rows, 2 * columns], None, None)?)?;
            }
        }
        self.conv_out.forward(&self.norm.forward(&h)?.f_silu_()?)
    }
}

/// Residual blocks of one resolution, and the convolution at the change to the next.
#[derive(Debug)]
struct Level {
    residuals: Vec<Residual>,
    resample: Option<Conv>,
}

impl Level {
    #[expect(clippy::too_many_arguments, reason = "the sizes differ between encoder and decoder")]
    fn take(
        w: &mut Weights,
        name: &str,
        inputs: i64,
        outputs: i64,
        layers: i64,
        resample: Option<&str>,
        config: &VaeConfig,
        place: Place,
    ) -> Result<Self> {
        let residuals = (0..layers)
            .map(|i| {
                let inputs = if i == 0 { inputs } else { outputs };
                Residual::take(w, &format!("{name}.resnets.{i}"), inputs, outputs, config, place)
            })
            .collect::<Result<_>>()?;
        let resample = match resample {
            Some(kind) => {
                let conv = Conv::take(w, &format!("{name}.{kind}.0.conv"), outputs, outputs, 3, place)?;
                Some(if kind == "downsamplers" { conv.strided(2) } else { conv })
            }
            None => None,
        };
        Ok(Self { residuals, resample })
    }

    fn residuals(&self, mut h: Tensor) -> Result<Tensor> {
        for residual in &self.residuals {
            h = residual.forward(h)?;
        }
        Ok(h)
    }
}

/// `x + conv(silu(norm(conv(silu(norm(x))))))`, with a 1x1 convolution on `x` where the width changes.
#[derive(Debug)]
struct Residual {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl Residual {
    fn take(
        w: &mut Weights,
        name: &str,
        inputs: i64,
        outputs: i64,
        config: &VaeConfig,
        place: Place,
    ) -> Result<Self> {
        let groups = config.norm_num_groups;
        Ok(Self {
            norm1: GroupNorm::take(w, &format!("{name}.norm1"), inputs, groups, NORM_EPS, place)?,
            conv1: Conv::take(w, &format!("{name}.conv1"), outputs, inputs, 3, place)?,
            norm2: GroupNorm::take(w, &format!("{name}.norm2"), outputs, groups, NORM_EPS, place)?,
            conv2: Conv::take(w, &format!("{name}.conv2"), outputs, outputs, 3, place)?,
            shortcut: match inputs == outputs {
                true => None,
                false => Some(Conv::take(w, &format!("{name}.conv_shortcut"), outputs, inputs, 1, place)?),
            },
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward(&x)?.f_silu_()?)?;
        let mut h = self.conv2.forward(&self.norm2.forward(&h)?.f_silu_()?)?;
        let skip = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x)?,
            None => x,
        };
        Ok(h.f_add_(&skip)?)
    }
}

/// The innermost blocks: residual, attention of one head over all positions, residual.
#[derive(Debug)]
struct Middle {
    before: Residual,
    attention: Option<Attention>,
    after: Residual,
}

impl Middle {
    fn take(w: &mut Weights, name: &str, width: i64, config: &VaeConfig, place: Place) -> Result<Self> {
        Ok(Self {
            before: Residual::take(w, &format!("{name}.resnets.0"), width, width, config, place)?,
            attention: match config.mid_block_add_attention {
                true => Some(Attention::take(w, &format!("{name}.attentions.0"), width, config, place)?),
                false => None,
            },
            after: Residual::take(w, &format!("{name}.resnets.1"), width, width, config, place)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let mut h = self.before.forward(x)?;
        if let Some(attention) = &self.attention {
            h = attention.forward(&h)?;
        }
        self.after.forward(h)
    }
}

#[derive(Debug)]
struct Attention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl Attention {
    fn take(w: &mut Weights, name: &str, width: i64, config: &VaeConfig, place: Place) -> Result<Self> {
        // Files from before 2023 use the old names, and some of them 1x1 convolutions.
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            w.rename(&format!("{name}.{old}.weight"), &format!("{name}.{new}.weight"), &[width, width]);
            w.rename(&format!("{name}.{old}.bias"), &format!("{name}.{new}.bias"), &[width]);
        }
        let linear =
            |part: &str, w: &mut Weights| Linear::take(w, &format!("{name}.{part}"), width, width, place);
        Ok(Self {
            query: linear("to_q", w)?,
            key: linear("to_k", w)?,
            value: linear("to_v", w)?,
            out: linear("to_out.0", w)?,
            norm: GroupNorm::take(
                w,
                &format!("{name}.group_norm"),
                width,
                config.norm_num_groups,
                NORM_EPS,
                place,
            )?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, width, rows, columns) = x.size4()?;
        let tokens = self.norm.forward(x)?.f_view([batch, width, rows * columns])?.f_transpose(1, 2)?;
        // One head: `[B, 1, positions, width]`.
        let head = |linear: &Linear| -> Result<Tensor> { Ok(linear.forward(&tokens)?.f_unsqueeze(1)?) };
        let (q, k, v) = (head(&self.query)?, head(&self.key)?, head(&self.value)?);
        let mixed =
            Tensor::f_scaled_dot_product_attention::<&Tensor>(&q, &k, &v, None, 0.0, false, None, false)?;
        let out = self.out.forward(&mixed.f_squeeze_dim(1)?)?.f_transpose(1, 2)?;
        Ok(out.f_reshape([batch, width, rows, columns])?.f_add(x)?)
    }
}

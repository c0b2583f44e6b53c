//! The diffusion transformer (DiT, Peebles and Xie 2023), from the repository's own weights or diffusers'. SiT (Ma et
//! al. 2024) is the same network.

use super::config::DitConfig;
use super::dit_layout::Layout;
use super::embedding::{TimeEmbedding, position_embedding};
use super::layers::{Conv, Linear};
use super::weights::{Place, Weights};
use crate::method::{Denoiser, Prediction, Velocity, classifier_free};
use crate::{Error, Result};
use diver_loaders::Conditioning;
use tch::{Device, Kind, Tensor};

/// Parts of a block's modulation: shift, scale and gate of the attention, then of the MLP.
const BLOCK_PARTS: i64 = 6;
/// Parts of the final layer's modulation: shift and scale.
const FINAL_PARTS: i64 = 2;
/// Positions of the scales among a block's parts.
const BLOCK_SCALES: [i64; 2] = [1, 4];
/// Epsilon of the layer normalisations.
const NORM_EPS: f64 = 1e-6;

/// Numbers in which diffusers' class departs from the DiT repository. The weights were trained with the
/// repository's, so those are used whichever file the weights come from; the other set exists for tests against
/// diffusers itself.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convention {
    /// Frequency `j` of the time features is `10000^(-j / (half - this))`.
    pub time_divisor_less: f64,
    /// Epsilon of the layer normalisation before the MLP.
    pub mlp_norm_eps: f64,
}

impl Convention {
    /// The DiT repository's.
    pub const OFFICIAL: Self = Self { time_divisor_less: 0.0, mlp_norm_eps: NORM_EPS };
    /// Those of diffusers' `DiTTransformer2DModel`.
    pub const DIFFUSERS: Self = Self { time_divisor_less: 1.0, mlp_norm_eps: 1e-5 };
}

/// A frozen DiT or SiT.
///
/// ```
/// use diver::backbone::{Backbone, Network};
/// use diver::method::Denoiser;
/// use tch::{Device, Kind, Tensor};
///
/// let backbone = Backbone::builder("examples/digits/backbone").build(Device::Cpu, Kind::Float)?;
/// let Network::Dit(dit) = backbone.network() else { panic!("a DiT is expected") };
/// let z = Tensor::randn([2, 4, 8, 8], (Kind::Float, Device::Cpu));
/// // Two images of a three, guided by a scale of 4 on three channels, at timestep 500.
/// let guided = tch::no_grad(|| dit.guided(&[3, 3], 4.0, 3)?.predict(&z, 500))?;
/// assert_eq!(guided.eps.size(), z.size());
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Dit {
    config: DitConfig,
    place: Place,
    mlp_norm_eps: f64,
    patch: Conv,
    positions: Tensor,
    time: TimeEmbedding,
    classes: Tensor,
    blocks: Vec<Block>,
    modulation: Linear,
    /// 1 at the scales, 0 elsewhere, `[parts, 1]`: turns every scale `s` into the factor `1 + s` at once.
    ones_at_scales: Tensor,
    last: Linear,
}

/// The weights of one transformer block, its modulation apart.
#[derive(Debug)]
struct Block {
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
}

impl Dit {
    /// A DiT from weights with the DiT repository's names or diffusers'.
    ///
    /// # Errors
    /// [`Error::File`] if the configuration makes no network, or the weights are not exactly its own.
    pub fn new(config: DitConfig, weights: Weights, place: Place) -> Result<Self> {
        Self::with_convention(config, weights, place, Convention::OFFICIAL)
    }

    #[doc(hidden)]
    pub fn with_convention(
        config: DitConfig,
        mut weights: Weights,
        place: Place,
        convention: Convention,
    ) -> Result<Self> {
        config.check(weights.path())?;
        let layout = Layout::of(&weights);
        let w = &mut weights;
        let (hidden, depth) = (config.hidden(), config.num_layers);
        let (patch, channels) = (config.patch_size, config.in_channels);

        // What the labels and timesteps go through stays f32: it is small, and bf16 would blur the time.
        let exact = Place { kind: Kind::Float, ..place };
        layout.drop_embedder_copies(w, depth)?;
        let given_positions = match layout {
            Layout::Official => Some(w.take("pos_embed", &[1, config.tokens(), hidden], place)?),
            Layout::Diffusers => {
                w.ignore("pos_embed.pos_embed");
                None
            }
        };
        let mut modulations = Vec::with_capacity(depth as usize + 1);
        let mut blocks = Vec::with_capacity(depth as usize);
        for i in 0..depth {
            let name = |part: &str| layout.name(&format!("blocks.{i}.{part}"));
            blocks.push(Block {
                qkv: layout.take_qkv(w, i, hidden, place)?,
                proj: Linear::take(w, &name("attn.proj"), hidden, hidden, place)?,
                fc1: Linear::take(w, &name("mlp.fc1"), 4 * hidden, hidden, place)?,
                fc2: Linear::take(w, &name("mlp.fc2"), hidden, 4 * hidden, place)?,
            });
            modulations.push((name("adaLN_modulation.1"), BLOCK_PARTS * hidden));
        }
        modulations.push((layout.name("final_layer.adaLN_modulation.1"), FINAL_PARTS * hidden));

        let modulation = Linear::take_stacked(w, &modulations, hidden, place)?;
        let embedder = Conv::take(w, &layout.name("x_embedder.proj"), hidden, channels, patch, place)?;
        let time = TimeEmbedding::take(w, layout, hidden, convention.time_divisor_less, exact)?;
        let table = layout.name("y_embedder.embedding_table.weight");
        let classes = w.take(&table, &[config.num_embeds_ada_norm + 1, hidden], exact)?;
        let outputs = patch * patch * config.out();
        let last = Linear::take(w, &layout.name("final_layer.linear"), outputs, hidden, place)?;

        // What is computed from the configuration comes after the weights have borne it out.
        weights.finish()?;
        let positions = match given_positions {
            Some(given) => given,
            None => {
                let computed = position_embedding(hidden, config.grid())?;
                computed.f_to_device(place.device)?.f_to_kind(place.kind)?
            }
        };
        Ok(Self {
            place,
            mlp_norm_eps: convention.mlp_norm_eps,
            patch: embedder.strided(patch),
            positions,
            time,
            classes,
            blocks,
            modulation,
            ones_at_scales: ones_at_scales(depth, place)?,
            last,
            config,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Number of classes; the null class comes after them.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        usize::try_from(self.config.num_embeds_ada_norm).unwrap_or(0)
    }

    /// The device that the network is on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.place.device
    }

    /// All output channels for latents `x` `[R, C, h, w]`, timesteps `t` `[R]` and classes `y` `[R]` (i64, the null
    /// class included): `[R, out, h, w]`, in the network's dtype.
    ///
    /// # Errors
    /// If a shape does not fit, or libtorch fails.
    pub fn forward(&self, x: &Tensor, t: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.forward_tapped(x, t, y, &mut |_, _| {})
    }

    /// [`forward`](Self::forward) that shows what lies between, by the names of the golden files.
    #[doc(hidden)]
    pub fn forward_tapped(
        &self,
        x: &Tensor,
        t: &Tensor,
        y: &Tensor,
        tap: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let tokens = self.tokens(x)?;
        tap("tokens", &tokens);
        let features = self.time.features(t)?;
        tap("time_features", &features);
        let cond = self.time.mlp(&features)?.f_add(&self.classes.f_index_select(0, y)?)?;
        tap("cond", &cond);
        self.transform(tokens, &self.modulate(&cond)?, tap)
    }

    /// A denoiser for these classes with classifier-free guidance; a scale of 1 leaves the unconditional half out.
    ///
    /// # Errors
    /// [`Error::Conditioning`] if a class does not exist; [`Error::Knob`] if `channels` exceeds a latent's.
    pub fn guided(&self, classes: &[usize], scale: f64, channels: usize) -> Result<Guided<'_>> {
        classes.iter().try_for_each(|class| check_class(*class, self.num_classes()))?;
        check_guided_channels(channels, self.config.in_channels)?;
        let is_guided = scale != 1.0;
        let mut rows = classes.to_vec();
        if is_guided {
            rows.resize(2 * classes.len(), self.num_classes());
        }
        // Most batches show few classes: what depends on the class alone is computed once for each.
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let position = |class: &usize| distinct.binary_search(class).unwrap_or(0) as i64;
        let to_device = |values: Vec<i64>| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(&values)?.f_to_device(self.place.device)?)
        };
        let table = to_device(distinct.iter().map(|class| *class as i64).collect())?;
        Ok(Guided {
            dit: self,
            classes: self.classes.f_index_select(0, &table)?,
            rows: to_device(rows.iter().map(position).collect())?,
            guidance: is_guided.then_some((scale, channels)),
        })
    }

    /// Patches of latents as tokens with their positions, `[R, tokens, hidden]`.
    fn tokens(&self, x: &Tensor) -> Result<Tensor> {
        let side = self.config.sample_size;
        if !matches!(x.size()[..], [_, c, h, w] if c == self.config.in_channels && h == side && w == side) {
            let expected = format!("[B, {}, {side}, {side}]", self.config.in_channels);
            return Err(Error::tensor("latents", expected, format!("{:?}", x.size())));
        }
        let patches = self.patch.forward(&x.f_to_kind(self.place.kind)?)?;
        Ok(patches.f_flatten(2, 3)?.f_transpose(1, 2)?.f_add(&self.positions)?)
    }

    /// Every block's modulation for conditions `[U, hidden]` (f32): `[U, parts, hidden]`, scales as `1 + s`.
    fn modulate(&self, cond: &Tensor) -> Result<Tensor> {
        let stacked = self.modulation.forward(&cond.f_silu()?.f_to_kind(self.place.kind)?)?;
        let parts = BLOCK_PARTS * self.config.num_layers + FINAL_PARTS;
        let mut stacked = stacked.f_view([-1, parts, self.config.hidden()])?;
        Ok(stacked.f_add_(&self.ones_at_scales)?)
    }

    /// The blocks and the final layer: tokens `[R, tokens, hidden]` to `[R, out, h, w]`.
    fn transform(
        &self,
        tokens: Tensor,
        modulation: &Tensor,
        tap: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let mut h = tokens;
        let mut first_part = 0;
        for (i, block) in self.blocks.iter().enumerate() {
            let part = |j: i64| modulation.f_narrow(1, first_part + j, 1);
            let u = self.norm(&h, NORM_EPS, &part(0)?, &part(1)?)?;
            h = h.f_addcmul_(&part(2)?, &block.attention(&u, self.config.num_attention_heads)?)?;
            let u = self.norm(&h, self.mlp_norm_eps, &part(3)?, &part(4)?)?;
            h = h.f_addcmul_(&part(5)?, &block.mlp(&u)?)?;
            tap(&format!("block{i}"), &h);
            first_part += BLOCK_PARTS;
        }
        let (shift, scale) =
            (modulation.f_narrow(1, first_part, 1)?, modulation.f_narrow(1, first_part + 1, 1)?);
        let out = self.last.forward(&self.norm(&h, NORM_EPS, &shift, &scale)?)?;

        // Each token holds its patch as (row, column, channel).
        let (grid, patch, channels) = (self.config.grid(), self.config.patch_size, self.config.out());
        let side = grid * patch;
        Ok(out
            .f_reshape([-1, grid, grid, patch, patch, channels])?
            .f_permute([0, 5, 1, 3, 2, 4])?
            .f_reshape([-1, channels, side, side])?)
    }

    /// `norm(h) * scale + shift`, the scale being `1 + s` already.
    fn norm(&self, h: &Tensor, eps: f64, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let normed = h.f_layer_norm::<&Tensor>([self.config.hidden()], None, None, eps, true)?;
        Ok(shift.f_addcmul(&normed, scale)?)
    }
}

impl Block {
    /// Self-attention of tokens `[R, tokens, hidden]`.
    fn attention(&self, u: &Tensor, heads: i64) -> Result<Tensor> {
        let (rows, tokens, hidden) = u.size3()?;
        let qkv = self.qkv.forward(u)?.f_view([rows, tokens, 3, heads, hidden / heads])?;
        let qkv = qkv.f_permute([2, 0, 3, 1, 4])?;
        let (q, k, v) = (qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?);
        let mixed =
            Tensor::f_scaled_dot_product_attention::<&Tensor>(&q, &k, &v, None, 0.0, false, None, false)?;
        self.proj.forward(&mixed.f_transpose(1, 2)?.f_reshape([rows, tokens, hidden])?)
    }

    fn mlp(&self, u: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&self.fc1.forward_gelu(u)?)
    }
}

fn ones_at_scales(depth: i64, place: Place) -> Result<Tensor> {
    let parts = BLOCK_PARTS * depth + FINAL_PARTS;
    let is_scale = |part: i64| {
        if part < BLOCK_PARTS * depth {
            BLOCK_SCALES.contains(&(part % BLOCK_PARTS))
        } else {
            part == parts - 1
        }
    };
    let ones: Vec<f32> = (0..parts).map(|part| f32::from(u8::from(is_scale(part)))).collect();
    Ok(Tensor::f_from_slice(&ones)?.f_view([parts, 1])?.f_to_device(place.device)?.f_to_kind(place.kind)?)
}

/// A [`Dit`] with the labels of a batch and classifier-free guidance ([`Dit::guided`]).
#[derive(Debug)]
pub struct Guided<'a> {
    dit: &'a Dit,
    /// Embeddings of the distinct classes, `[U, hidden]`, f32.
    classes: Tensor,
    /// The distinct class of each row, `[R]`: the batch, then its unconditional half if there is one.
    rows: Tensor,
    guidance: Option<(f64, usize)>,
}

/// The class that a sample is refined as, by a network that was trained on `classes`.
pub(crate) fn class_of(conditioning: &Conditioning, classes: usize) -> Result<usize> {
    match conditioning {
        Conditioning::Class(class) => check_class(*class, classes).map(|()| *class),
        other => Err(Error::Conditioning {
            conditioning: other.to_string(),
            reason: format!("this backbone is conditioned on one of {classes} classes, not on text"),
        }),
    }
}

fn check_class(class: usize, classes: usize) -> Result<()> {
    if class < classes {
        return Ok(());
    }
    Err(Error::Conditioning {
        conditioning: format!("class {class}"),
        reason: format!("this backbone knows the classes 0 to {}", classes.saturating_sub(1)),
    })
}

/// Refuses classifier-free guidance on more channels than a latent has.
pub(super) fn check_guided_channels(channels: usize, latent: i64) -> Result<()> {
    if channels as i64 <= latent {
        return Ok(());
    }
    Err(Error::knob("cfg_channels", format!("{channels} is more than the {latent} of a latent")))
}

impl Guided<'_> {
    /// All output channels for latents `z` (`[B, C, h, w]`, f32) at one time: `[B, out, h, w]`, f32.
    fn outputs(&self, z: &Tensor, time: f64) -> Result<Tensor> {
        let dit = self.dit;
        let t = Tensor::f_full([1], time, (Kind::Float, dit.place.device))?;
        let cond = dit.time.mlp(&dit.time.features(&t)?)?.f_add(&self.classes)?;
        let modulation = dit.modulate(&cond)?.f_index_select(0, &self.rows)?;

        let tokens = dit.tokens(z)?;
        let tokens = match self.guidance {
            Some(_) => Tensor::f_cat(&[&tokens, &tokens], 0)?,
            None => tokens,
        };
        let out = dit.transform(tokens, &modulation, &mut |_, _| {})?.f_to_kind(Kind::Float)?;
        match self.guidance {
            Some((scale, channels)) => {
                let half = z.size()[0];
                classifier_free(&out.f_narrow(0, 0, half)?, &out.f_narrow(0, half, half)?, scale, channels)
            }
            None => Ok(out),
        }
    }
}

/// As a DiT, which was trained to predict the noise.
impl Denoiser for Guided<'_> {
    fn predict(&self, z: &Tensor, tau: i64) -> Result<Prediction> {
        let out = self.outputs(z, tau as f64)?;
        let (latent, total) = (self.dit.config.in_channels, self.dit.config.out());
        Ok(Prediction {
            eps: out.f_narrow(1, 0, latent)?,
            variance: match total - latent {
                0 => None,
                rest => Some(out.f_narrow(1, latent, rest)?),
            },
        })
    }
}

/// As a SiT, which was trained to predict the velocity. It has a DiT's channels for a variance, which mean nothing.
impl Velocity for Guided<'_> {
    fn velocity(&self, z: &Tensor, s: f64) -> Result<Tensor> {
        Ok(self.outputs(z, s)?.f_narrow(1, 0, self.dit.config.in_channels)?)
    }
}

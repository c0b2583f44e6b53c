//! Embeddings of time and place.

use super::dit_layout::Layout;
use super::layers::Linear;
use super::weights::{Place, Weights};
use crate::Result;
use tch::{Device, Kind, Tensor};

/// Time features where the file does not say otherwise: those of every published DiT.
const TIME_FEATURES: i64 = 256;

/// The longest period of both embeddings (Vaswani et al. 2017).
const BASE: f64 = 10000.0;

/// Sinusoidal features of the timestep and the MLP behind them, in f32.
#[derive(Debug)]
pub(super) struct TimeEmbedding {
    frequencies: Tensor,
    sine_first: bool,
    hidden: Linear,
    out: Linear,
}

impl TimeEmbedding {
    /// `divisor_less` is 0 for the published models; see `Convention`.
    pub(super) fn take(
        w: &mut Weights,
        layout: Layout,
        hidden: i64,
        divisor_less: f64,
        place: Place,
    ) -> Result<Self> {
        let name = layout.name("t_embedder.mlp.0");
        let features = match w.shape(&format!("{name}.weight")).as_deref() {
            Some([_, features]) if *features > 2 && features % 2 == 0 => *features,
            _ => TIME_FEATURES,
        };
        Self::named(w, [&name, &layout.name("t_embedder.mlp.2")], features, hidden, divisor_less, place)
    }

    /// The same with the names of its two layers, and as many `features` as the configuration says.
    pub(super) fn named(
        w: &mut Weights,
        [first, second]: [&str; 2],
        features: i64,
        hidden: i64,
        divisor_less: f64,
        place: Place,
    ) -> Result<Self> {
        // In f32 and in this order, as the reference computes them: angles reach 999, where a rounding shows.
        let half = features / 2;
        let frequencies = Tensor::f_arange(half, (Kind::Float, Device::Cpu))?
            .f_mul_scalar(-BASE.ln())?
            .f_div_scalar(half as f64 - divisor_less)?
            .f_exp()?;
        Ok(Self {
            frequencies: frequencies.f_to_device(place.device)?,
            sine_first: false,
            hidden: Linear::take(w, first, hidden, features, place)?,
            out: Linear::take(w, second, hidden, hidden, place)?,
        })
    }

    /// The same with features `[sin | cos]`.
    pub(super) fn sine_first(self) -> Self {
        Self { sine_first: true, ..self }
    }

    /// `[cos | sin]` of timesteps `[R]`: `[R, features]`.
    pub(super) fn features(&self, t: &Tensor) -> Result<Tensor> {
        let angles = t.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&self.frequencies)?;
        let (cos, sin) = (angles.f_cos()?, angles.f_sin()?);
        let halves = if self.sine_first { [sin, cos] } else { [cos, sin] };
        Ok(Tensor::f_cat(&halves, 1)?)
    }

    /// `[R, features]` to `[R, hidden]`.
    pub(super) fn mlp(&self, features: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.hidden.forward(features)?.f_silu_()?)
    }
}

/// Sine-cosine embedding of a square grid of tokens in row-major order, `[1, grid * grid, width]`, f32: the first
/// half of a token encodes its column, the second its row, each as sines and then cosines.
pub(super) fn position_embedding(width: i64, grid: i64) -> Result<Tensor> {
    let quarter = width / 4;
    let mut values = Vec::with_capacity((grid * grid * width) as usize);
    for row in 0..grid {
        for column in 0..grid {
            for position in [column, row] {
                let angle = |j: i64| position as f64 / BASE.powf(j as f64 / quarter as f64);
                values.extend((0..quarter).map(|j| angle(j).sin() as f32));
                values.extend((0..quarter).map(|j| angle(j).cos() as f32));
            }
        }
    }
    Ok(Tensor::f_from_slice(&values)?.f_view([1, grid * grid, width])?)
}

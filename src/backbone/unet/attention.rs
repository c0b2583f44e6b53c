//! Attention over the positions of a feature map, and from them to a prompt.

use super::context::Attended;
use super::parts::Parts;
use crate::Result;
use crate::backbone::layers::{GroupNorm, LayerNorm, Linear};
use crate::backbone::weights::Weights;
use tch::Tensor;

/// Epsilon of the group normalisation at the entry; the residual blocks have the configuration's.
const ENTRY_EPS: f64 = 1e-6;
/// Epsilon of the layer normalisations.
const NORM_EPS: f64 = 1e-5;
/// The feed-forward part is this many times as wide.
const WIDER: i64 = 4;

/// One transformer block between two projections, added to what it is given (diffusers' `Transformer2DModel`).
#[derive(Debug)]
pub(super) struct SpatialTransformer {
    entry: GroupNorm,
    project_in: Linear,
    norms: [LayerNorm; 3],
    qkv: Linear,
    out: Linear,
    cross_query: Linear,
    cross_out: Linear,
    widen: Linear,
    narrow: Linear,
    project_out: Linear,
    heads: i64,
    /// Which of the prompt's keys and values are its own.
    index: usize,
}

impl SpatialTransformer {
    pub(super) fn take(p: &mut Parts<'_>, name: &str, width: i64, heads: i64) -> Result<Self> {
        let (groups, tokens, place) = (p.config.norm_num_groups, p.config.cross_attention_dim, p.place);
        let block = format!("{name}.transformer_blocks.0");
        let w = &mut *p.weights;
        // Older files hold these as 1x1 convolutions, which are the same thing.
        for part in ["proj_in", "proj_out"] {
            let weight = format!("{name}.{part}.weight");
            w.rename(&weight, &weight, &[width, width]);
        }
        let named = |part: &str| (format!("{block}.{part}"), width);
        let qkv = ["attn1.to_q", "attn1.to_k", "attn1.to_v"].map(named);
        let qkv = Linear::take_stacked_without_bias(w, &qkv, width, place)?;
        let cross_query = Linear::without_bias(w, &format!("{block}.attn2.to_q"), width, width, place)?;
        let key_value = ["attn2.to_k", "attn2.to_v"].map(named);
        let key_value = Linear::take_stacked_without_bias(w, &key_value, tokens, place)?;
        let norm =
            |w: &mut Weights, i: u8| LayerNorm::take(w, &format!("{block}.norm{i}"), width, NORM_EPS, place);
        Ok(Self {
            entry: GroupNorm::take(w, &format!("{name}.norm"), width, groups, ENTRY_EPS, place)?,
            project_in: Linear::take(w, &format!("{name}.proj_in"), width, width, place)?,
            norms: [norm(w, 1)?, norm(w, 2)?, norm(w, 3)?],
            qkv,
            out: Linear::take(w, &format!("{block}.attn1.to_out.0"), width, width, place)?,
            cross_query,
            cross_out: Linear::take(w, &format!("{block}.attn2.to_out.0"), width, width, place)?,
            widen: Linear::take(w, &format!("{block}.ff.net.0.proj"), 2 * WIDER * width, width, place)?,
            narrow: Linear::take(w, &format!("{block}.ff.net.2"), width, WIDER * width, place)?,
            project_out: Linear::take(w, &format!("{name}.proj_out"), width, width, place)?,
            heads,
            index: p.attended(key_value, heads),
        })
    }

    /// Feature maps `[R, width, h, w]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor, prompt: &[Attended]) -> Result<Tensor> {
        let (rows, width, height, columns) = x.size4()?;
        let tokens = self.entry.forward(x)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let mut h = self.project_in.forward(&tokens)?;
        h = h.f_add_(&self.attend_to_itself(&self.norms[0].forward(&h)?)?)?;
        let (key, value) = prompt[self.index].for_rows(rows)?;
        let query = self.split(&self.cross_query.forward(&self.norms[1].forward(&h)?)?)?;
        h = h.f_add_(&self.cross_out.forward(&attend(&query, &key, &value)?)?)?;
        h = h.f_add_(&self.feed_forward(&self.norms[2].forward(&h)?)?)?;
        let out = self.project_out.forward(&h)?.f_transpose(1, 2)?;
        Ok(out.f_reshape([rows, width, height, columns])?.f_add(x)?)
    }

    fn attend_to_itself(&self, u: &Tensor) -> Result<Tensor> {
        let (rows, tokens, width) = u.size3()?;
        let qkv = self.qkv.forward(u)?.f_view([rows, tokens, 3, self.heads, width / self.heads])?;
        let qkv = qkv.f_permute([2, 0, 3, 1, 4])?;
        self.out.forward(&attend(&qkv.f_select(0, 0)?, &qkv.f_select(0, 1)?, &qkv.f_select(0, 2)?)?)
    }

    /// `[R, tokens, width]` as `[R, heads, tokens, width / heads]`.
    fn split(&self, u: &Tensor) -> Result<Tensor> {
        let (rows, tokens, width) = u.size3()?;
        Ok(u.f_view([rows, tokens, self.heads, width / self.heads])?.f_transpose(1, 2)?)
    }

    /// Linear units gated by the GELU of others (Shazeer 2020).
    fn feed_forward(&self, u: &Tensor) -> Result<Tensor> {
        let wide = self.widen.forward(u)?.f_chunk(2, -1)?;
        let [linear, gate] = wide.as_slice() else {
            return Err(tch::TchError::Torch("the gate is not as wide as what it gates".to_owned()).into());
        };
        self.narrow.forward(&gate.f_gelu("none")?.f_mul_(linear)?)
    }
}

/// Attention of `[R, heads, tokens, head]`, the heads put together again: `[R, tokens, heads * head]`.
fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let mixed =
        Tensor::f_scaled_dot_product_attention::<&Tensor>(query, key, value, None, 0.0, false, None, false)?;
    Ok(mixed.f_transpose(1, 2)?.f_flatten(2, 3)?)
}

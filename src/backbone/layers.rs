//! The few layers of which the networks are made: plain structs of frozen tensors.

use super::weights::{Place, Weights};
use crate::Result;
use tch::Tensor;

/// `x W^T + b` over the last dimension.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `name.weight` `[outputs, inputs]` and `name.bias`.
    pub(super) fn take(
        weights: &mut Weights,
        name: &str,
        outputs: i64,
        inputs: i64,
        place: Place,
    ) -> Result<Self> {
        let layer = Self::without_bias(weights, name, outputs, inputs, place)?;
        Ok(Self { bias: Some(weights.take(&format!("{name}.bias"), &[outputs], place)?), ..layer })
    }

    /// `name.weight` `[outputs, inputs]` alone.
    pub(super) fn without_bias(
        weights: &mut Weights,
        name: &str,
        outputs: i64,
        inputs: i64,
        place: Place,
    ) -> Result<Self> {
        Ok(Self { weight: weights.take(&format!("{name}.weight"), &[outputs, inputs], place)?, bias: None })
    }

    /// Several layers of one input, by their names and outputs, as one: their outputs lie side by side. Of weights with
    /// a fault, which [`Weights::finish`] will refuse, nothing is stacked: that would give placeholders of any size
    /// memory.
    pub(super) fn take_stacked(
        weights: &mut Weights,
        layers: &[(String, i64)],
        inputs: i64,
        place: Place,
    ) -> Result<Self> {
        let layer = Self::take_stacked_without_bias(weights, layers, inputs, place)?;
        let biases = parts(layers, "bias");
        Ok(Self { bias: Some(weights.take_stacked(&biases, &[], place)?), ..layer })
    }

    /// The same for layers without biases.
    pub(super) fn take_stacked_without_bias(
        weights: &mut Weights,
        layers: &[(String, i64)],
        inputs: i64,
        place: Place,
    ) -> Result<Self> {
        Ok(Self { weight: weights.take_stacked(&parts(layers, "weight"), &[inputs], place)?, bias: None })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
    }

    /// [`forward`](Self::forward), then GELU in its tanh form.
    pub(super) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        // On CUDA, cuBLAS computes it within the product, which saves a pass over the widest of all activations. On the
        // CPU, libtorch's call is the exact GELU.
        match &self.bias {
            Some(bias) if x.device().is_cuda() => {
                let mut shape = x.size();
                let rows = x.f_flatten(0, -2)?;
                let out = bias.f_internal_addmm_activation(&rows, &self.weight.f_tr()?, true)?;
                if let Some(width) = shape.last_mut() {
                    *width = self.weight.size()[0];
                }
                Ok(out.f_view(&shape[..])?)
            }
            _ => Ok(self.forward(x)?.f_gelu_("tanh")?),
        }
    }
}

/// A part of each layer, by its name and rows.
fn parts(layers: &[(String, i64)], part: &str) -> Vec<(String, i64)> {
    layers.iter().map(|(name, outputs)| (format!("{name}.{part}"), *outputs)).collect()
}

/// A square convolution.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv {
    /// `name.weight` `[outputs, inputs, side, side]` and `name.bias`; stride 1, and as much padding as keeps the
    /// size.
    pub(super) fn take(
        weights: &mut Weights,
        name: &str,
        outputs: i64,
        inputs: i64,
        side: i64,
        place: Place,
    ) -> Result<Self> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[outputs, inputs, side, side], place)?,
            bias: weights.take(&format!("{name}.bias"), &[outputs], place)?,
            stride: 1,
            padding: side / 2,
        })
    }

    /// The same weights at every second row and column, padded on all sides.
    pub(super) fn halving(self) -> Self {
        Self { stride: 2, ..self }
    }

    /// The same weights with another stride, and no padding.
    pub(super) fn strided(self, stride: i64) -> Self {
        Self { stride, padding: 0, ..self }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(x.f_conv2d(&self.weight, Some(&self.bias), stride, padding, [1, 1], 1)?)
    }
}

/// Group normalisation with learned scale and shift.
#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `name.weight` and `name.bias`, `[channels]`.
    pub(super) fn take(
        weights: &mut Weights,
        name: &str,
        channels: i64,
        groups: i64,
        eps: f64,
        place: Place,
    ) -> Result<Self> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[channels], place)?,
            bias: weights.take(&format!("{name}.bias"), &[channels], place)?,
            groups,
            eps,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)?)
    }
}

/// Layer normalisation with learned scale and shift.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    /// `name.weight` and `name.bias`, `[width]`.
    pub(super) fn take(w: &mut Weights, name: &str, width: i64, eps: f64, place: Place) -> Result<Self> {
        Ok(Self {
            weight: w.take(&format!("{name}.weight"), &[width], place)?,
            bias: w.take(&format!("{name}.bias"), &[width], place)?,
            width,
            eps,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm([self.width], Some(&self.weight), Some(&self.bias), self.eps, true)?)
    }
}

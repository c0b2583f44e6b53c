//! Layers with PyTorch's initial weights, which differ from tch's.

use tch::Tensor;
use tch::nn::{self, ModuleT};

/// PyTorch's default for the weights and biases of linear and convolution layers, `±1/sqrt(fan in)`. (tch draws
/// weights from a range `sqrt(6)` times as wide and sets the biases of convolutions to 0.)
fn within_fan_in(fan_in: i64) -> nn::Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    nn::Init::Uniform { lo: -bound, up: bound }
}

/// A linear layer.
pub(super) fn linear(vs: nn::Path<'_>, inputs: i64, outputs: i64) -> nn::Linear {
    let init = within_fan_in(inputs);
    let config = nn::LinearConfig { ws_init: init, bs_init: Some(init), bias: true };
    nn::linear(vs, inputs, outputs, config)
}

/// A convolution of `kernel` x `kernel`; `config` without regard to its initial weights.
pub(super) fn conv(
    vs: nn::Path<'_>,
    inputs: i64,
    outputs: i64,
    kernel: i64,
    config: nn::ConvConfig,
) -> nn::Conv2D {
    let init = within_fan_in(inputs / config.groups * kernel * kernel);
    nn::conv2d(vs, inputs, outputs, kernel, nn::ConvConfig { ws_init: init, bs_init: init, ..config })
}

/// A convolution of `kernel` x `kernel` without bias, padded to keep the size, and its batch norm.
pub(super) fn conv_norm(
    vs: &nn::Path<'_>,
    inputs: i64,
    outputs: i64,
    kernel: i64,
    stride: i64,
    groups: i64,
) -> nn::SequentialT {
    let config = nn::ConvConfig { stride, padding: kernel / 2, groups, bias: false, ..Default::default() };
    nn::seq_t().add(conv(vs / "conv", inputs, outputs, kernel, config)).add(batch_norm(vs / "norm", outputs))
}

/// A batch norm that starts as the identity. (tch draws its scales from 0 to 1.)
pub(super) fn batch_norm(vs: nn::Path<'_>, channels: i64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() };
    nn::batch_norm2d(vs, channels, config)
}

/// Mean over rows and columns: `[B, C, H, W]` to `[B, C]`.
pub(super) fn global_average(features: &Tensor) -> Tensor {
    features.mean_dim([2_i64, 3].as_slice(), false, None)
}

/// `body(x) + shortcut(x)`; an empty shortcut is the identity.
#[derive(Debug)]
pub(super) struct Residual {
    pub(super) body: nn::SequentialT,
    pub(super) shortcut: nn::SequentialT,
}

impl ModuleT for Residual {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        self.body.forward_t(x, train) + self.shortcut.forward_t(x, train)
    }
}

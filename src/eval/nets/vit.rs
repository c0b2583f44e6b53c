//! A small vision transformer.

use super::layers::{conv, linear};
use tch::Tensor;
use tch::nn::{self, Module};

const PATCH: i64 = 4;
const WIDTH: i64 = 64;
const HEADS: i64 = 4;
const LAYERS: i64 = 4;

/// Patch embedding with learned positions, pre-norm layers without dropout, the mean over all tokens normalised.
#[derive(Debug)]
pub(super) struct Vit {
    patches: nn::Conv2D,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: nn::LayerNorm,
    classifier: nn::Linear,
}

impl Vit {
    pub(super) fn new(vs: &nn::Path<'_>, side: i64, classes: i64) -> Self {
        let tokens = (side / PATCH).pow(2);
        let stride = nn::ConvConfig { stride: PATCH, ..Default::default() };
        Self {
            patches: conv(vs / "patches", 3, WIDTH, PATCH, stride),
            positions: vs.randn("positions", &[1, tokens, WIDTH], 0.0, 0.02),
            layers: (0..LAYERS).map(|layer| Layer::new(&(vs / "layers" / layer))).collect(),
            norm: layer_norm(vs / "norm"),
            classifier: linear(vs / "classifier", WIDTH, classes),
        }
    }
}

impl Module for Vit {
    fn forward(&self, images: &Tensor) -> Tensor {
        let tokens = self.patches.forward(images).flatten(2, -1).transpose(1, 2) + &self.positions;
        let tokens = self.layers.iter().fold(tokens, |tokens, layer| layer.forward(&tokens));
        self.classifier.forward(&self.norm.forward(&tokens.mean_dim(1, false, None)))
    }
}

/// Attention and a GELU network twice as wide, each with a norm before and a residual around it. Every layer draws
/// its own weights, where `torch.nn.TransformerEncoder` starts all of its layers from one layer's.
#[derive(Debug)]
struct Layer {
    attention_norm: nn::LayerNorm,
    qkv: nn::Linear,
    projection: nn::Linear,
    mlp_norm: nn::LayerNorm,
    widen: nn::Linear,
    narrow: nn::Linear,
}

impl Layer {
    fn new(vs: &nn::Path<'_>) -> Self {
        // As torch.nn.MultiheadAttention: Xavier uniform over the stacked matrix, zero biases.
        let bound = (6.0 / (WIDTH + 3 * WIDTH) as f64).sqrt();
        let xavier = nn::LinearConfig {
            ws_init: nn::Init::Uniform { lo: -bound, up: bound },
            bs_init: Some(nn::Init::Const(0.0)),
            bias: true,
        };
        let mut projection = linear(vs / "projection", WIDTH, WIDTH);
        if let Some(bias) = &mut projection.bs {
            let _ = tch::no_grad(|| bias.zero_());
        }
        Self {
            attention_norm: layer_norm(vs / "attention_norm"),
            qkv: nn::linear(vs / "qkv", WIDTH, 3 * WIDTH, xavier),
            projection,
            mlp_norm: layer_norm(vs / "mlp_norm"),
            widen: linear(vs / "widen", WIDTH, 2 * WIDTH),
            narrow: linear(vs / "narrow", 2 * WIDTH, WIDTH),
        }
    }

    fn attention(&self, tokens: &Tensor) -> Tensor {
        let (batch, length, _) = tokens.size3().unwrap_or_default();
        // [B, T, 3 * width] -> three of [B, heads, T, width / heads]
        let heads =
            self.qkv.forward(tokens).view([batch, length, 3, HEADS, WIDTH / HEADS]).permute([2, 0, 3, 1, 4]);
        let attended = Tensor::scaled_dot_product_attention(
            &heads.get(0),
            &heads.get(1),
            &heads.get(2),
            None::<Tensor>,
            0.0,
            false,
            None,
            false,
        );
        self.projection.forward(&attended.transpose(1, 2).reshape([batch, length, WIDTH]))
    }
}

impl Module for Layer {
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let tokens = tokens + self.attention(&self.attention_norm.forward(tokens));
        let hidden = self.widen.forward(&self.mlp_norm.forward(&tokens)).gelu("none");
        tokens + self.narrow.forward(&hidden)
    }
}

fn layer_norm(vs: nn::Path<'_>) -> nn::LayerNorm {
    nn::layer_norm(vs, vec![WIDTH], Default::default())
}

//! A small MobileNetV2.

use super::layers::{Residual, batch_norm, conv, conv_norm, global_average, linear};
use tch::nn;

const STEM: i64 = 16;
/// Output channels and stride of each inverted residual block.
const BLOCKS: [(i64, i64); 6] = [(24, 1), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1)];
/// How many times wider a block is inside.
const EXPANSION: i64 = 3;
const HEAD: i64 = 160;
/// How many times smaller than the image, along a side, the last maps are: the stem and two blocks halve.
pub(super) const SHRINKAGE: i64 = 8;

/// A 3 x 3 stem of stride 2, six inverted residual blocks, and a 1 x 1 convolution before the classifier.
pub(super) fn mobilenet(vs: &nn::Path<'_>, classes: i64) -> nn::SequentialT {
    let mut net = nn::seq_t().add(conv_norm(&(vs / "stem"), 3, STEM, 3, 2, 1)).add_fn(|x| x.relu6());
    let mut inputs = STEM;
    for (block, (outputs, stride)) in BLOCKS.into_iter().enumerate() {
        let body = bottleneck(&(vs / "blocks" / block), inputs, outputs, stride);
        net = if inputs == outputs && stride == 1 {
            net.add(Residual { body, shortcut: nn::seq_t() })
        } else {
            net.add(body)
        };
        inputs = outputs;
    }
    // The one convolution that has both a bias and a batch norm.
    net.add(conv(vs / "head" / "conv", inputs, HEAD, 1, Default::default()))
        .add(batch_norm(vs / "head" / "norm", HEAD))
        .add_fn(|x| global_average(&x.relu6()))
        .add(linear(vs / "classifier", HEAD, classes))
}

/// Widen (1 x 1), filter each channel (3 x 3, depthwise), narrow (1 x 1, no activation).
fn bottleneck(vs: &nn::Path<'_>, inputs: i64, outputs: i64, stride: i64) -> nn::SequentialT {
    let inside = inputs * EXPANSION;
    nn::seq_t()
        .add(conv_norm(&(vs / "widen"), inputs, inside, 1, 1, 1))
        .add_fn(|x| x.relu6())
        .add(conv_norm(&(vs / "filter"), inside, inside, 3, stride, inside))
        .add_fn(|x| x.relu6())
        .add(conv_norm(&(vs / "narrow"), inside, outputs, 1, 1, 1))
}

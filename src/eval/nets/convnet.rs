//! The ConvNet that classic methods distil on.

use super::layers::{conv, linear};
use tch::{Tensor, nn};

/// 128 in the literature; a quarter trains on one CPU core in a second.
const WIDTH: i64 = 32;
const DEPTH: i64 = 3;

/// `DEPTH` blocks of 3 x 3 convolution, norm, ReLU and average pooling, and a linear classifier. The norm is a
/// group norm of one channel a group, which the field calls instance norm.
pub(super) fn convnet(vs: &nn::Path<'_>, side: i64, classes: i64) -> nn::SequentialT {
    let mut net = nn::seq_t();
    for block in 0..DEPTH {
        let vs = vs / "blocks" / block;
        let inputs = if block == 0 { 3 } else { WIDTH };
        let padded = nn::ConvConfig { padding: 1, ..Default::default() };
        net = net
            .add(conv(&vs / "conv", inputs, WIDTH, 3, padded))
            .add(nn::group_norm(&vs / "norm", WIDTH, WIDTH, Default::default()))
            .add_fn(|x| average_2x2(&x.relu()));
    }
    let features = WIDTH * (side >> DEPTH).pow(2);
    net.add_fn(|x| x.flatten(1, -1)).add(linear(vs / "classifier", features, classes))
}

/// Not tch's `avg_pool2d_default`, which sums: it passes 1 as the divisor.
fn average_2x2(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
}

//! A narrow ResNet-18.

use super::layers::{Residual, conv_norm, global_average, linear};
use tch::nn;

/// Channels of the first stage; 64 in the original.
const WIDTH: i64 = 16;
/// How many times smaller than the image, along a side, the last maps are: the stem and three stages halve.
pub(super) const SHRINKAGE: i64 = 16;

/// ResNet-18 at a quarter of its width, with a 3 x 3 stem of stride 2 and no max pooling.
pub(super) fn resnet(vs: &nn::Path<'_>, classes: i64) -> nn::SequentialT {
    let mut net = nn::seq_t().add(conv_norm(&(vs / "stem"), 3, WIDTH, 3, 2, 1)).add_fn(|x| x.relu());
    let mut inputs = WIDTH;
    for stage in 0..4 {
        let outputs = WIDTH << stage;
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            net = net.add(basic_block(&(vs / "stages" / stage / block), inputs, outputs, stride));
            net = net.add_fn(|x| x.relu());
            inputs = outputs;
        }
    }
    net.add_fn(global_average).add(linear(vs / "classifier", inputs, classes))
}

fn basic_block(vs: &nn::Path<'_>, inputs: i64, outputs: i64, stride: i64) -> Residual {
    let body = nn::seq_t()
        .add(conv_norm(&(vs / "first"), inputs, outputs, 3, stride, 1))
        .add_fn(|x| x.relu())
        .add(conv_norm(&(vs / "second"), outputs, outputs, 3, 1, 1));
    let shortcut = if inputs == outputs && stride == 1 {
        nn::seq_t()
    } else {
        conv_norm(&(vs / "shortcut"), inputs, outputs, 1, stride, 1)
    };
    Residual { body, shortcut }
}

//! A multilayer perceptron.

use super::layers::linear;
use tch::nn;

const HIDDEN: i64 = 128;

/// Two hidden layers with ReLU over the flattened image.
pub(super) fn mlp(vs: &nn::Path<'_>, side: i64, classes: i64) -> nn::SequentialT {
    nn::seq_t()
        .add_fn(|x| x.flatten(1, -1))
        .add(linear(vs / "first", 3 * side * side, HIDDEN))
        .add_fn(|x| x.relu())
        .add(linear(vs / "second", HIDDEN, HIDDEN))
        .add_fn(|x| x.relu())
        .add(linear(vs / "classifier", HIDDEN, classes))
}

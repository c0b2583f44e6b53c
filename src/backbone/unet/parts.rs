//! What a UNet's blocks are taken from.

use super::config::UnetConfig;
use super::context::KeyValue;
use crate::backbone::layers::Linear;
use crate::backbone::weights::{Place, Weights};

/// What the blocks are taken from, and what they leave to the network to compute once for all of them.
pub(super) struct Parts<'a> {
    pub(super) weights: &'a mut Weights,
    pub(super) config: &'a UnetConfig,
    pub(super) place: Place,
    /// The projections of the time embedding that the residual blocks add, by name and width, and how wide they are
    /// together.
    pub(super) time: Vec<(String, i64)>,
    pub(super) time_width: i64,
    /// The projections of the prompt to keys and values.
    pub(super) prompt: Vec<KeyValue>,
}

impl Parts<'_> {
    /// Width of the time embedding.
    pub(super) fn time_inputs(&self) -> i64 {
        4 * self.config.block_out_channels[0]
    }

    /// Leaves a projection to keys and values to the network; returns its position.
    pub(super) fn attended(&mut self, projection: Linear, heads: i64) -> usize {
        self.prompt.push(KeyValue { projection, heads });
        self.prompt.len() - 1
    }
}

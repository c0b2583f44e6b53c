//! Residual blocks, and the levels that they make up.

use super::attention::SpatialTransformer;
use super::context::Attended;
use super::parts::Parts;
use crate::Result;
use crate::backbone::layers::{Conv, GroupNorm};
use tch::Tensor;

/// `x + conv(silu(norm(conv(silu(norm(x))) + time)))`, with a 1x1 convolution on `x` where the width changes.
#[derive(Debug)]
pub(super) struct Residual {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
    /// Where its part of the projected time starts, and how wide it is.
    time: (i64, i64),
}

impl Residual {
    fn take(p: &mut Parts<'_>, name: &str, inputs: i64, outputs: i64) -> Result<Self> {
        let (groups, eps, place) = (p.config.norm_num_groups, p.config.norm_eps, p.place);
        let w = &mut *p.weights;
        p.time.push((format!("{name}.time_emb_proj"), outputs));
        let time = (p.time_width, outputs);
        p.time_width += outputs;
        Ok(Self {
            norm1: GroupNorm::take(w, &format!("{name}.norm1"), inputs, groups, eps, place)?,
            conv1: Conv::take(w, &format!("{name}.conv1"), outputs, inputs, 3, place)?,
            norm2: GroupNorm::take(w, &format!("{name}.norm2"), outputs, groups, eps, place)?,
            conv2: Conv::take(w, &format!("{name}.conv2"), outputs, outputs, 3, place)?,
            shortcut: match inputs == outputs {
                true => None,
                false => Some(Conv::take(w, &format!("{name}.conv_shortcut"), outputs, inputs, 1, place)?),
            },
            time,
        })
    }

    /// Feature maps `[R, inputs, h, w]`; `time` is `[R, all]`, or `[1, all]` for all rows.
    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let (start, width) = self.time;
        let time = time.f_narrow(1, start, width)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let mut h = self.conv1.forward(&self.norm1.forward(x)?.f_silu_()?)?;
        let h = h.f_add_(&time)?;
        let mut h = self.conv2.forward(&self.norm2.forward(&h)?.f_silu_()?)?;
        match &self.shortcut {
            Some(shortcut) => Ok(h.f_add_(&shortcut.forward(x)?)?),
            None => Ok(h.f_add_(x)?),
        }
    }
}

/// A residual block, and the attention behind it where the level has any.
#[derive(Debug)]
struct Block {
    residual: Residual,
    transformer: Option<SpatialTransformer>,
}

impl Block {
    fn forward(&self, x: &Tensor, time: &Tensor, prompt: &[Attended]) -> Result<Tensor> {
        let h = self.residual.forward(x, time)?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&h, prompt),
            None => Ok(h),
        }
    }
}

/// The blocks of one resolution, going down or up.
#[derive(Debug)]
pub(super) struct Level {
    blocks: Vec<Block>,
    resample: Option<Conv>,
}

impl Level {
    /// A level whose blocks take `inputs` channels each and give `width`; `heads` where there is attention.
    fn take(p: &mut Parts<'_>, name: &str, inputs: &[i64], width: i64, heads: Option<i64>) -> Result<Self> {
        let mut blocks = Vec::with_capacity(inputs.len());
        for (i, &inputs) in inputs.iter().enumerate() {
            let residual = Residual::take(p, &format!("{name}.resnets.{i}"), inputs, width)?;
            let transformer = match heads {
                Some(heads) => {
                    Some(SpatialTransformer::take(p, &format!("{name}.attentions.{i}"), width, heads)?)
                }
                None => None,
            };
            blocks.push(Block { residual, transformer });
        }
        Ok(Self { blocks, resample: None })
    }

    /// All levels going down, and what they give up for the way up: the width of each feature map, in order.
    pub(super) fn take_down(p: &mut Parts<'_>) -> Result<(Vec<Self>, Vec<i64>)> {
        let config = p.config;
        let widths = &config.block_out_channels;
        let mut inputs = widths[0];
        let mut skips = vec![inputs];
        let mut levels = Vec::with_capacity(widths.len());
        for (i, &width) in widths.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            let heads = config.attends_down(i).then(|| config.heads(i));
            let mut each = vec![width; config.layers_per_block as usize];
            each[0] = inputs;
            let mut level = Self::take(p, &name, &each, width, heads)?;
            skips.resize(skips.len() + each.len(), width);
            if i + 1 < widths.len() {
                let conv = format!("{name}.downsamplers.0.conv");
                level.resample = Some(Conv::take(p.weights, &conv, width, width, 3, p.place)?.halving());
                skips.push(width);
            }
            levels.push(level);
            inputs = width;
        }
        Ok((levels, skips))
    }

    /// All levels going up, innermost first, each block of which takes one of the `skips` from the back.
    pub(super) fn take_up(p: &mut Parts<'_>, mut skips: Vec<i64>) -> Result<Vec<Self>> {
        let config = p.config;
        let widths = &config.block_out_channels;
        let mut inputs = widths[widths.len() - 1];
        let mut levels = Vec::with_capacity(widths.len());
        for (i, (level, &width)) in widths.iter().enumerate().rev().enumerate() {
            let name = format!("up_blocks.{i}");
            let heads = config.attends_up(level).then(|| config.heads(level));
            let mut each = Vec::new();
            for _ in 0..=config.layers_per_block {
                each.push(inputs + skips.pop().unwrap_or(0));
                inputs = width;
            }
            let mut up = Self::take(p, &name, &each, width, heads)?;
            if level > 0 {
                let conv = format!("{name}.upsamplers.0.conv");
                up.resample = Some(Conv::take(p.weights, &conv, width, width, 3, p.place)?);
            }
            levels.push(up);
        }
        Ok(levels)
    }

    /// Goes down, and keeps every feature map in `skips`.
    pub(super) fn down(
        &self,
        mut h: Tensor,
        time: &Tensor,
        prompt: &[Attended],
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for block in &self.blocks {
            h = block.forward(&h, time, prompt)?;
            skips.push(h.shallow_clone());
        }
        if let Some(conv) = &self.resample {
            h = conv.forward(&h)?;
            skips.push(h.shallow_clone());
        }
        Ok(h)
    }

    /// Goes up, and takes the feature maps from `skips`.
    pub(super) fn up(
        &self,
        mut h: Tensor,
        time: &Tensor,
        prompt: &[Attended],
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for block in &self.blocks {
            if let Some(skip) = skips.pop() {
                h = Tensor::f_cat(&[h, skip], 1)?;
            }
            h = block.forward(&h, time, prompt)?;
        }
        if let Some(conv) = &self.resample {
            let (_, _, rows, columns) = h.size4()?;
            h = conv.forward(&h.f_upsample_nearest2d([2 * rows, 2 * columns], None, None)?)?;
        }
        Ok(h)
    }
}

/// The innermost blocks: residual, attention, residual.
#[derive(Debug)]
pub(super) struct Middle {
    before: Residual,
    transformer: SpatialTransformer,
    after: Residual,
}

impl Middle {
    pub(super) fn take(p: &mut Parts<'_>) -> Result<Self> {
        let innermost = p.config.levels() - 1;
        let (width, heads) = (p.config.block_out_channels[innermost], p.config.heads(innermost));
        Ok(Self {
            before: Residual::take(p, "mid_block.resnets.0", width, width)?,
            transformer: SpatialTransformer::take(p, "mid_block.attentions.0", width, heads)?,
            after: Residual::take(p, "mid_block.resnets.1", width, width)?,
        })
    }

    pub(super) fn forward(&self, h: &Tensor, time: &Tensor, prompt: &[Attended]) -> Result<Tensor> {
        let h = self.before.forward(h, time)?;
        self.after.forward(&self.transformer.forward(&h, prompt)?, time)
    }
}

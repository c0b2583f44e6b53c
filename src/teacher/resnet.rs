//! ResNets as torchvision builds them (He et al. 2015, arXiv 1512.03385; strides as in its version 1.5), in evaluation
//! mode.
//!
//! tch has these networks, too, but its layers panic where memory runs out, which a smaller batch would mend.

use crate::backbone::{Place, Weights};
use crate::{Error, Result};
use diver_loaders::wording::unknown;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tch::Tensor;

/// Channels of the first stage; each of the three that follow has twice as many.
const WIDTH: i64 = 64;

/// A bottleneck block returns so many times the channels of its inner convolution.
const EXPANSION: i64 = 4;

/// The `eps` of torch's batch norms.
const EPS: f64 = 1e-5;

/// A ResNet by its depth, with torchvision's name.
///
/// ```
/// use diver::ResNet;
///
/// assert_eq!("resnet50".parse::<ResNet>()?, ResNet::ResNet50);
/// assert_eq!(ResNet::ResNet18.to_string(), "resnet18");
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResNet {
    /// `resnet18`: 8 blocks of two convolutions.
    ResNet18,
    /// `resnet34`: 16 blocks of two convolutions.
    ResNet34,
    /// `resnet50`: 16 blocks of three convolutions.
    ResNet50,
    /// `resnet101`: 33 blocks of three convolutions.
    ResNet101,
    /// `resnet152`: 50 blocks of three convolutions.
    ResNet152,
}

impl ResNet {
    /// Every ResNet, the smallest first.
    pub const ALL: [Self; 5] =
        [Self::ResNet18, Self::ResNet34, Self::ResNet50, Self::ResNet101, Self::ResNet152];

    /// torchvision's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::ResNet152 => "resnet152",
        }
    }

    /// The blocks of each stage.
    fn blocks(self) -> [i64; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 => [3, 4, 6, 3],
            Self::ResNet101 => [3, 4, 23, 3],
            Self::ResNet152 => [3, 8, 36, 3],
        }
    }

    fn has_bottlenecks(self) -> bool {
        !matches!(self, Self::ResNet18 | Self::ResNet34)
    }
}

impl fmt::Display for ResNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ResNet {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.map(Self::as_str);
        let found = Self::ALL.into_iter().find(|network| network.as_str() == name);
        found.ok_or_else(|| Error::knob("teacher", unknown(name, &known)))
    }
}

/// The frozen layers of a ResNet.
#[derive(Debug)]
pub(super) struct Layers {
    path: PathBuf,
    channels: i64,
    classes: i64,
    stem: ConvNorm,
    /// Whether max pooling follows the stem.
    pools: bool,
    blocks: Vec<Block>,
    weight: Tensor,
    bias: Tensor,
}

impl Layers {
    /// Takes the layers out of `weights`, which must hold nothing else.
    pub(super) fn take(architecture: ResNet, weights: Weights, place: Place) -> Result<Self> {
        let path = weights.path().to_owned();
        let mut taken = Taken::new(weights, place);
        // What the weights tell of their network; the rest must be as the architecture has it.
        let (channels, side) = match taken.shape("conv1.weight")[..] {
            [WIDTH, channels, 3, 3] => (channels, 3),
            [_, channels, ..] => (channels, 7),
            _ => (3, 7),
        };
        let classes = match taken.shape("fc.weight")[..] {
            [0, _] => {
                return Err(Error::file(&path, "`fc.weight` has rows for 0 classes; expected at least 1"));
            }
            [classes, _] => classes,
            _ => 1,
        };
        let is_small = side == 3;
        let stem = taken.conv_norm("conv1", "bn1", [WIDTH, channels, side], if is_small { 1 } else { 2 })?;
        let mut inputs = WIDTH;
        let mut blocks = Vec::new();
        for (stage, count) in architecture.blocks().into_iter().enumerate() {
            for block in 0..count {
                let name = format!("layer{}.{block}", stage + 1);
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let block =
                    taken.block(&name, inputs, WIDTH << stage, stride, architecture.has_bottlenecks())?;
                inputs = block.outputs;
                blocks.push(block);
            }
        }
        let weight = taken.tensor("fc.weight", &[classes, inputs])?;
        let bias = taken.tensor("fc.bias", &[classes])?;
        taken.weights.finish()?;
        Ok(Self { path, channels, classes, stem, pools: !is_small, blocks, weight, bias })
    }

    /// How many classes there are logits for.
    pub(super) fn classes(&self) -> i64 {
        self.classes
    }

    /// Logits `[B, classes]` of images `[B, channels, H, W]` of the weights' dtype and device.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let channels = images.size()[1];
        if channels != self.channels {
            let reason = format!("the network takes images of {} channels, found {channels}", self.channels);
            return Err(Error::file(&self.path, reason));
        }
        let mut x = self.stem.forward(images)?.f_relu_()?;
        if self.pools {
            x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let pooled = x.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        Ok(pooled.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// Weights on their way into layers.
struct Taken {
    weights: Weights,
    place: Place,
    /// What `DataParallel` writes before every name.
    prefix: &'static str,
}

impl Taken {
    fn new(weights: Weights, place: Place) -> Self {
        let prefix = if weights.contains("module.conv1.weight") { "module." } else { "" };
        Self { weights, place, prefix }
    }

    /// Empty for a tensor that is not there.
    fn shape(&self, name: &str) -> Vec<i64> {
        self.weights.shape(&format!("{}{name}", self.prefix)).unwrap_or_default()
    }

    fn tensor(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        self.weights.take(&format!("{}{name}", self.prefix), shape, self.place)
    }

    /// `[outputs, inputs, side]` of a square convolution, with the batch norm that follows it.
    fn conv_norm(
        &mut self,
        conv: &str,
        norm: &str,
        [outputs, inputs, side]: [i64; 3],
        stride: i64,
    ) -> Result<ConvNorm> {
        // How many batches the network was trained on.
        self.weights.ignore(&format!("{}{norm}.num_batches_tracked", self.prefix));
        Ok(ConvNorm {
            kernel: self.tensor(&format!("{conv}.weight"), &[outputs, inputs, side, side])?,
            stride,
            padding: side / 2,
            weight: self.tensor(&format!("{norm}.weight"), &[outputs])?,
            bias: self.tensor(&format!("{norm}.bias"), &[outputs])?,
            mean: self.tensor(&format!("{norm}.running_mean"), &[outputs])?,
            variance: self.tensor(&format!("{norm}.running_var"), &[outputs])?,
        })
    }

    fn block(
        &mut self,
        name: &str,
        inputs: i64,
        width: i64,
        stride: i64,
        is_bottleneck: bool,
    ) -> Result<Block> {
        // Inputs, outputs, side and stride of each convolution.
        let (convs, outputs) = if is_bottleneck {
            let outputs = EXPANSION * width;
            (vec![([width, inputs, 1], 1), ([width, width, 3], stride), ([outputs, width, 1], 1)], outputs)
        } else {
            (vec![([width, inputs, 3], stride), ([width, width, 3], 1)], width)
        };
        let mut body = Vec::new();
        for (number, (shape, stride)) in convs.into_iter().enumerate() {
            let [conv, norm] = ["conv", "bn"].map(|layer| format!("{name}.{layer}{}", number + 1));
            body.push(self.conv_norm(&conv, &norm, shape, stride)?);
        }
        let shortcut = if stride == 1 && inputs == outputs {
            None
        } else {
            let [conv, norm] = [0, 1].map(|layer| format!("{name}.downsample.{layer}"));
            Some(self.conv_norm(&conv, &norm, [outputs, inputs, 1], stride)?)
        };
        Ok(Block { body, shortcut, outputs })
    }
}

/// A convolution without bias, and the batch norm that follows it.
#[derive(Debug)]
struct ConvNorm {
    kernel: Tensor,
    stride: i64,
    padding: i64,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl ConvNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let y = x.f_conv2d(&self.kernel, None::<&Tensor>, stride, padding, [1, 1], 1)?;
        let [weight, bias, mean, variance] = [&self.weight, &self.bias, &self.mean, &self.variance].map(Some);
        // The momentum is that of running statistics, which stay as they are.
        Ok(y.f_batch_norm(weight, bias, mean, variance, false, 0.0, EPS, true)?)
    }
}

/// `relu(body(x) + shortcut(x))`.
#[derive(Debug)]
struct Block {
    body: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
    outputs: i64,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.shallow_clone();
        for (number, layer) in self.body.iter().enumerate() {
            if number > 0 {
                y = y.f_relu_()?;
            }
            y = layer.forward(&y)?;
        }
        let y = match &self.shortcut {
            Some(shortcut) => y.f_add_(&shortcut.forward(x)?)?,
            None => y.f_add_(x)?,
        };
        Ok({ y }.f_relu_()?)
    }
}

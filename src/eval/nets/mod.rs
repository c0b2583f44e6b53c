//! The networks that distilled datasets are judged with.

mod convnet;
mod layers;
mod mlp;
mod mobilenet;
mod resnet;
mod vit;

use super::torch;
use diver_loaders::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use tch::nn::{self, ModuleT};
use tch::{Device, Kind, Tensor};

/// A family of networks, each in one small size.
///
/// ```
/// use diver::eval::Architecture;
///
/// assert_eq!("mobilenet".parse::<Architecture>()?, Architecture::MobileNet);
/// assert_eq!(Architecture::ViT.to_string(), "ViT");
/// assert!("lenet".parse::<Architecture>().is_err());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Three blocks of convolution, instance norm, ReLU and average pooling: what classic methods distil on.
    ConvNet,
    /// Eight residual blocks in four stages, batch norm.
    ResNet,
    /// Six inverted residual blocks of depthwise convolutions, batch norm.
    MobileNet,
    /// Four pre-norm transformer layers over patches of 4 x 4 pixels.
    ViT,
    /// Two hidden layers of 128.
    Mlp,
}

impl Architecture {
    /// Every architecture, the ConvNet first.
    pub const ALL: [Self; 5] = [Self::ConvNet, Self::ResNet, Self::MobileNet, Self::ViT, Self::Mlp];

    /// The name as tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConvNet => "ConvNet",
            Self::ResNet => "ResNet",
            Self::MobileNet => "MobileNet",
            Self::ViT => "ViT",
            Self::Mlp => "MLP",
        }
    }

    /// How many times smaller than the image, along a side and rounded up, the smallest maps are that a batch norm
    /// sees; `None` without batch norms.
    fn batch_norm_shrinkage(self) -> Option<i64> {
        match self {
            Self::ResNet => Some(resnet::SHRINKAGE),
            Self::MobileNet => Some(mobilenet::SHRINKAGE),
            Self::ConvNet | Self::ViT | Self::Mlp => None,
        }
    }

    fn build(self, root: &nn::Path<'_>, side: i64, classes: i64) -> Box<dyn ModuleT> {
        match self {
            Self::ConvNet => Box::new(convnet::convnet(root, side, classes)),
            Self::ResNet => Box::new(resnet::resnet(root, classes)),
            Self::MobileNet => Box::new(mobilenet::mobilenet(root, classes)),
            Self::ViT => Box::new(vit::Vit::new(root, side, classes)),
            Self::Mlp => Box::new(mlp::mlp(root, side, classes)),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Architecture {
    type Err = Error;

    /// The name in any case.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::config("net", format!("`{name}` is not known; known are {known}"))
        })
    }
}

/// A network with weights of its own.
///
/// ```
/// use diver::eval::{Architecture, Network};
/// use tch::{Device, Kind, Tensor};
///
/// let network = Network::new(Architecture::ResNet, 32, 10, 0, Device::Cpu)?;
/// let logits = network.logits(&Tensor::zeros([2, 3, 32, 32], (Kind::Float, Device::Cpu)), false)?;
/// assert_eq!(logits.size(), [2, 10]);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    side: i64,
    classes: i64,
    weights: nn::VarStore,
    module: Box<dyn ModuleT>,
}

/// What images are multiples of, along a side: the ConvNet halves them three times, the ViT cuts patches of 4.
const GRID: i64 = 8;

/// torch's generator is one for the whole process: held from seeding it to the last weight drawn.
static GENERATOR: Mutex<()> = Mutex::new(());

impl Network {
    /// A network from RGB images of `side` x `side` pixels (`side` a multiple of 8) to `classes` logits. Its weights
    /// are float32, drawn from `seed` with the distributions of PyTorch's own layers, though not with its numbers. On a
    /// CUDA device this calls [`load_cuda`](crate::load_cuda) first.
    ///
    /// This seeds libtorch's global generator and draws from it: what the program draws from there later depends on
    /// `seed` too. Networks made on several threads at once wait for one another; what else is drawn meanwhile changes
    /// their weights.
    ///
    /// # Errors
    /// If `side` is 0 or no multiple of 8, `classes` is 0, CUDA cannot be loaded, or `device` cannot be used.
    ///
    /// # Panics
    /// If there is no memory for the weights.
    pub fn new(
        architecture: Architecture,
        side: usize,
        classes: usize,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let side = match i64::try_from(side) {
            Ok(s) if s > 0 && s % GRID == 0 => s,
            _ => return Err(Error::config("side", format!("{side} is not a multiple of {GRID} above 0"))),
        };
        let classes = match i64::try_from(classes) {
            Ok(c) if c > 0 => c,
            _ => return Err(Error::config("classes", format!("{classes} is not a number of classes"))),
        };
        if device.is_cuda() {
            crate::load_cuda()?;
        }
        // tch draws weights with calls that panic on a device that is not there.
        if let Err(error) = Tensor::f_zeros([1], (Kind::Float, device)) {
            let text = crate::Error::from(error).to_string();
            // What follows the first sentence lists all that libtorch was built with.
            let why = text.split(". ").next().unwrap_or_default();
            let reason = format!("{device:?} cannot be used ({why}); Cpu works without");
            return Err(Error::config("device", reason));
        }
        let weights = nn::VarStore::new(device);
        let _generator = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(seed.cast_signed());
        let module = architecture.build(&weights.root(), side, classes);
        Ok(Self { architecture, side, classes, weights, module })
    }

    /// Logits `[B, classes]` of normalised `images` `[B, 3, side, side]`, `B` at least 1, on the network's device and
    /// of its weights' dtype (float32 unless they were cast), which the logits have too. With `train`, batch norms use
    /// the batch's own statistics and update their running ones.
    ///
    /// # Errors
    /// If the images have another shape or dtype or are on another device; with `train`, if a batch norm would see one
    /// value a channel, as with a single image of 16 x 16 pixels in a ResNet.
    ///
    /// # Panics
    /// If libtorch fails within the network, as where the device's memory runs out.
    pub fn logits(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.check(images, train)?;
        Ok(self.module.forward_t(images, train))
    }

    /// Refuses the images that [`logits`](Self::logits) refuses: within the network their errors would be panics.
    pub(in crate::eval) fn check(&self, images: &Tensor, train: bool) -> Result<()> {
        let refused = |expected: String, found| Err(crate::Error::tensor("images", expected, found).into());
        let (side, size) = (self.side, images.size());
        let batch = match size[..] {
            [batch, 3, height, width] if batch > 0 && (height, width) == (side, side) => batch,
            _ => return refused(format!("[B, 3, {side}, {side}] with B above 0"), format!("shape {size:?}")),
        };
        // Weights may have been cast since they were drawn.
        let kind = self.weights.trainable_variables().first().map_or(Kind::Float, Tensor::kind);
        match images.f_kind() {
            Ok(found) if found == kind => {}
            Ok(found) => {
                return refused(
                    format!("{kind:?} as the weights have (to_kind converts)"),
                    format!("{found:?}"),
                );
            }
            Err(error) => return Err(torch("images")(error)),
        }
        let device = self.device();
        if images.device() != device {
            let found = format!("a tensor on {:?}", images.device());
            return refused(format!("one on {device:?} where the network is (to_device moves it)"), found);
        }
        if train { self.check_batch_norms(batch) } else { Ok(()) }
    }

    /// Refuses to train on a batch that makes running variances NaN, and with them all later logits: torch divides by
    /// the number of values less one.
    fn check_batch_norms(&self, batch: i64) -> Result<()> {
        match self.architecture.batch_norm_shrinkage() {
            Some(shrinkage) if batch == 1 && self.side <= shrinkage => {
                let reason = format!(
                    "a single image of {side} x {side} pixels leaves a batch norm of the {net} one value a channel, \
                     which has no variance; train on batches of 2 images or more (drop_last leaves out a last, \
                     smaller batch, another batch size may avoid it), or on images of {larger} x {larger} pixels or \
                     more",
                    side = self.side,
                    net = self.architecture,
                    larger = shrinkage + GRID,
                );
                Err(Error::config("batch", reason))
            }
            _ => Ok(()),
        }
    }

    /// What it is.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Number of logits.
    pub fn classes(&self) -> i64 {
        self.classes
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.weights.device()
    }

    /// The weights, for an optimizer or to save them.
    pub fn weights(&self) -> &nn::VarStore {
        &self.weights
    }

    /// The weights, to load other ones.
    pub fn weights_mut(&mut self) -> &mut nn::VarStore {
        &mut self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn network(architecture: Architecture, seed: u64) -> Network {
        Network::new(architecture, 32, 10, seed, Device::Cpu).unwrap()
    }

    fn parameters(network: &Network) -> usize {
        network.weights().trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// Counts of the PyTorch modules of the same definition.
    #[test]
    fn parameter_counts_are_those_of_the_pytorch_modules() {
        let counts = Architecture::ALL.map(|a| parameters(&network(a, 0)));
        assert_eq!(counts, [24_714, 701_466, 128_986, 141_898, 411_146]);
    }

    /// Every parameter `0.1 cos(i)`, running statistics 0 and 1, input `sin(i)`, evaluation mode: the first three
    /// logits of image 1 as the PyTorch modules give them.
    #[test]
    fn logits_are_those_of_the_pytorch_modules() {
        let wave = |size: &[i64], f: fn(&Tensor) -> Tensor| {
            f(&Tensor::arange(size.iter().product::<i64>(), FLOAT)).reshape(size)
        };
        let images = wave(&[2, 3, 32, 32], Tensor::sin);
        let expected = [
            (Architecture::ConvNet, [0.1261611, 0.0249526, -0.0098046]),
            (Architecture::ResNet, [1.0851416, -0.6351155, -0.0717439]),
            (Architecture::MobileNet, [0.5496844, -0.3872267, 0.3697074]),
            (Architecture::ViT, [0.4284625, 0.1921703, -0.2618148]),
            (Architecture::Mlp, [1.6459001, -1.2782314, 0.2587226]),
        ];
        for (architecture, logits) in expected {
            let network = network(architecture, 0);
            tch::no_grad(|| {
                for mut parameter in network.weights().trainable_variables() {
                    parameter.copy_(&(wave(&parameter.size(), Tensor::cos) * 0.1));
                }
            });
            let found: Vec<f64> = network.logits(&images, false).unwrap().get(1).try_into().unwrap();
            for (found, expected) in found.iter().zip(logits) {
                assert!((found - expected).abs() < 1e-5, "{architecture}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn every_network_takes_larger_images_and_other_classes() {
        for architecture in Architecture::ALL {
            let network = Network::new(architecture, 64, 7, 0, Device::Cpu).unwrap();
            let logits = network.logits(&Tensor::zeros([3, 3, 64, 64], FLOAT), true).unwrap();
            assert_eq!(logits.size(), [3, 7], "{architecture}");
        }
    }

    /// One image in training mode at each of the small sizes: refused exactly where it would spoil the running
    /// variances.
    #[test]
    fn batches_without_a_variance_are_refused() {
        let is_sound = |network: &Network| {
            let weights = network.weights().variables();
            weights.values().all(|values| bool::try_from(values.isfinite().all()).unwrap())
        };
        let mut refused = Vec::new();
        for architecture in Architecture::ALL {
            for side in [8, 16, 24] {
                let network = || Network::new(architecture, side, 10, 0, Device::Cpu).unwrap();
                let images = |batch| Tensor::ones([batch, 3, side as i64, side as i64], FLOAT);
                let checked = network();
                if let Err(error) = checked.logits(&images(1), true) {
                    let unchecked = network();
                    let _ = unchecked.module.forward_t(&images(1), true);
                    assert!(!is_sound(&unchecked), "{architecture} at {side} is refused for nothing");
                    refused.push((architecture, side, error.to_string()));
                }
                assert!(checked.logits(&images(1), false).is_ok());
                assert!(checked.logits(&images(2), true).is_ok());
                assert!(is_sound(&checked), "{architecture} at {side}");
            }
        }
        let (resnet, mobilenet) = (Architecture::ResNet, Architecture::MobileNet);
        let expected = [(resnet, 8, 24), (resnet, 16, 24), (mobilenet, 8, 16)];
        assert_eq!(refused.len(), expected.len(), "{refused:?}");
        for ((architecture, side, error), expected) in refused.into_iter().zip(expected) {
            assert_eq!((architecture, side), (expected.0, expected.1));
            assert!(error.starts_with(&format!("batch: a single image of {side} x {side} ")), "{error}");
            assert!(error.ends_with(&format!("images of {0} x {0} pixels or more", expected.2)), "{error}");
        }
    }

    #[test]
    fn the_seed_decides_the_weights() {
        let first = |seed| {
            let weights = network(Architecture::Mlp, seed).weights().trainable_variables();
            Vec::<f32>::try_from(weights[0].flatten(0, -1)).unwrap()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn initial_weights_lie_within_the_bound_of_pytorch() {
        let weights = network(Architecture::ConvNet, 0).weights().variables();
        // 32 channels in, 3 x 3.
        let bound = 1.0 / f64::from(32 * 9).sqrt();
        let largest = weights["blocks.1.conv.weight"].abs().max().double_value(&[]);
        assert!((0.99 * bound..=bound).contains(&largest), "{largest} of {bound}");
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(Network::new(Architecture::ViT, 30, 10, 0, Device::Cpu).is_err());
        assert!(Network::new(Architecture::ViT, 0, 10, 0, Device::Cpu).is_err());
        assert!(Network::new(Architecture::ViT, 32, 0, 0, Device::Cpu).is_err());
        let error = network(Architecture::Mlp, 0).logits(&Tensor::zeros([1, 3, 28, 28], FLOAT), false);
        assert!(error.unwrap_err().to_string().contains("[1, 3, 28, 28]"));
    }

    #[test]
    fn images_of_another_dtype_or_on_another_device_are_refused() {
        let images = |kind| Tensor::zeros([1, 3, 32, 32], (kind, Device::Cpu));
        for architecture in Architecture::ALL {
            let mut network = network(architecture, 0);
            let refused =
                |network: &Network, images: &Tensor| network.logits(images, false).unwrap_err().to_string();
            for kind in [Kind::Double, Kind::Half, Kind::Int64, Kind::Uint8, Kind::Bool, Kind::ComplexFloat] {
                let error = refused(&network, &images(kind));
                assert!(
                    error.starts_with(&format!("images: {kind:?} was given, Float as the weights")),
                    "{error}"
                );
            }
            assert!(refused(&network, &Tensor::new()).starts_with("images: "));
            network.weights_mut().double();
            assert_eq!(network.logits(&images(Kind::Double), false).unwrap().kind(), Kind::Double);
            assert!(refused(&network, &images(Kind::Float)).contains("Double"));
        }
        // No weights and no layers: neither needs the device to be there.
        let elsewhere = Network {
            architecture: Architecture::Mlp,
            side: 32,
            classes: 3,
            weights: nn::VarStore::new(Device::Cuda(0)),
            module: Box::new(nn::seq_t()),
        };
        let error = elsewhere.logits(&images(Kind::Float), false).unwrap_err().to_string();
        assert!(error.starts_with("images: a tensor on Cpu was given, one on Cuda(0)"), "{error}");
    }

    #[test]
    fn devices_that_are_not_there_are_refused() {
        for device in [Device::Cuda(99), Device::Mps, Device::Vulkan] {
            let error = Network::new(Architecture::Mlp, 32, 10, 0, device).unwrap_err().to_string();
            assert!(error.starts_with("device: ") && error.len() < 300, "{error}");
        }
    }
}

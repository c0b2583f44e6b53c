//! Images in, a network's logits out.

mod builder;
mod resnet;
mod script;

pub use builder::TeacherBuilder;
pub use resnet::ResNet;

use self::builder::Source;
use self::resnet::Layers;
use self::script::Script;
use crate::{Error, Result, halving, memory};
use diver_loaders::teach::TeachBatch;
use diver_loaders::{CancelToken, Digest, Teach};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Counts the changes to this code that change logits by more than rounding does; part of every fingerprint.
const ALGORITHM: u32 = 1;

/// A network that labels images, on libtorch: implements [`Teach`] for the engine, and labels tensors for everyone
/// else. The network is in evaluation mode, and nothing is recorded for gradients.
///
/// ```no_run
/// use diver::{CancelToken, ResNet, Teacher};
/// use tch::{Device, Kind, Tensor};
///
/// // As `torch.jit.script(network).save("teacher.pt")` writes it.
/// let own = Teacher::torchscript("teacher.pt").build()?;
/// // The weights of `torchvision.models.resnet18(weights="DEFAULT")`.
/// let mut teacher = Teacher::resnet(ResNet::ResNet18, "resnet18.safetensors").build()?;
/// let images = Tensor::rand([8, 3, 224, 224], (Kind::Float, Device::Cpu));
/// assert_eq!(teacher.logits(&images, &CancelToken::new())?.size(), [8, 1000]);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// On a CUDA device, building one loads CUDA ([`load_cuda`](crate::load_cuda)); what asks libtorch about CUDA before
/// has to load it first.
#[derive(Debug)]
pub struct Teacher {
    /// `None` while it is [released](Self::release).
    network: Option<Network>,
    /// Where it is read from, again after a release.
    source: Source,
    digest: Digest,
    /// Known at once of a ResNet, after the first call of a TorchScript file.
    num_classes: Option<usize>,
    device: Device,
    kind: Kind,
    batch_size: usize,
}

/// The network itself.
#[derive(Debug)]
enum Network {
    Script(Script),
    ResNet(Layers),
}

/// A network as it was read, and the hash of its file.
#[derive(Debug)]
struct Loaded {
    network: Network,
    digest: Digest,
}

impl Teacher {
    /// A network saved as TorchScript, by `torch.jit.script(network).save(path)` or `torch.jit.trace`. It computes in
    /// the dtype in which it was saved. A trace has the mode of the network when it was traced, so call `network.eval()`
    /// before.
    pub fn torchscript(path: impl AsRef<Path>) -> TeacherBuilder {
        TeacherBuilder::new(Source::Script(path.as_ref().to_owned()))
    }

    /// A ResNet with weights under torchvision's names, in a safetensors file or one of `torch.save`. With a first
    /// convolution of 3 x 3 it is the variant for small images: stride 1, and no max pooling.
    pub fn resnet(architecture: ResNet, weights: impl AsRef<Path>) -> TeacherBuilder {
        TeacherBuilder::new(Source::ResNet(architecture, weights.as_ref().to_owned()))
    }

    /// The device on which the network computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The file of the network or its weights.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The logits `[B, classes]` (float32, on the teacher's device) of images `[B, C, H, W]`, normalised as the network
    /// was trained, of any floating-point dtype and device: a batch of the teacher's own size at a time, which is halved
    /// where the device's memory runs out. Without images, `[0, classes]`, or `[0, 0]` before the classes are known.
    ///
    /// # Errors
    /// [`Error::Tensor`] if shape or dtype are others; [`Error::File`] names the network's file if it takes other images
    /// or returns something that is not `[B, classes]`, or changed since this teacher was made; [`Error::Cancelled`]
    /// before the next part of the batch once `cancel` is set; [`Error::Torch`] if libtorch fails.
    pub fn logits(&mut self, images: &Tensor, cancel: &CancelToken) -> Result<Tensor> {
        let check = || cancel.check().map_err(|_| Error::Cancelled);
        check()?;
        let count = check_images(images)?;
        if count == 0 {
            let classes = self.num_classes.unwrap_or_default() as i64;
            return Ok(Tensor::f_zeros([0, classes], (Kind::Float, self.device))?);
        }
        let _no_grad = tch::no_grad_guard();
        // Not within a part: smaller parts make no room for the network.
        let network = match self.network.take() {
            Some(network) => network,
            None => self.read_again()?,
        };
        let network = self.network.insert(network);
        let (mut limit, mut classes) = (self.batch_size, self.num_classes);
        let parts = halving::in_parts(count, &mut limit, "the teacher", |part| {
            check()?;
            let rows = part.len() as i64;
            let images = images.f_narrow(0, part.start as i64, rows)?.f_to_device(self.device)?;
            let logits = network.forward(&images.f_to_kind(self.kind)?)?;
            let found = check_logits(&logits, rows).and_then(|found| match classes {
                Some(known) if known != found => Err(format!(
                    "the network returned {found} logits for an image, and {known} for another; expected as many for \
                     every image"
                )),
                _ => Ok(found),
            });
            classes = Some(found.map_err(|reason| Error::file(self.source.path(), reason))?);
            Ok(logits.f_to_kind(Kind::Float)?)
        });
        (self.batch_size, self.num_classes) = (limit, classes);
        Ok(Tensor::f_cat(&parts?, 0)?)
    }

    /// The same for images in memory, row-major.
    fn values(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
        let shape = images.shape().map(|side| side as i64);
        let images = Tensor::f_from_slice(images.pixels())?.f_view(shape)?;
        let logits = self.logits(&images, cancel)?.f_to_device(Device::Cpu)?;
        Ok(Vec::try_from(logits.f_flatten(0, -1)?)?)
    }

    /// Frees the network's memory; the next call reads its file again. On a CUDA device the memory stays in libtorch's
    /// pool, for whatever this process computes there.
    pub fn release(&mut self) {
        drop(self.network.take());
        memory::trim();
    }

    fn read_again(&self) -> Result<Network> {
        let path = self.source.path();
        tracing::info!("{}: reading the teacher again, which was released", path.display());
        let loaded = self.source.load(self.device, self.kind)?;
        if loaded.digest != self.digest {
            return Err(Error::file(
                path,
                "the file has changed since the teacher was made; make a new teacher",
            ));
        }
        Ok(loaded.network)
    }
}

impl Network {
    /// What the network returns for images of its dtype, on its device.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::Script(script) => script.forward(images),
            Self::ResNet(layers) => layers.forward(images),
        }
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        self.release();
    }
}

impl Teach for Teacher {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "teacher": self.source.name(),
            "algorithm": ALGORITHM,
            "weights": self.digest,
            "dtype": dtype(self.kind),
        }))
    }

    fn preferred_batch(&self) -> usize {
        self.batch_size
    }

    fn num_classes(&self) -> Option<usize> {
        self.num_classes
    }

    fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> diver_loaders::Result<Vec<f32>> {
        self.values(images, cancel).map_err(|error| match diver_loaders::Error::from(error) {
            // A failing network is not a failing refiner.
            diver_loaders::Error::Refine(source) => diver_loaders::Error::Teach(source),
            error => error,
        })
    }

    fn release(&mut self) {
        Self::release(self);
    }
}

/// The name of a dtype in fingerprints.
fn dtype(kind: Kind) -> String {
    match kind {
        Kind::Float => "f32".to_owned(),
        Kind::BFloat16 => "bf16".to_owned(),
        Kind::Half => "f16".to_owned(),
        Kind::Double => "f64".to_owned(),
        other => format!("{other:?}"),
    }
}

/// How many images there are.
fn check_images(images: &Tensor) -> Result<usize> {
    let size = images.size();
    let count = match size[..] {
        [count, ref image @ ..] if image.len() == 3 && !image.contains(&0) => usize::try_from(count).ok(),
        _ => None,
    };
    let Some(count) = count else {
        return Err(Error::tensor("images", "[B, C, H, W], all but B at least 1", format!("shape {size:?}")));
    };
    if !images.is_floating_point() {
        let found = format!("{:?}", images.f_kind()?);
        return Err(Error::tensor("images", "a floating-point dtype with normalised values", found));
    }
    Ok(count)
}

/// How many classes the logits of `rows` images are for, or what is wrong with what the network returned.
fn check_logits(logits: &Tensor, rows: i64) -> Result<usize, String> {
    let size = logits.size();
    match size[..] {
        [found, classes] if found == rows && classes > 0 => {
            if !logits.is_floating_point() {
                return Err("the network returned integers, expected floating-point logits".to_owned());
            }
            usize::try_from(classes).map_err(|error| error.to_string())
        }
        _ => Err(format!("the network returned a tensor of shape {size:?}, expected [{rows}, classes]")),
    }
}

//! How a teacher is made.

use super::resnet::{Layers, ResNet};
use super::script::Script;
use super::{Loaded, Network, Teacher};
use crate::backbone::{Place, Weights};
use crate::{DeviceChoice, Error, Precision, Result};
use diver_loaders::paths::local;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// Images at a time on a CPU unless the caller says otherwise.
const BATCH: usize = 32;

/// Images at a time on a GPU: enough to keep it busy, with room for those that are being trained.
const GPU_BATCH: usize = 128;

/// Where a network is read from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Script(PathBuf),
    ResNet(ResNet, PathBuf),
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Script(path) | Self::ResNet(_, path) => path,
        }
    }

    /// What the fingerprint calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Script(_) => "torchscript",
            Self::ResNet(architecture, _) => architecture.as_str(),
        }
    }

    /// Reads the network; `kind` is the dtype of a ResNet.
    pub(super) fn load(&self, device: Device, kind: Kind) -> Result<Loaded> {
        match self {
            Self::Script(path) => {
                let (script, digest) = Script::read(path, device)?;
                Ok(Loaded { network: Network::Script(script), digest })
            }
            Self::ResNet(architecture, path) => {
                let weights = Weights::read(path)?;
                let digest = weights.digest();
                let layers = Layers::take(*architecture, weights, Place { device, kind })?;
                let digest = digest.ok_or_else(|| Error::file(path, "the weights have no hash"))?;
                Ok(Loaded { network: Network::ResNet(layers), digest })
            }
        }
    }

    /// The same file for a process that changes its folder.
    fn absolute(self) -> Result<Self> {
        let absolute = |path: &Path| {
            let path = local("teacher", path)?;
            std::path::absolute(path).map_err(Error::io(path, "cannot find"))
        };
        Ok(match self {
            Self::Script(path) => Self::Script(absolute(&path)?),
            Self::ResNet(architecture, path) => Self::ResNet(architecture, absolute(&path)?),
        })
    }
}

/// A [`Teacher`] in the making.
///
/// ```
/// use diver::{DeviceChoice, Teacher};
///
/// let error = Teacher::torchscript("no/such/teacher.pt").device(DeviceChoice::Cpu).build().unwrap_err();
/// assert!(error.to_string().contains("no/such/teacher.pt: cannot read"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TeacherBuilder {
    source: Source,
    device: DeviceChoice,
    dtype: Option<Precision>,
    batch_size: Option<usize>,
}

impl TeacherBuilder {
    pub(super) fn new(source: Source) -> Self {
        Self { source, device: DeviceChoice::Auto, dtype: None, batch_size: None }
    }

    /// Where to compute (default: the best device there is).
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// In which precision a ResNet computes (default: f32, as labels are wanted exact). A TorchScript file computes in
    /// the dtype in which it was saved.
    pub fn dtype(mut self, dtype: Precision) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// How many images go through the network at a time, at least 1 (default: 32 on a CPU, 128 on a GPU). Halved by
    /// itself when the device's memory runs out.
    pub fn batch_size(mut self, images: usize) -> Self {
        self.batch_size = Some(images);
        self
    }

    /// Reads the network.
    ///
    /// # Errors
    /// [`Error::Knob`] if the batch size is 0 or a dtype is set for a TorchScript file; [`Error::Device`] if the device
    /// cannot be used; [`Error::Io`] if the file cannot be read; [`Error::File`] if it is not a TorchScript file, or its
    /// weights are not those of the ResNet, with the names that are missing, unknown or of another shape.
    pub fn build(self) -> Result<Teacher> {
        if self.batch_size == Some(0) {
            return Err(Error::knob("batch_size", "0 must be at least 1"));
        }
        if let (Source::Script(_), Some(dtype)) = (&self.source, self.dtype) {
            let reason =
                format!("{dtype} cannot be set for a TorchScript file; convert the network before saving it");
            return Err(Error::knob("dtype", reason));
        }
        let source = self.source.absolute()?;
        let device = self.device.resolve()?;
        let kind = self.dtype.unwrap_or(Precision::F32).resolve(device);
        let Loaded { network, digest } = source.load(device, kind)?;
        let (kind, num_classes) = match &network {
            Network::Script(script) => (script.kind(), None),
            Network::ResNet(layers) => (kind, usize::try_from(layers.classes()).ok()),
        };
        let usual = if device.is_cuda() { GPU_BATCH } else { BATCH };
        let batch_size = self.batch_size.unwrap_or(usual);
        Ok(Teacher { network: Some(network), source, digest, num_classes, device, kind, batch_size })
    }
}

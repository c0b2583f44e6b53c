//! Where networks run, and in which precision.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use tch::{Cuda, Device, Kind};

/// A device by the name that users write: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// ```
/// use diver::DeviceChoice;
///
/// assert_eq!("cuda".parse::<DeviceChoice>()?, DeviceChoice::Cuda(0));
/// assert_eq!("cpu".parse::<DeviceChoice>()?.resolve()?, tch::Device::Cpu);
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU; nothing of CUDA is loaded.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device, once it is known to be usable. Loads libtorch's CUDA library unless the choice is `cpu`.
    ///
    /// # Errors
    /// [`Error::Device`] says which of driver, library and device is missing. `auto` never fails.
    pub fn resolve(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => self.cuda(index),
            Self::Auto => Ok(self.cuda(0).unwrap_or_else(|reason| {
                tracing::info!(%reason, "refining on the CPU");
                Device::Cpu
            })),
        }
    }

    fn cuda(self, index: usize) -> Result<Device> {
        let missing = |reason: &str| Error::Device {
            device: self.to_string(),
            reason: format!("{reason}; the device `cpu` works without"),
        };
        load_cuda().map_err(missing)?;
        match usize::try_from(Cuda::device_count()).unwrap_or(0) {
            0 => Err(missing("the NVIDIA driver finds no device")),
            count if index >= count => {
                Err(missing(&format!("the last of {count} devices is cuda:{}", count - 1)))
            }
            _ => Ok(Device::Cuda(index)),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let index = text.strip_prefix("cuda:").map(str::parse);
        match (text, index) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(Error::knob("device", format!("`{text}` is none of auto, cpu, cuda, cuda:N"))),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Loads libtorch's CUDA half, once. It must happen before anything asks libtorch about CUDA: the linker drops a
/// library that no symbol refers to, and the first question would find CUDA absent for good.
fn load_cuda() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *LOADED.get_or_init(|| {
        open_for_good("libcuda.so.1").map_err(|()| "the NVIDIA driver (libcuda.so.1) is not installed")?;
        open_for_good("libtorch_cuda.so").map_err(|()| "this libtorch has no CUDA library (libtorch_cuda.so)")
    })
}

/// Opens a shared library and never closes it.
#[cfg(target_os = "linux")]
fn open_for_good(name: &str) -> Result<(), ()> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    // SAFETY: the initialisers of the NVIDIA driver and of libtorch expect to run in any process, at any time; both
    // stay loaded until the process ends, as if they had been linked.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    library.map(std::mem::forget).map_err(|error| tracing::debug!(%error, name, "cannot be loaded"))
}

#[cfg(not(target_os = "linux"))]
fn open_for_good(_name: &str) -> Result<(), ()> {
    Err(())
}

/// The number format in which the diffusion network computes: `auto`, `f32` or `bf16`. Latents, the sampler's
/// arithmetic and the autoencoder are f32 in any case.
///
/// ```
/// use diver::Precision;
/// use tch::{Device, Kind};
///
/// assert_eq!("auto".parse::<Precision>()?.resolve(Device::Cpu), Kind::Float);
/// assert_eq!(Precision::Bf16.to_string(), "bf16");
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bf16 on CUDA, f32 on the CPU.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl Precision {
    /// The dtype on `device`.
    #[must_use]
    pub fn resolve(self, device: Device) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Auto if device.is_cuda() => Kind::BFloat16,
            Self::Auto => Kind::Float,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::knob("dtype", format!("`{text}` is none of auto, f32, bf16"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let refused = "cuda:x".parse::<DeviceChoice>().unwrap_err().to_string();
        assert_eq!(refused, "device: `cuda:x` is none of auto, cpu, cuda, cuda:N");
        assert!("fp16".parse::<Precision>().is_err());
    }
}

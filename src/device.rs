//! Where networks run, and in which precision.

use crate::{Error, Result};
use diver_loaders::cards;
use diver_loaders::wording::unknown;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use tch::{Cuda, Device, Kind};

/// A device by the name that users write: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// ```
/// use diver::DeviceChoice;
///
/// assert_eq!("cuda".parse::<DeviceChoice>()?, DeviceChoice::OwnCuda);
/// assert_eq!("cuda:0".parse::<DeviceChoice>()?, DeviceChoice::Cuda(0));
/// assert_eq!("cpu".parse::<DeviceChoice>()?.resolve()?, tch::Device::Cpu);
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// This process's own CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU; nothing of CUDA is loaded.
    Cpu,
    /// This process's own CUDA device: the one of its local rank, if a launcher started several processes on this
    /// machine ([`cards::own`]), else the first.
    OwnCuda,
    /// The CUDA device of this index.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device, once it is known to be usable. Loads libtorch's CUDA library unless the choice is `cpu`.
    ///
    /// # Errors
    /// [`Error::Device`] says which of driver, library and device is missing; `auto` falls back to the CPU then, and
    /// warns if the libraries are there. `auto` and `cuda` also fail if there are more processes on this machine than
    /// devices.
    pub fn resolve(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => match self.count()? {
                count if index < count => Ok(Device::Cuda(index)),
                count => Err(unusable(
                    self.to_string(),
                    &format!("the last of {count} devices is cuda:{}", count - 1),
                )),
            },
            Self::OwnCuda => Ok(Device::Cuda(cards::own(self.count()?)?)),
            Self::Auto => match self.count() {
                Ok(count) => Ok(Device::Cuda(cards::own(count)?)),
                Err(reason) => {
                    match cuda_libraries() {
                        Ok(()) => tracing::warn!(%reason, "refining on the CPU"),
                        Err(_) => tracing::info!(%reason, "refining on the CPU"),
                    }
                    Ok(Device::Cpu)
                }
            },
        }
    }

    /// The devices of a list, as in `cuda:0,cuda:1`; `cuda:all` are all that there are, for a process that shares them
    /// with no other of its training ([`cards::all`]).
    ///
    /// ```
    /// use diver::DeviceChoice;
    ///
    /// assert_eq!(DeviceChoice::list("cuda:0,cuda:1")?, [DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)]);
    /// assert_eq!(DeviceChoice::list("auto")?, [DeviceChoice::Auto]);
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Knob`] if one has no such name, a GPU is named twice, or `auto` or `cuda` is one of several;
    /// [`Error::Device`] if there is none; [`Error::Engine`] if each of several processes would take all of them.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        if text != "cuda:all" {
            let devices: Vec<Self> =
                text.split(',').map(|name| name.trim().parse()).collect::<Result<_>>()?;
            let chosen = |device: &&Self| matches!(device, Self::Auto | Self::OwnCuda);
            if let Some(chosen) = devices.iter().find(chosen).filter(|_| devices.len() > 1) {
                let reason = format!(
                    "`{chosen}` stands for one device and cannot be part of `{text}`: number each device, as in \
                     cuda:0,cuda:1, or write cuda:all"
                );
                return Err(Error::knob("device", reason));
            }
            let is_twice =
                |at: &usize| matches!(devices[*at], Self::Cuda(_)) && devices[..*at].contains(&devices[*at]);
            if let Some(at) = (0..devices.len()).find(is_twice) {
                return Err(Error::knob("device", format!("{} is named twice in `{text}`", devices[at])));
            }
            return Ok(devices);
        }
        Ok(cards::all(Self::OwnCuda.count()?)?.map(Self::Cuda).collect())
    }

    /// How many CUDA devices there are, at least 1.
    fn count(self) -> Result<usize> {
        let missing = |reason: &str| unusable(self.to_string(), reason);
        cuda_libraries().map_err(missing)?;
        match usize::try_from(Cuda::device_count()).unwrap_or(0) {
            0 => Err(missing(
                "libtorch sees no device: either the NVIDIA driver finds none, or libtorch was asked about CUDA \
                 before `diver::load_cuda()`",
            )),
            count => Ok(count),
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
            ("cuda", _) => Ok(Self::OwnCuda),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(Error::knob("device", format!("`{text}` is not one of auto, cpu, cuda, cuda:N"))),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::OwnCuda => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Loads libtorch's CUDA half, once for the process; later calls return what the first one did.
///
/// The linker drops a library that no symbol refers to, and libtorch keeps its first answer about CUDA for good. So
/// this comes before anything that asks: [`tch::Device::cuda_if_available`], [`tch::Cuda::is_available`],
/// [`tch::manual_seed`] and the like. On a CUDA device [`Refiner`](crate::Refiner),
/// [`BatchExt::to_tch`](crate::BatchExt::to_tch) and [`Network::new`](crate::eval::Network::new) call it themselves,
/// but a network on the CPU is seeded too, and settles the matter for those that follow it.
///
/// ```
/// use tch::Device;
///
/// let device = diver::load_cuda().map_or(Device::Cpu, |()| Device::cuda_if_available());
/// assert_eq!(device.is_cuda(), tch::Cuda::is_available());
/// ```
///
/// # Errors
/// [`Error::Device`] says which of the NVIDIA driver and libtorch's CUDA library cannot be loaded, and why.
pub fn load_cuda() -> Result<()> {
    cuda_libraries().map_err(|reason| unusable("cuda".to_owned(), reason))
}

fn unusable(device: String, reason: &str) -> Error {
    Error::Device { device, reason: format!("{reason}; the device `cpu` works without") }
}

fn cuda_libraries() -> Result<(), &'static str> {
    const TORCH_CUDA: &str = "libtorch_cuda.so";
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let load = || {
        open_for_good("libcuda.so.1")
            .map_err(|error| format!("the NVIDIA driver's libcuda.so.1 cannot be loaded ({error})"))?;
        open_for_good(TORCH_CUDA).map_err(|error| match libtorch_folder() {
            Some(folder) if !folder.join(TORCH_CUDA).exists() => {
                format!("this libtorch has no CUDA library ({TORCH_CUDA})")
            }
            _ => format!("{TORCH_CUDA} cannot be loaded ({error})"),
        })
    };
    LOADED.get_or_init(load).as_ref().copied().map_err(String::as_str)
}

/// Opens a shared library and never closes it; if that fails, says what the dynamic linker said.
#[cfg(target_os = "linux")]
fn open_for_good(name: &str) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    use std::error::Error as _;

    // SAFETY: the initialisers of the NVIDIA driver and of libtorch expect to run in any process, at any time; both
    // stay loaded until the process ends, as if they had been linked.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    // The linker's own words are the source of the error.
    library.map(std::mem::forget).map_err(|error| error.source().unwrap_or(&error).to_string())
}

#[cfg(not(target_os = "linux"))]
fn open_for_good(_name: &str) -> Result<(), String> {
    Err("CUDA is supported on Linux alone".to_owned())
}

/// The folder of the libtorch that this process runs on, from the list of its mapped files.
fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
        .find(|path| path.ends_with("libtorch_cpu.so"))
        .and_then(Path::parent)
        .map(Path::to_owned)
}

/// The number format in which the diffusion network computes: `auto`, `f32` or `bf16`. Latents, the sampler's
/// arithmetic and the autoencoder are f32 in any case.
///
/// On CPUs `auto` is f32, also on those that have instructions for bf16: libtorch was slower with them where it was
/// measured, and a choice that hangs on a timing would give one set two caches.
///
/// On NVIDIA GPUs from Ampere on, cuDNN computes the convolutions of f32 networks, and with them most of the
/// autoencoder, in TF32: f32 with inputs rounded to 10 bits after the point. That is torch's default, which tch
/// cannot switch off; the environment variable `NVIDIA_TF32_OVERRIDE=0` does.
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
    /// 32-bit floats (convolutions may use TF32, see above).
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
            _ => Err(Error::knob("dtype", unknown(text, &["auto", "f32", "bf16"]))),
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
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let refused = "cuda:x".parse::<DeviceChoice>().unwrap_err().to_string();
        assert_eq!(refused, "device: `cuda:x` is not one of auto, cpu, cuda, cuda:N");
        assert!("fp16".parse::<Precision>().is_err());
        for (list, one) in [("auto,cuda:0", "`auto`"), ("cuda:1,cuda", "`cuda`")] {
            let refused = DeviceChoice::list(list).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("device: {one}")), "{refused}");
        }
        let refused = DeviceChoice::list("cuda:0,cuda:1,cuda:0").unwrap_err().to_string();
        assert_eq!(refused, "device: cuda:0 is named twice in `cuda:0,cuda:1,cuda:0`");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_that_is_not_there_is_named_by_the_linker() {
        let error = open_for_good("libno_such_library.so").unwrap_err();
        assert!(error.starts_with("libno_such_library.so: cannot open"), "{error}");
        // The linker keeps libtorch only in programs that use it.
        assert_eq!(tch::Tensor::from_slice(&[1.0_f32]).numel(), 1);
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").exists());
    }
}

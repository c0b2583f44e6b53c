//! What the command line needs of libtorch.

use crate::{DeviceChoice, Error, Fleet, Refiner, Result, Teacher, demo};
use diver_loaders::cli::{DemoArgs, DemoReport, Host, RefinerArgs, TeacherArgs};
use diver_loaders::options::check;
use diver_loaders::paths::local;
use diver_loaders::{CancelToken, Refine, Teach};

/// Makes the [`Refiner`] that a command line asks for, and trains the networks of [`eval`](crate::eval).
///
/// ```
/// use diver::{CancelToken, TchHost};
///
/// let code = diver_loaders::cli::run(["diver", "--version"], &TchHost, &CancelToken::new());
/// assert_eq!(code, 0);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TchHost;

impl Host for TchHost {
    fn refiner(&self, args: &RefinerArgs, cancel: &CancelToken) -> diver_loaders::Result<Box<dyn Refine>> {
        let devices = DeviceChoice::list(&args.device)?;
        if devices.len() == 1 {
            return Ok(Box::new(Refiner::from_args(args, cancel)?));
        }
        let refiner = |device: DeviceChoice| Refiner::from_args(&args.clone().on(device.to_string()), cancel);
        Ok(Box::new(Fleet::new(devices.into_iter().map(refiner).collect::<Result<_>>()?)?))
    }

    fn teacher(&self, args: &TeacherArgs, _cancel: &CancelToken) -> diver_loaders::Result<Box<dyn Teach>> {
        let mut builder = match &args.network {
            Some(name) => Teacher::resnet(name.parse()?, &args.teacher),
            None => Teacher::torchscript(&args.teacher),
        };
        builder = builder.device(args.teacher_device.parse()?);
        if let Some(images) = args.teacher_batch {
            builder = builder.batch_size(images);
        }
        Ok(Box::new(builder.build()?))
    }

    fn demo(&self, args: &DemoArgs, cancel: &CancelToken) -> diver_loaders::Result<DemoReport> {
        demo::run(args, cancel)
    }
}

impl Refiner {
    /// The refiner that a command line asks for; `cancel` ends a download. Options that were not given take the values of
    /// [`Refiner::builder`].
    ///
    /// # Errors
    /// If an option has a value that it cannot have, and as for [`RefinerBuilder::build`](crate::RefinerBuilder::build).
    pub fn from_args(args: &RefinerArgs, cancel: &CancelToken) -> Result<Self> {
        check(args)?;
        let mut builder = Self::builder(&args.backbone)
            .cancel(cancel.clone())
            .device(args.device.parse()?)
            .dtype(args.dtype.parse()?)
            .knobs(args.knobs.clone());
        if let Some(images) = args.batch_size {
            builder = builder.batch_size(images);
        }
        if let Some(vae) = &args.vae {
            builder = builder.vae(vae);
        }
        if let Some(model) = args.model {
            builder = builder.model(model);
        }
        if let Some(heads) = args.num_heads {
            builder = builder.num_heads(heads.into());
        }
        if let Some(template) = &args.prompt {
            builder = builder.prompt(template);
        }
        if let Some(names) = &args.class_names {
            builder = builder.class_names(names);
        }
        if let Some(path) = &args.class_names_file {
            let path = local("class_names_file", path)?;
            let lines = std::fs::read_to_string(path).map_err(Error::io(path, "cannot read"))?;
            builder = builder.class_names(lines.trim_end().lines().map(str::trim));
        }
        if let Some(pixels) = args.resolution {
            builder = builder.resolution(pixels.into());
        }
        builder.build()
    }
}

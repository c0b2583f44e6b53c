//! Options that say who labels images.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The teacher that a command line asks for. As JSON, it reaches a host that lives in another library.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TeacherArgs {
    /// The network that labels images: a TorchScript file, or with --network the file of its weights
    #[arg(long, value_name = "FILE", help_heading = "Teacher")]
    pub teacher: PathBuf,

    /// The network that the file has the weights of, under torchvision's names: resnet18, resnet34, resnet50, resnet101
    /// or resnet152
    #[arg(long, value_name = "NAME", help_heading = "Teacher")]
    pub network: Option<String>,

    /// Where to label: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Teacher")]
    pub teacher_device: String,

    /// Images labelled at once [default: 32 on a CPU, 128 on a GPU]
    #[arg(long, value_name = "N", help_heading = "Teacher")]
    pub teacher_batch: Option<usize>,
}

//! Options that say how images are refined.

use crate::method::{Family, KnobsBuilder};
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The refiner that a command line asks for. Options that were not given are `None`: defaults are the host's
/// affair. As JSON, they reach a host that lives in another library.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RefinerArgs {
    /// The diffusion model: a folder as diffusers writes it (with transformer/ or unet/, vae/ and scheduler/), a
    /// repository of the Hugging Face hub (owner/name, or owner/name@revision), or a checkpoint of the DiT or SiT
    /// repository
    #[arg(long, value_name = "FOLDER|REPOSITORY|FILE")]
    pub backbone: String,

    /// The autoencoder, as a folder or a repository: needed beside a checkpoint, which has none
    #[arg(long, value_name = "FOLDER|REPOSITORY", help_heading = "Refiner")]
    #[schemars(extend("format" = "path"))]
    pub vae: Option<String>,

    /// Whether a checkpoint is of a dit or a sit [default: what its name says]
    #[arg(long, value_name = "NAME", help_heading = "Refiner")]
    pub model: Option<Family>,

    /// Attention heads of a checkpoint that is none of the sizes S, B, L and XL
    #[arg(long, value_name = "N", help_heading = "Refiner")]
    #[schemars(range(min = 1, max = 65_536))]
    pub num_heads: Option<u32>,

    /// What Stable Diffusion is asked for, {} standing for the class's name [default: "a photo of a {}"]
    #[arg(long, value_name = "TEXT", help_heading = "Refiner")]
    pub prompt: Option<String>,

    /// Names by which Stable Diffusion knows the backbone's classes, in their order [default: those of ImageNet]
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',', num_args = 1, help_heading = "Refiner")]
    pub class_names: Option<Vec<String>>,

    /// The same from a file, a name on each line
    #[arg(long, value_name = "FILE", conflicts_with = "class_names", help_heading = "Refiner")]
    #[schemars(extend("format" = "path"))]
    pub class_names_file: Option<PathBuf>,

    /// Rows and columns of the images that Stable Diffusion works on [default: those of its training]
    #[arg(long, value_name = "PIXELS", help_heading = "Refiner")]
    #[schemars(range(min = 1, max = 65_536))]
    pub resolution: Option<u32>,

    /// Where to refine: auto, cpu, cuda (of several processes, each takes its own), cuda:N, or several, which share the
    /// work, as in cuda:0,cuda:1 or cuda:all
    #[arg(long, default_value = AUTO, help_heading = "Refiner")]
    #[serde(default = "auto")]
    pub device: String,

    /// Precision of the networks: auto, f32 or bf16
    #[arg(long, default_value = AUTO, help_heading = "Refiner")]
    #[serde(default = "auto")]
    pub dtype: String,

    /// Images refined at once [default: 32 on a CPU; on a GPU 8 to 256, by the network's size]
    #[arg(
        id = "refine_batch",
        long = "refine-batch",
        visible_alias = "batch-size",
        value_name = "N",
        help_heading = "Refiner"
    )]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: Option<usize>,

    /// The settings of the method.
    #[command(flatten)]
    pub knobs: KnobsBuilder,
}

const AUTO: &str = "auto";

fn auto() -> String {
    AUTO.to_owned()
}

impl RefinerArgs {
    /// The same on another device.
    #[must_use]
    pub fn on(self, device: impl Into<String>) -> Self {
        Self { device: device.into(), ..self }
    }
}

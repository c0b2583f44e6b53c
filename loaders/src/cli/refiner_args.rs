//! Options that say how images are refined.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The refiner that a command line asks for. Options that were not given are `None`: defaults are the host's
/// affair. As JSON, they reach a host that lives in another library.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RefinerArgs {
    /// The diffusion model: a folder as diffusers writes it (with transformer/ or unet/, vae/ and scheduler/), a
    /// repository of the Hugging Face hub (owner/name, or owner/name@revision), or a checkpoint of the DiT or SiT
    /// repository
    #[arg(long, value_name = "FOLDER|REPOSITORY|FILE")]
    pub backbone: String,

    /// The autoencoder, as a folder or a repository: needed beside a checkpoint, which has none
    #[arg(long, value_name = "FOLDER|REPOSITORY", help_heading = "Refiner")]
    pub vae: Option<String>,

    /// Whether a checkpoint is of a dit or a sit [default: what its name says]
    #[arg(long, help_heading = "Refiner")]
    pub model: Option<String>,

    /// Attention heads of a checkpoint that is none of the sizes S, B, L and XL
    #[arg(long, value_name = "N", help_heading = "Refiner")]
    pub num_heads: Option<u32>,

    /// What Stable Diffusion is asked for, {} standing for the class's name [default: "a photo of a {}"]
    #[arg(long, value_name = "TEXT", help_heading = "Refiner")]
    pub prompt: Option<String>,

    /// Names by which Stable Diffusion knows the backbone's classes, in their order [default: those of ImageNet]
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',', num_args = 1, help_heading = "Refiner")]
    pub class_names: Option<Vec<String>>,

    /// The same from a file, a name on each line
    #[arg(long, value_name = "FILE", conflicts_with = "class_names", help_heading = "Refiner")]
    pub class_names_file: Option<PathBuf>,

    /// Rows and columns of the images that Stable Diffusion works on [default: those of its training]
    #[arg(long, value_name = "PIXELS", help_heading = "Refiner")]
    pub resolution: Option<u32>,

    /// Where to refine: auto, cpu, cuda, cuda:N, or several, which share the work, as in cuda:0,cuda:1 or cuda:all
    #[arg(long, default_value = "auto", help_heading = "Refiner")]
    pub device: String,

    /// Precision of the networks: auto, f32 or bf16
    #[arg(long, default_value = "auto", help_heading = "Refiner")]
    pub dtype: String,

    /// Images refined at once [default: 32 on a CPU; on a GPU 8 to 256, by the network's size]
    #[arg(long, value_name = "N", value_parser = from_one(), help_heading = "Refiner")]
    pub refine_batch: Option<usize>,

    /// Seed of the refinement noise; another seed makes other images [default: 0]
    #[arg(long, value_name = "N", help_heading = "Refiner")]
    pub refine_seed: Option<u64>,

    /// Settings by name: those for sets of a distillation method, as in ncfm, or small_latents, for backbones with
    /// latents of about 8 x 8; options given beside it win
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub preset: Option<String>,

    /// What to run: raw, si, sg, si_sg, full, sg_sf (rows of the paper's ablation), or vae (encode and decode
    /// only) [default: full]
    #[arg(long, help_heading = "Method")]
    pub mode: Option<String>,

    /// Denoising steps [default: 50]
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub steps: Option<usize>,

    /// Step whose noise level the distilled latent is noised to [default: half of the steps]
    #[arg(long, value_name = "K", help_heading = "Method")]
    pub t_f: Option<usize>,

    /// First and last guided step, counting down [default: 40,25 of 50]
    #[arg(long, value_name = "HIGH,LOW", value_delimiter = ',', num_args = 1, help_heading = "Method")]
    pub window: Option<Vec<usize>>,

    /// Strength of the pull toward the distilled latent [default: 0.1]
    #[arg(long, value_name = "G", help_heading = "Method")]
    pub gamma: Option<f64>,

    /// Scale of classifier-free guidance [default: 4.0; 7.5 for Stable Diffusion]
    #[arg(long, value_name = "S", help_heading = "Method")]
    pub cfg_scale: Option<f64>,

    /// Latent channels under classifier-free guidance, 3 as in DiT's own code or 4 as in diffusers [default: 3; 4
    /// for Stable Diffusion]
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub cfg_channels: Option<usize>,

    /// Scale of the pull at each step: posterior, marginal, learned, beta or ddim_eta0 [default: posterior]
    #[arg(long, help_heading = "Method")]
    pub sigma: Option<String>,

    /// Timesteps: dit, ddim, leading0, leading1, trailing, linspace_diffusers or sd_leading1 [default: dit;
    /// sd_leading1 for Stable Diffusion]
    #[arg(long, help_heading = "Method")]
    pub chain: Option<String>,

    /// First step: t_r (all steps) or t_f (from the noised latent's own step) [default: t_r]
    #[arg(long, help_heading = "Method")]
    pub start: Option<String>,

    /// Which ends of the window are guided: closed, high or zero_based [default: closed]
    #[arg(long, help_heading = "Method")]
    pub window_ends: Option<String>,

    /// What is pulled: latent (before the step), after (the step) or x0 (the prediction) [default: latent]
    #[arg(long, help_heading = "Method")]
    pub gradient: Option<String>,

    /// How a SiT is integrated: euler, heun or sde [default: euler]
    #[arg(long, help_heading = "Method")]
    pub solver: Option<String>,

    /// Times that a SiT visits: uniform, official_sde or snr [default: that of the solver]
    #[arg(long, help_heading = "Method")]
    pub grid: Option<String>,

    /// How the window is found on a SiT's times: snr (steps of the same noise) or counter (of the same number)
    /// [default: snr]
    #[arg(long, help_heading = "Method")]
    pub mapping: Option<String>,

    /// Latent that a SiT starts from: vp (of unit variance) or path (on its own line) [default: vp]
    #[arg(long, help_heading = "Method")]
    pub flow_start: Option<String>,
}

fn from_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=65_536)
}

impl RefinerArgs {
    /// The same on another device.
    #[must_use]
    pub fn on(self, device: impl Into<String>) -> Self {
        Self { device: device.into(), ..self }
    }
}

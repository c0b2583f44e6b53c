//! Options that say how images are refined.

use clap::Args;
use serde::{Deserialize, Serialize};

/// The refiner that a command line asks for. Options that were not given are `None`: defaults are the host's
/// affair. As JSON, they reach a host that lives in another library.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RefinerArgs {
    /// The diffusion model: a folder with transformer/, vae/ and scheduler/ as diffusers writes it
    #[arg(long, value_name = "FOLDER")]
    pub backbone: String,

    /// Where to refine: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", help_heading = "Refiner")]
    pub device: String,

    /// Precision of the networks: auto, f32 or bf16
    #[arg(long, default_value = "auto", help_heading = "Refiner")]
    pub dtype: String,

    /// Images refined at once [default: 32]
    #[arg(long, value_name = "N", help_heading = "Refiner")]
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

    /// Scale of classifier-free guidance [default: 4.0]
    #[arg(long, value_name = "S", help_heading = "Method")]
    pub cfg_scale: Option<f64>,

    /// Latent channels under classifier-free guidance, 3 as in DiT's own code or 4 as in diffusers [default: 3]
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub cfg_channels: Option<usize>,

    /// Scale of the pull at each step: posterior, marginal, learned, beta or ddim_eta0 [default: posterior]
    #[arg(long, help_heading = "Method")]
    pub sigma: Option<String>,

    /// Timesteps: dit, ddim, leading0, leading1, trailing, linspace_diffusers or sd_leading1 [default: dit]
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
}

//! DIVER (arXiv 2605.12649) as pure tensor code: no files, no networks, no devices.
//!
//! ```text
//! z  = sqrt(abar_f) z0 + sqrt(1 - abar_f) eps                          semantic inheritance   (semantic.rs)
//! for k = N..1:
//!     e  = eps_u + s (eps_c - eps_u)                                   classifier-free guidance (guidance.rs)
//!     x0 = r_k z - m_k e ;  z' = a_k x0 + b_k e                        DDIM, eta = 0              (ddim.rs)
//!     if low <= k <= high:  z' = z' - gamma sigma_k (z - z0)           semantic guidance and fusion (semantic.rs)
//!     z  = z'
//! ```
//!
//! A flow model (SiT) moves along straight lines instead; the loop is the same, with its own times (flow.rs) and steps
//! (flow_sampler.rs).
//!
//! `z0` is the scaled latent of the distilled image and `eps` its noise ([`normals`]); the scalars come from a
//! [`Chain`], the choices from [`Knobs`], the network from whatever implements [`Denoiser`].

mod ddim;
mod flow;
mod flow_sampler;
mod guidance;
mod images;
mod noise;
mod sampler;
mod schedule;
mod semantic;

pub use ddim::learned_sigma;
pub use diver_loaders::method::{
    ChainKind, Family, FlowStart, Gradient, Grid, Knobs, KnobsBuilder, Mapping, Mode, Preset, Sigma, Solver,
    Start, WindowEnds,
};
pub use flow::Flow;
pub use flow_sampler::{FlowSampler, StepNoise, Velocity, sample_flow};
pub use guidance::classifier_free;
pub use images::{Interpolation, from_network, to_network};
pub(crate) use noise::step_noise;
pub use noise::{CONTEXT, latent_noise, normals};
pub use sampler::{Denoiser, Prediction, Sampler, sample_latents};
pub use schedule::{Chain, NoiseSchedule};
pub(crate) use semantic::no_variance_head;

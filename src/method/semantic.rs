//! The three additions of DIVER (arXiv 2605.12649) to a diffusion sampler, one function each: semantic inheritance
//! (SI), semantic guidance (SG) and semantic fusion (SF). `z0` is the distilled latent throughout.

use super::Knobs;
use crate::{Error, Result};
use diver_loaders::method::{Gradient, Mode};
use tch::Tensor;

/// SI: the latent from which the chain starts, `signal z0 + noise eps` with `weights` `(signal, noise)` at the noise
/// level of step `t_f`; without inheritance the noise alone, without diffusion `z0` itself. `[B, C, h, w]`, f32.
pub(super) fn inherited_start(
    mode: Mode,
    weights: (f64, f64),
    z0: &Tensor,
    noise: &Tensor,
) -> Result<Tensor> {
    if mode == Mode::Vae {
        return Ok(z0.shallow_clone());
    }
    if !mode.inherits() {
        return Ok(noise.shallow_clone());
    }
    Ok(z0.f_mul_scalar(weights.0)?.f_add(&noise.f_mul_scalar(weights.1)?)?)
}

/// SF: whether a step is guided. The window bounds the semantic phase of the chain, between a concrete phase in
/// which the model lays out the scene and a refining one in which it draws the details.
pub(super) fn is_guided(mode: Mode, is_in_window: bool) -> bool {
    mode.guides() && (!mode.fuses() || is_in_window)
}

/// What a guided step knows.
pub(super) struct GuidedStep<'a> {
    pub(super) z0: &'a Tensor,
    /// The latent before the step.
    pub(super) z: &'a Tensor,
    /// The clean latent that the step predicts.
    pub(super) x0: &'a Tensor,
    /// Where the unguided step lands.
    pub(super) next: &'a Tensor,
}

/// `sigma` of a step: one number, or one for each value of the latents.
pub(super) enum StepSigma {
    Scalar(f64),
    Learned(Tensor),
}

/// SG: `s(z_k, k, eps) - gamma sigma_k grad G(z_k)` with `G(z) = |z - z0|^2 / 2`: the sampler's step, pulled toward
/// the distilled latent.
pub(super) fn guide(knobs: &Knobs, sigma: &StepSigma, step: &GuidedStep<'_>) -> Result<Tensor> {
    let point = match knobs.gradient() {
        Gradient::Latent => step.z,
        Gradient::After => step.next,
        Gradient::X0 => step.x0,
    };
    let pull = point.f_sub(step.z0)?;
    let weighted = match sigma {
        // One f64 product first, so that the tensor is multiplied once.
        StepSigma::Scalar(sigma) => pull.f_mul_scalar(knobs.gamma() * sigma)?,
        StepSigma::Learned(sigma) => pull.f_mul(&sigma.f_mul_scalar(knobs.gamma())?)?,
    };
    Ok(step.next.f_sub(&weighted)?)
}

/// The refusal of `sigma = learned` for a network that learned none.
pub(crate) fn no_variance_head() -> Error {
    Error::knob("sigma", "`learned` needs a network with a variance head; this one has none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WindowEnds;

    fn guided(mode: Mode, ends: WindowEnds) -> Vec<usize> {
        let knobs = Knobs::builder().mode(mode).window_ends(ends).build().unwrap();
        let is_in_window = |k| knobs.window_ends().contains(knobs.window(), k);
        (1..=50).filter(|k| is_guided(mode, is_in_window(*k))).collect()
    }

    #[test]
    fn the_window_opens_for_fusion_alone() {
        let range = |low, high| (low..=high).collect::<Vec<_>>();
        assert_eq!(guided(Mode::Full, WindowEnds::Closed), range(25, 40));
        assert_eq!(guided(Mode::SgSf, WindowEnds::High), range(26, 40));
        assert_eq!(guided(Mode::Full, WindowEnds::ZeroBased), range(26, 41));
        assert_eq!(guided(Mode::SiSg, WindowEnds::Closed), range(1, 50));
        assert!(guided(Mode::Si, WindowEnds::Closed).is_empty());
    }
}

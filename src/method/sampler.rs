//! The loop: a DDIM chain with DIVER's inheritance, guidance and fusion.

use super::schedule::Chain;
use super::semantic::{GuidedStep, StepSigma, guide, inherited_start, is_guided, no_variance_head};
use super::{Knobs, ddim};
use crate::{Error, Result};
use diver_loaders::CancelToken;
use diver_loaders::refine::Progress;
use tch::{Kind, Tensor};

/// What a network says about a noisy latent.
#[derive(Debug)]
pub struct Prediction {
    /// The noise in it, guidance of any kind already in; `[B, C, h, w]`, f32.
    pub eps: Tensor,
    /// The variance head's output for the conditional branch, `[B, C, h, w]`, f32, if the network has one.
    pub variance: Option<Tensor>,
}

/// A network that predicts the noise in a batch of latents, for labels that it was given before.
pub trait Denoiser {
    /// Predicts for latents `z` (`[B, C, h, w]`, f32) at training timestep `tau`.
    ///
    /// # Errors
    /// If libtorch fails or the shape is not the network's.
    fn predict(&self, z: &Tensor, tau: i64) -> Result<Prediction>;
}

/// A run of the chain, one step at a time. [`sample_latents`] runs it to the end.
///
/// All arithmetic on latents is f32, whatever the network computes in.
///
/// ```
/// use diver::method::{Denoiser, Prediction, Sampler};
/// use diver::{Chain, Knobs, NoiseSchedule};
/// use tch::{Device, Kind, Tensor};
///
/// struct SeesNoNoise;
/// impl Denoiser for SeesNoNoise {
///     fn predict(&self, z: &Tensor, _tau: i64) -> diver::Result<Prediction> {
///         Ok(Prediction { eps: z.zeros_like(), variance: None })
///     }
/// }
///
/// let knobs = Knobs::default();
/// let chain = Chain::new(knobs.chain(), knobs.steps(), &NoiseSchedule::linear(1e-4, 0.02, 1000)?)?;
/// let z0 = Tensor::zeros([1, 4, 2, 2], (Kind::Float, Device::Cpu));
/// let mut sampler = Sampler::new(&chain, &knobs, &z0, &z0.ones_like())?;
/// while sampler.remaining() > 0 {
///     sampler.step(&SeesNoNoise)?;
/// }
/// assert_eq!(sampler.latent().size(), [1, 4, 2, 2]);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler<'a> {
    chain: &'a Chain,
    knobs: &'a Knobs,
    z0: &'a Tensor,
    z: Tensor,
    remaining: usize,
}

impl<'a> Sampler<'a> {
    /// A run that starts from `z0` (the scaled distilled latents) and `noise`, both `[B, C, h, w]`, f32, on one
    /// device.
    ///
    /// # Errors
    /// If shapes or dtypes are not these, or the chain is not one of `knobs.steps()` steps.
    pub fn new(chain: &'a Chain, knobs: &'a Knobs, z0: &'a Tensor, noise: &Tensor) -> Result<Self> {
        if chain.len() != knobs.steps() {
            return Err(Error::knob(
                "steps",
                format!("{} are not the {} of the chain", knobs.steps(), chain.len()),
            ));
        }
        check_latents(z0, noise)?;
        let abar = chain.abar(knobs.t_f());
        let weights = (abar.sqrt(), (1.0 - abar).sqrt());
        let z = tch::no_grad(|| inherited_start(knobs.mode(), weights, z0, noise))?;
        Ok(Self { chain, knobs, z0, z, remaining: knobs.executed_steps() })
    }

    /// How many steps are left; also the counter `k` of the next step.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The latents `z_k` reached so far, `[B, C, h, w]`, f32.
    pub fn latent(&self) -> &Tensor {
        &self.z
    }

    /// Runs step `k`: a DDIM step, guided if the method says so. Does nothing once no step is left. Returns what
    /// the network predicted.
    ///
    /// # Errors
    /// If the network fails, or `sigma` is `learned` and it has no variance head.
    pub fn step(&mut self, net: &dyn Denoiser) -> Result<Option<Prediction>> {
        let k = self.remaining;
        if k == 0 {
            return Ok(None);
        }
        let _no_grad = tch::no_grad_guard();
        let (chain, knobs) = (self.chain, self.knobs);
        let prediction = net.predict(&self.z, chain.tau(k))?;
        let x0 = ddim::predicted_clean(chain, k, &self.z, &prediction.eps)?;
        let mut next = ddim::next(chain, k, &x0, &prediction.eps)?;
        if is_guided(knobs.mode(), knobs.window_ends().contains(knobs.window(), k)) {
            let sigma = match chain.sigma(knobs.sigma(), k) {
                Some(sigma) => StepSigma::Scalar(sigma),
                None => {
                    let variance = prediction.variance.as_ref().ok_or_else(no_variance_head)?;
                    StepSigma::Learned(ddim::learned_sigma(chain, k, variance)?)
                }
            };
            let step = GuidedStep { z0: self.z0, z: &self.z, x0: &x0, next: &next };
            next = guide(knobs, &sigma, &step)?;
        }
        self.z = next;
        self.remaining = k - 1;
        Ok(Some(prediction))
    }
}

/// Refuses latents that are not f32 `[B, C, h, w]`, and noise that is not like them.
pub(super) fn check_latents(z0: &Tensor, noise: &Tensor) -> Result<()> {
    let what_it_is = |t: &Tensor| format!("{:?} {:?}", t.kind(), t.size());
    if z0.dim() != 4 || z0.kind() != Kind::Float {
        return Err(Error::tensor("z0", "Float [B, C, h, w]", what_it_is(z0)));
    }
    if noise.size() != z0.size() || noise.kind() != Kind::Float {
        return Err(Error::tensor("noise", what_it_is(z0), what_it_is(noise)));
    }
    Ok(())
}

/// Runs the whole chain and returns the refined latents, `[B, C, h, w]`, f32. The cancel token is looked at, and
/// progress reported, at every step; nothing else waits for the device.
///
/// # Errors
/// As for [`Sampler::new`] and [`Sampler::step`]; [`Error::Cancelled`] once `cancel` is set.
pub fn sample_latents(
    net: &dyn Denoiser,
    chain: &Chain,
    knobs: &Knobs,
    z0: &Tensor,
    noise: &Tensor,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Tensor> {
    let mut sampler = Sampler::new(chain, knobs, z0, noise)?;
    let total = sampler.remaining();
    while sampler.remaining() > 0 {
        cancel.check().map_err(|_| Error::Cancelled)?;
        sampler.step(net)?;
        progress.step(total - sampler.remaining(), total);
    }
    Ok(sampler.z)
}

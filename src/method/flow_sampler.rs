//! The loop for flow models (SiT): DIVER's inheritance, guidance and fusion on the way from noise to data.

use super::flow::Flow;
use super::sampler::check_latents;
use super::semantic::{GuidedStep, StepSigma, guide, inherited_start, is_guided};
use crate::{Error, Result};
use diver_loaders::CancelToken;
use diver_loaders::method::Solver;
use diver_loaders::refine::Progress;
use tch::Tensor;

/// A network that predicts which way a batch of latents moves, for labels that it was given before.
pub trait Velocity {
    /// The velocity `x - eps` for latents `z` (`[B, C, h, w]`, f32) at time `s` (0 is noise, 1 is data), guidance of
    /// any kind already in; of the same shape, f32.
    ///
    /// # Errors
    /// If libtorch fails or the shape is not the network's.
    fn velocity(&self, z: &Tensor, s: f64) -> Result<Tensor>;
}

/// The normals that step `k` of [`Solver::Sde`] adds, of the latents' shape, f32.
pub type StepNoise<'a> = &'a dyn Fn(usize) -> Result<Tensor>;

/// A run of a flow, one step at a time. [`sample_flow`] runs it to the end.
///
/// ```
/// use diver::method::{FlowSampler, Velocity};
/// use diver::{Chain, ChainKind, Flow, Knobs, Mode, NoiseSchedule};
/// use tch::{Device, Kind, Tensor};
///
/// /// Knows the data: ones everywhere.
/// struct Ones;
/// impl Velocity for Ones {
///     fn velocity(&self, z: &Tensor, s: f64) -> diver::Result<Tensor> {
///         Ok((z.ones_like() - z) / (1.0 - s))
///     }
/// }
///
/// let knobs = Knobs::builder().mode(Mode::Raw).build()?;
/// let chain = Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000)?)?;
/// let flow = Flow::new(&knobs, &chain)?;
/// let z0 = Tensor::zeros([1, 4, 2, 2], (Kind::Float, Device::Cpu));
/// let noise = z0.randn_like();
/// let draw = |_| Ok(noise.randn_like());
/// let mut sampler = FlowSampler::new(&flow, &z0, &noise, &draw)?;
/// while sampler.remaining() > 0 {
///     sampler.step(&Ones)?;
/// }
/// assert!((sampler.latent() - 1.0).abs().max().double_value(&[]) < 1e-5);
/// # Ok::<(), diver::Error>(())
/// ```
pub struct FlowSampler<'a> {
    flow: &'a Flow,
    z0: &'a Tensor,
    step_noise: StepNoise<'a>,
    z: Tensor,
    remaining: usize,
}

impl std::fmt::Debug for FlowSampler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowSampler").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl<'a> FlowSampler<'a> {
    /// A run that starts from `z0` (the scaled distilled latents) and `noise`, both `[B, C, h, w]`, f32, on one
    /// device; `step_noise` is asked for by [`Solver::Sde`] alone.
    ///
    /// # Errors
    /// If shapes or dtypes are not these.
    pub fn new(flow: &'a Flow, z0: &'a Tensor, noise: &Tensor, step_noise: StepNoise<'a>) -> Result<Self> {
        check_latents(z0, noise)?;
        let knobs = flow.knobs();
        let z = tch::no_grad(|| inherited_start(knobs.mode(), flow.start(), z0, noise))?;
        Ok(Self { flow, z0, step_noise, z, remaining: knobs.executed_steps() })
    }

    /// How many steps are left; also the counter `k` of the next step.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The latents reached so far, `[B, C, h, w]`, f32.
    pub fn latent(&self) -> &Tensor {
        &self.z
    }

    /// Runs one step, guided if the method says so. Does nothing once no step is left.
    ///
    /// # Errors
    /// If the network fails.
    pub fn step(&mut self, net: &dyn Velocity) -> Result<()> {
        let k = self.remaining;
        if k == 0 {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let (flow, knobs, z) = (self.flow, self.flow.knobs(), &self.z);
        let (time, next_time) = (flow.time(k), flow.time(k - 1));
        let width = next_time - time;
        let velocity = net.velocity(z, time)?;
        let mut next = match knobs.solver() {
            Solver::Euler => z.f_add(&velocity.f_mul_scalar(width)?)?,
            Solver::Heun => {
                let ahead = z.f_add(&velocity.f_mul_scalar(width)?)?;
                let sum = velocity.f_add(&net.velocity(&ahead, next_time)?)?;
                z.f_add(&sum.f_mul_scalar(0.5 * width)?)?
            }
            Solver::Sde => {
                // With w = 1 - s the drift v + w score is v - eps, as the score is -eps / (1 - s).
                let eps = z.f_sub(&velocity.f_mul_scalar(time)?)?;
                let drifted = z.f_add(&velocity.f_sub(&eps)?.f_mul_scalar(width)?)?;
                match k {
                    1 => drifted,
                    _ => {
                        let scale = (2.0 * (1.0 - time) * width).sqrt();
                        drifted.f_add(&(self.step_noise)(k)?.f_mul_scalar(scale)?)?
                    }
                }
            }
        };
        if is_guided(knobs.mode(), flow.is_in_window(k)) {
            let x0 = z.f_add(&velocity.f_mul_scalar(1.0 - time)?)?;
            let sigma = StepSigma::Scalar(flow.sigma(knobs.sigma(), k));
            next = guide(knobs, &sigma, &GuidedStep { z0: self.z0, z, x0: &x0, next: &next })?;
        }
        self.z = next;
        self.remaining = k - 1;
        Ok(())
    }
}

/// Runs the whole flow and returns the refined latents, `[B, C, h, w]`, f32. The cancel token is looked at, and
/// progress reported, at every step; nothing else waits for the device.
///
/// # Errors
/// As for [`FlowSampler::new`] and [`FlowSampler::step`]; [`Error::Cancelled`] once `cancel` is set.
pub fn sample_flow(
    net: &dyn Velocity,
    mut sampler: FlowSampler<'_>,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Tensor> {
    let total = sampler.remaining();
    while sampler.remaining() > 0 {
        cancel.check().map_err(|_| Error::Cancelled)?;
        sampler.step(net)?;
        progress.step(total - sampler.remaining(), total);
    }
    Ok(sampler.z)
}

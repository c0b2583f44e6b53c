//! One DDIM step at `eta = 0` (Song et al. 2021, eq. 12), and the variance that DiT learns beside the noise.

use super::schedule::Chain;
use crate::Result;
use tch::Tensor;

/// The clean latent that a step predicts, `x0 = r z - m eps` (DDIM eq. 9); not clipped. Shapes agree; f32.
pub(super) fn predicted_clean(chain: &Chain, k: usize, z: &Tensor, eps: &Tensor) -> Result<Tensor> {
    Ok(z.f_mul_scalar(chain.r(k))?.f_sub(&eps.f_mul_scalar(chain.m(k))?)?)
}

/// Where the step lands, `z' = a x0 + b eps`.
pub(super) fn next(chain: &Chain, k: usize, x0: &Tensor, eps: &Tensor) -> Result<Tensor> {
    Ok(x0.f_mul_scalar(chain.a(k))?.f_add(&eps.f_mul_scalar(chain.b(k))?)?)
}

/// The standard deviation that a network with a variance head gives to step `k`: `exp(log_variance / 2)`, where
/// `variance` (about -1 to 1, not clamped) interpolates between `log beta~` (clipped) and `log beta` (Nichol and
/// Dhariwal 2021, eq. 15; `LEARNED_RANGE` of the DiT repository). Same shape as `variance`, f32.
///
/// ```
/// use diver::method::learned_sigma;
/// use diver::{Chain, ChainKind, NoiseSchedule};
/// use tch::Tensor;
///
/// let chain = Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000)?)?;
/// let sigma = learned_sigma(&chain, 30, &Tensor::from_slice(&[1.0_f32]))?;
/// assert!((sigma.double_value(&[0]) - chain.beta(30).sqrt()).abs() < 1e-6);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// If libtorch fails.
pub fn learned_sigma(chain: &Chain, k: usize, variance: &Tensor) -> Result<Tensor> {
    let (high, low) = (chain.beta(k).ln(), chain.beta_tilde_clipped(k).ln());
    let share = variance.f_add_scalar(1.0)?.f_div_scalar(2.0)?;
    let rest = share.f_neg()?.f_add_scalar(1.0)?;
    let log_variance = share.f_mul_scalar(high)?.f_add(&rest.f_mul_scalar(low)?)?;
    Ok(log_variance.f_mul_scalar(0.5)?.f_exp()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChainKind, NoiseSchedule};

    #[test]
    fn learned_sigma_spans_the_two_bounds() {
        let chain =
            Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap()).unwrap();
        let sigma = learned_sigma(&chain, 30, &Tensor::from_slice(&[-1.0_f32, 1.0])).unwrap();
        assert!((sigma.double_value(&[0]) - chain.beta_tilde(30).sqrt()).abs() < 1e-6);
        assert!((sigma.double_value(&[1]) - chain.beta(30).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn the_true_noise_leads_back_to_the_clean_latent() {
        let chain =
            Chain::new(ChainKind::Dit, 50, &NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap()).unwrap();
        let (x, eps) = (Tensor::from_slice(&[0.5_f32, -2.0]), Tensor::from_slice(&[1.0_f32, 0.25]));
        let z = &x * chain.abar(20).sqrt() + &eps * (1.0 - chain.abar(20)).sqrt();
        let x0 = predicted_clean(&chain, 20, &z, &eps).unwrap();
        assert!((&x0 - &x).abs().max().double_value(&[]) < 1e-6);
        let lands = &x * chain.abar(19).sqrt() + &eps * (1.0 - chain.abar(19)).sqrt();
        assert!((next(&chain, 20, &x0, &eps).unwrap() - lands).abs().max().double_value(&[]) < 1e-6);
    }
}

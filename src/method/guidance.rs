//! Classifier-free guidance (Ho and Salimans 2022, eq. 6).

use crate::Result;
use tch::Tensor;

/// `u + scale (c - u)` on the first `channels` channels; the others are taken from the conditional branch.
///
/// With 3 channels this is `forward_with_cfg` of the DiT repository, which leaves the fourth latent channel and the
/// variance conditional; with 4 it is what diffusers' pipeline does. `cond` and `uncond` are `[B, C, h, w]` with
/// `C >= channels`.
///
/// ```
/// use diver::method::classifier_free;
/// use tch::{Device, Kind, Tensor};
///
/// let cond = Tensor::ones([1, 4, 1, 1], (Kind::Float, Device::Cpu));
/// let guided = classifier_free(&cond, &cond.zeros_like(), 4.0, 3)?;
/// assert_eq!(Vec::<f32>::try_from(guided.flatten(0, -1))?, [4.0, 4.0, 4.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the shapes differ or have fewer channels.
pub fn classifier_free(cond: &Tensor, uncond: &Tensor, scale: f64, channels: usize) -> Result<Tensor> {
    let channels = channels as i64;
    let (_, total, _, _) = cond.size4()?;
    let (c, u) = (cond.f_narrow(1, 0, channels)?, uncond.f_narrow(1, 0, channels)?);
    let guided = u.f_add(&c.f_sub(&u)?.f_mul_scalar(scale)?)?;
    if channels == total {
        return Ok(guided);
    }
    Ok(Tensor::f_cat(&[guided, cond.f_narrow(1, channels, total - channels)?], 1)?)
}

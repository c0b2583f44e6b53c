//! The losses with which distilled datasets train a network, as their methods compute them.
//!
//! All are means over the batch, in float32 (float64 for logits of float64), with a gradient for the network's logits.
//!
//! | method | loss |
//! |---|---|
//! | EDF, DATM | [`soft_cross_entropy`] of targets at temperature 1 |
//! | SRe2L, CDA, D4M, RDED | [`distillation`], or [`distillation_to`] what a loader's batches hold, at temperature 20 |
//! | G_VBSM | [`mse_and_cross_entropy`], weight 0.1 on ImageNet-1K and Tiny ImageNet, 0.15 on CIFAR |

use crate::{Error, Result};
use tch::{Kind, Reduction, Tensor};

/// The label that libtorch passes over, as is its default; no class has it.
const IGNORED: i64 = -100;

/// The cross-entropy between target distributions and a network's logits, both `[B, C]`: the mean over the batch of
/// `-sum_c t_c log_softmax(z)_c`. EDF and DATM train with it (`SoftCrossEntropy` of their `utils`).
///
/// ```
/// use diver::loss::soft_cross_entropy;
/// use tch::Tensor;
///
/// let logits = Tensor::from_slice(&[0.0_f32, 0.0]).view([1, 2]);
/// let targets = Tensor::from_slice(&[0.25_f32, 0.75]).view([1, 2]);
/// let loss = soft_cross_entropy(&logits, &targets)?.double_value(&[]);
/// assert!((loss - 2.0_f64.ln()).abs() < 1e-6);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// [`Error::Tensor`] if the logits are not `[B, C]` of a floating-point dtype with `B` and `C` at least 1, or the
/// targets differ from them in shape or device, or are integers; [`Error::Torch`] if libtorch fails.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let kind = check_logits("logits", logits)?;
    check_like("targets", targets, logits)?;
    let likelihoods = logits.f_log_softmax(-1, kind)?;
    let per_image = targets.f_to_kind(kind)?.f_mul(&likelihoods)?.f_sum_dim_intlist(-1, false, kind)?;
    Ok(per_image.f_mean(kind)?.f_neg()?)
}

/// The distillation loss of SRe2L (`validate/train_FKD.py`, `train_KD.py`), CDA, D4M and RDED: the Kullback-Leibler
/// divergence of a student's distribution from a teacher's, both softmaxed at `temperature`, `KLDivLoss` with reduction
/// `batchmean`. Both logits are `[B, C]`.
///
/// There is no factor `temperature^2`, which Hinton et al. (arXiv 1503.02531) have and these methods leave out: their
/// learning rates go with it.
///
/// ```
/// use diver::loss::distillation;
/// use tch::Tensor;
///
/// let teacher = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).view([1, 3]);
/// // A constant added to all logits changes no distribution.
/// let loss = distillation(&(&teacher + 5.0), &teacher, 20.0)?;
/// assert!(loss.double_value(&[]).abs() < 1e-6);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// [`Error::Knob`] if the temperature is not a finite number above 0, and as [`soft_cross_entropy`].
pub fn distillation(student_logits: &Tensor, teacher_logits: &Tensor, temperature: f64) -> Result<Tensor> {
    let kind = check_logits("student_logits", student_logits)?;
    check_like("teacher_logits", teacher_logits, student_logits)?;
    check_temperature(temperature)?;
    let teacher = teacher_logits.f_to_kind(kind)?.f_div_scalar(temperature)?;
    divergence(student_logits, &teacher.f_softmax(-1, kind)?, temperature, kind)
}

/// [`distillation`] to targets `[B, C]` that are softmaxed at `temperature` already, as a loader's batches hold them
/// (its option `temperature` must be the same).
///
/// ```
/// use diver::loss::{distillation, distillation_to};
/// use tch::{Kind, Tensor};
///
/// let logits = Tensor::from_slice(&[1.0_f32, -1.0, 0.5, 2.0]).view([2, 2]);
/// let teacher = Tensor::from_slice(&[3.0_f32, 1.0, 0.0, 1.0]).view([2, 2]);
/// let targets = (&teacher / 4.0).softmax(-1, Kind::Float);
/// let [a, b] = [distillation(&logits, &teacher, 4.0)?, distillation_to(&logits, &targets, 4.0)?];
/// assert!((a - b).double_value(&[]).abs() < 1e-7);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// As [`distillation`].
pub fn distillation_to(student_logits: &Tensor, targets: &Tensor, temperature: f64) -> Result<Tensor> {
    let kind = check_logits("student_logits", student_logits)?;
    check_like("targets", targets, student_logits)?;
    check_temperature(temperature)?;
    divergence(student_logits, &targets.f_to_kind(kind)?, temperature, kind)
}

/// The loss `mse_gt` of G_VBSM (`train/train_FKD.py`): the mean squared difference between a network's logits and a
/// teacher's, both `[B, C]`, over all their values, plus `weight` times the cross-entropy with the classes `labels`
/// (`[B]`, int64). G_VBSM's weight is 0.1 on ImageNet-1K and Tiny ImageNet, 0.15 on CIFAR.
///
/// ```
/// use diver::loss::mse_and_cross_entropy;
/// use tch::Tensor;
///
/// let logits = Tensor::from_slice(&[0.0_f32, 0.0]).view([1, 2]);
/// let teacher = Tensor::from_slice(&[1.0_f32, 3.0]).view([1, 2]);
/// let loss = mse_and_cross_entropy(&logits, &teacher, &Tensor::from_slice(&[1_i64]), 0.1)?;
/// assert!((loss.double_value(&[]) - (5.0 + 0.1 * 2.0_f64.ln())).abs() < 1e-6);
/// # Ok::<(), diver::Error>(())
/// ```
///
/// # Errors
/// [`Error::Knob`] if the weight is negative or not finite; [`Error::Tensor`] if the labels are not `[B]` of int64 on
/// the logits' device, or one lies outside `0..C`; otherwise as [`soft_cross_entropy`].
///
/// The values of labels on a GPU are not looked at, which would wait for it at every step: CUDA aborts the work of the
/// whole process at a label outside `0..C`.
pub fn mse_and_cross_entropy(
    logits: &Tensor,
    teacher_logits: &Tensor,
    labels: &Tensor,
    weight: f64,
) -> Result<Tensor> {
    let kind = check_logits("logits", logits)?;
    check_like("teacher_logits", teacher_logits, logits)?;
    check_labels(labels, logits)?;
    if !(weight.is_finite() && weight >= 0.0) {
        return Err(Error::knob("weight", format!("{weight} must be a finite number of at least 0")));
    }
    let squares = logits.f_to_kind(kind)?.f_mse_loss(&teacher_logits.f_to_kind(kind)?, Reduction::Mean)?;
    let cross_entropy = logits.f_to_kind(kind)?.f_cross_entropy_loss(
        labels,
        None::<&Tensor>,
        Reduction::Mean,
        IGNORED,
        0.0,
    )?;
    Ok(squares.f_add(&cross_entropy.f_mul_scalar(weight)?)?)
}

/// `sum_b KL(targets_b || softmax(logits_b / temperature)) / B`.
fn divergence(logits: &Tensor, targets: &Tensor, temperature: f64, kind: Kind) -> Result<Tensor> {
    let student = logits.f_to_kind(kind)?.f_div_scalar(temperature)?.f_log_softmax(-1, kind)?;
    let batch = logits.size()[0];
    Ok(student.f_kl_div(targets, Reduction::Sum, false)?.f_div_scalar(batch)?)
}

/// The dtype to compute in, for logits `[B, C]`.
fn check_logits(what: &'static str, logits: &Tensor) -> Result<Kind> {
    let (size, kind) = (logits.size(), logits.f_kind()?);
    if !matches!(size[..], [batch, classes] if batch > 0 && classes > 0) {
        return Err(Error::tensor(what, "[B, C], both at least 1", format!("shape {size:?}")));
    }
    if !logits.is_floating_point() {
        return Err(Error::tensor(what, "a floating-point dtype", format!("{kind:?}")));
    }
    Ok(if kind == Kind::Double { Kind::Double } else { Kind::Float })
}

/// Refuses a tensor that is not of the logits' shape and device, or holds integers: libtorch would broadcast it.
fn check_like(what: &'static str, other: &Tensor, logits: &Tensor) -> Result<()> {
    let (size, expected) = (other.size(), logits.size());
    if size != expected {
        return Err(Error::tensor(
            what,
            format!("shape {expected:?}, that of the logits"),
            format!("shape {size:?}"),
        ));
    }
    if !other.is_floating_point() {
        return Err(Error::tensor(what, "a floating-point dtype", format!("{:?}", other.f_kind()?)));
    }
    check_device(what, other, logits)
}

fn check_labels(labels: &Tensor, logits: &Tensor) -> Result<()> {
    let refused = |expected: String, found: String| Err(Error::tensor("labels", expected, found));
    let (batch, classes) = logits.size2()?;
    let (size, kind) = (labels.size(), labels.f_kind()?);
    if size != [batch] || kind != Kind::Int64 {
        return refused(format!("shape [{batch}] of Int64"), format!("shape {size:?} of {kind:?}"));
    }
    check_device("labels", labels, logits)?;
    if !labels.device().is_cuda() {
        let (least, most) = (labels.f_min()?.f_int64_value(&[])?, labels.f_max()?.f_int64_value(&[])?);
        // libtorch would pass over an image of class -100.
        if let Some(label) = [least, most].into_iter().find(|label| !(0..classes).contains(label)) {
            return refused(format!("classes below {classes}"), format!("class {label}"));
        }
    }
    Ok(())
}

fn check_device(what: &'static str, tensor: &Tensor, logits: &Tensor) -> Result<()> {
    let (found, expected) = (tensor.device(), logits.device());
    if found == expected {
        return Ok(());
    }
    Err(Error::tensor(
        what,
        format!("a tensor on {expected:?}, as the logits are"),
        format!("one on {found:?}"),
    ))
}

fn check_temperature(temperature: f64) -> Result<()> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    Err(Error::knob("temperature", format!("{temperature} must be a finite number above 0")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn zeros(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::zeros(shape, (kind, Device::Cpu))
    }

    fn named<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
        match result {
            Err(Error::Tensor { what, .. }) => what,
            Err(Error::Knob { knob, .. }) => knob,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        let logits = zeros(&[2, 3], Kind::Float);
        let labels = zeros(&[2], Kind::Int64);
        for bad in [
            zeros(&[3], Kind::Float),
            zeros(&[2, 3, 1], Kind::Float),
            zeros(&[0, 3], Kind::Float),
            zeros(&[2, 0], Kind::Float),
            zeros(&[2, 3], Kind::Int64),
        ] {
            assert_eq!(named(soft_cross_entropy(&bad, &bad)), "logits");
            assert_eq!(named(distillation(&bad, &bad, 1.0)), "student_logits");
            assert_eq!(named(distillation_to(&bad, &bad, 1.0)), "student_logits");
            assert_eq!(named(mse_and_cross_entropy(&bad, &bad, &labels, 0.1)), "logits");
        }
        // All of which libtorch would broadcast, but for the integers.
        for bad in [
            zeros(&[1, 3], Kind::Float),
            zeros(&[2, 1], Kind::Float),
            zeros(&[3], Kind::Float),
            zeros(&[2, 3], Kind::Int64),
        ] {
            assert_eq!(named(soft_cross_entropy(&logits, &bad)), "targets");
            assert_eq!(named(distillation(&logits, &bad, 1.0)), "teacher_logits");
            assert_eq!(named(distillation_to(&logits, &bad, 1.0)), "targets");
            assert_eq!(named(mse_and_cross_entropy(&logits, &bad, &labels, 0.1)), "teacher_logits");
        }
        for bad in [
            zeros(&[3], Kind::Int64),
            zeros(&[2, 1], Kind::Int64),
            zeros(&[2], Kind::Float),
            Tensor::from_slice(&[0_i64, 3]),
            Tensor::from_slice(&[-100_i64, 0]),
        ] {
            assert_eq!(named(mse_and_cross_entropy(&logits, &logits, &bad, 0.1)), "labels");
        }
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let logits = zeros(&[2, 3], Kind::Float);
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(named(distillation(&logits, &logits, temperature)), "temperature");
            assert_eq!(named(distillation_to(&logits, &logits, temperature)), "temperature");
        }
        let labels = zeros(&[2], Kind::Int64);
        for weight in [-0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(named(mse_and_cross_entropy(&logits, &logits, &labels, weight)), "weight");
        }
    }

    /// A share of 0 adds nothing, where its logarithm would be infinite.
    #[test]
    fn one_hot_targets_make_cross_entropy_of_the_divergence() {
        let logits = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 0.0, 3.0, 1.0]).view([2, 3]);
        let targets = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0, 0.0, 1.0]).view([2, 3]);
        let hard = logits.cross_entropy_for_logits(&Tensor::from_slice(&[0_i64, 2])).double_value(&[]);
        for loss in [soft_cross_entropy(&logits, &targets), distillation_to(&logits, &targets, 1.0)] {
            assert!((loss.unwrap().double_value(&[]) - hard).abs() < 1e-6);
        }
    }
}

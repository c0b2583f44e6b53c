//! Training a network from a stream of batches, and its accuracy.

use super::augment::{Random, shifted};
use super::{Network, OneCycle, torch};
use diver_loaders::{Error, Result};
use tch::nn::{self, OptimizerConfig};
use tch::{Kind, TchError, Tensor};

/// How a network is trained: AdamW under a one-cycle schedule, images shifted at random, cross-entropy with
/// soft labels.
///
/// The batches themselves (their size, order and labels) are the stream's. The defaults suit sets of 10 to 1000
/// images of 32 x 32 pixels.
///
/// ```
/// use diver::eval::Recipe;
///
/// let recipe = Recipe { steps: 200, seed: 1, ..Recipe::default() };
/// assert_eq!(recipe.max_lr, 2e-3);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Optimizer steps, one batch each; at least 1. Default 85.
    pub steps: usize,
    /// The largest learning rate of the cycle, above 0. Default 2e-3.
    pub max_lr: f64,
    /// Share of the steps in which the learning rate rises, 0 to 1. Default 0.2.
    pub warmup: f64,
    /// AdamW's weight decay, for every parameter; at least 0. Default 0.05.
    pub weight_decay: f64,
    /// Images are shifted by up to this many pixels in either direction, their edges repeated; 0 for none.
    /// Default 3.
    pub shift: u32,
    /// Seeds the shifts. (The initial weights have the seed of [`Network::new`].) Default 0.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { steps: 85, max_lr: 2e-3, warmup: 0.2, weight_decay: 0.05, shift: 3, seed: 0 }
    }
}

impl Recipe {
    fn check(&self) -> Result<()> {
        let valid = [
            ("steps", self.steps as f64, self.steps > 0, "at least 1"),
            ("max_lr", self.max_lr, self.max_lr > 0.0 && self.max_lr.is_finite(), "above 0"),
            ("warmup", self.warmup, (0.0..=1.0).contains(&self.warmup), "0 to 1"),
            ("weight_decay", self.weight_decay, (0.0..).contains(&self.weight_decay), "at least 0"),
        ];
        match valid.into_iter().find(|(_, _, valid, _)| !valid) {
            Some((option, value, _, allowed)) => {
                Err(Error::config(option, format!("{value} was given, {allowed} is allowed")))
            }
            None => Ok(()),
        }
    }
}

/// Trains `network` on `batches` of normalised images `[B, 3, side, side]` of the weights' dtype (float32) and target
/// probabilities `[B, classes]` of a floating-point dtype, one a step, and returns the loss of every step:
/// `recipe.steps` of them, or fewer if the stream ends before. Batches may be on any device, and go to the network's.
/// [`endless`](super::endless) makes such a stream of a loader, so that an epoch may be shorter than the training.
///
/// # Errors
/// If `recipe` is out of range, a batch is an error or has another shape or dtype, [`Network::logits`] refuses to
/// train on it (a loader's last batch may be too small; `drop_last` leaves it out), or libtorch cannot move it or
/// derive the loss.
///
/// # Panics
/// As [`Network::logits`].
///
/// ```
/// use diver::eval::{Architecture, Network, Recipe, train};
/// use tch::{Device, Kind, Tensor};
///
/// let float = (Kind::Float, Device::Cpu);
/// let batch = || Ok::<_, Box<dyn std::error::Error>>((Tensor::randn([4, 3, 32, 32], float), Tensor::eye(4, float)));
/// let mut network = Network::new(Architecture::ConvNet, 32, 4, 0, Device::Cpu)?;
/// let losses = train(&mut network, std::iter::repeat_with(batch), &Recipe { steps: 3, ..Recipe::default() })?;
/// assert_eq!(losses.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train<E: From<Error>>(
    network: &mut Network,
    batches: impl IntoIterator<Item = Result<(Tensor, Tensor), E>>,
    recipe: &Recipe,
) -> Result<Vec<f64>, E> {
    recipe.check()?;
    let Recipe { steps, max_lr, warmup, weight_decay, shift, seed } = *recipe;
    let cycle = OneCycle { steps, max_lr, warmup };
    let mut optimizer = nn::AdamW { wd: weight_decay, ..Default::default() }
        .build(network.weights(), max_lr)
        .map_err(|e| Error::config("optimizer", e.to_string()))?;
    let mut random = Random(seed);
    let mut losses = Vec::new();
    for (step, batch) in batches.into_iter().take(steps).enumerate() {
        let (images, targets) = batch?;
        let images = images.f_to_device(network.device()).map_err(torch("images"))?;
        let targets = targets.f_to_device(network.device()).map_err(torch("targets"))?;
        network.check(&images, true)?;
        check_targets(&targets, [images.size()[0], network.classes()])?;
        let logits = network.logits(&shifted(&images, shift, &mut random), true)?;
        let loss = soft_cross_entropy(&logits, &targets).map_err(torch("loss"))?;
        optimizer.set_lr(cycle.learning_rate(step));
        optimizer.set_momentum(cycle.momentum(step));
        // `backward_step` in its parts: it panics where gradients cannot be had.
        optimizer.zero_grad();
        loss.f_backward().map_err(torch("loss"))?;
        optimizer.step();
        losses.push(loss.f_double_value(&[]).map_err(torch("loss"))?);
    }
    Ok(losses)
}

fn check_targets(targets: &Tensor, shape: [i64; 2]) -> Result<()> {
    let refused = |expected: String, found| Err(crate::Error::tensor("targets", expected, found).into());
    if targets.size() != shape {
        return refused(format!("{shape:?}"), format!("shape {:?}", targets.size()));
    }
    match targets.f_kind().map_err(torch("targets"))? {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => Ok(()),
        other => refused("a floating-point dtype (to_kind converts)".into(), format!("{other:?}")),
    }
}

/// Share of `images` `[N, 3, side, side]` of the weights' dtype (float32) whose largest logit is at their label in
/// `labels` (`[N]`, int64, 0 to `classes - 1`): 0 to 1. Both may be on any device.
///
/// # Errors
/// If there are no images, shapes or dtypes do not fit, a label is no class of the network's, libtorch cannot move the
/// images, or a logit is not finite. (The first of NaNs passes for the largest: the result would be the share of class
/// 0.)
///
/// # Panics
/// As [`Network::logits`].
pub fn accuracy(network: &Network, images: &Tensor, labels: &Tensor) -> Result<f64> {
    check_labels(labels, images, network.classes())?;
    // In chunks, so that memory does not grow with the test set.
    let (mut hits, mut finite) = (0, 0);
    let chunks = |tensor: &Tensor, what| tensor.f_split(500, 0).map_err(torch(what));
    for (images, labels) in chunks(images, "images")?.iter().zip(chunks(labels, "labels")?) {
        let images = images.f_to_device(network.device()).map_err(torch("images"))?;
        let logits = tch::no_grad(|| network.logits(&images, false))?;
        let (hit, sound) = counts(&logits, &labels).map_err(torch("logits"))?;
        hits += hit;
        finite += sound;
    }
    let all = labels.numel() as i64;
    if finite < all {
        let reason = format!(
            "those of {} of {all} images are not finite: a training diverged (try a smaller max_lr), or images or \
             weights are not finite",
            all - finite
        );
        return Err(Error::config("logits", reason));
    }
    Ok(hits as f64 / all as f64)
}

fn check_labels(labels: &Tensor, images: &Tensor, classes: i64) -> Result<()> {
    if labels.size().first() != images.size().first() || labels.numel() == 0 || labels.dim() != 1 {
        let reason = format!("shape {:?} does not fit images {:?}", labels.size(), images.size());
        return Err(Error::config("labels", reason));
    }
    let refused = |expected: String, found| Err(crate::Error::tensor("labels", expected, found).into());
    match labels.f_kind().map_err(torch("labels"))? {
        Kind::Int64 => {}
        other => return refused("Int64 (to_kind converts)".into(), format!("{other:?}")),
    }
    for label in [labels.f_min(), labels.f_max()] {
        let label = label.and_then(|label| label.f_int64_value(&[])).map_err(torch("labels"))?;
        if !(0..classes).contains(&label) {
            return refused(format!("0 to {}", classes - 1), format!("class {label}"));
        }
    }
    Ok(())
}

/// How many rows of `logits` `[B, classes]` are largest at their label, and how many are finite.
fn counts(logits: &Tensor, labels: &Tensor) -> Result<(i64, i64), TchError> {
    let count = |rows: Tensor| rows.f_sum(Kind::Int64)?.f_int64_value(&[]);
    let hits = logits.f_argmax(1, false)?.f_eq_tensor(&labels.f_to_device(logits.device())?)?;
    Ok((count(hits)?, count(logits.f_isfinite()?.f_all_dim(1, false)?)?))
}

/// Mean over the batch of the cross-entropy between `targets` (probabilities) and `logits`, both `[B, classes]`.
fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    let likelihoods = logits.f_log_softmax(1, Kind::Float)?;
    let per_image = targets.f_mul(&likelihoods)?.f_sum_dim_intlist(1, false, Kind::Float)?;
    per_image.f_mean(Kind::Float)?.f_neg()
}

#[cfg(test)]
mod tests {
    use super::super::{Architecture, endless, labelled};
    use super::*;
    use diver_loaders::{Loader, MemorySource};
    use tch::Device;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn mlp(classes: usize) -> Network {
        Network::new(Architecture::Mlp, 32, classes, 0, Device::Cpu).unwrap()
    }

    #[test]
    fn soft_cross_entropy_of_hard_labels_is_cross_entropy() {
        let logits = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 0.0, 3.0, 1.0]).view([2, 3]);
        let targets = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0, 0.0, 1.0]).view([2, 3]);
        let hard = logits.cross_entropy_for_logits(&Tensor::from_slice(&[0_i64, 2]));
        let soft = |logits: &Tensor, targets: &Tensor| soft_cross_entropy(logits, targets).unwrap();
        assert!((soft(&logits, &targets) - hard).double_value(&[]).abs() < 1e-6);
        let even = Tensor::full([2, 3], 1.0 / 3.0, FLOAT);
        let uniform = soft(&Tensor::zeros([2, 3], FLOAT), &even).double_value(&[]);
        assert!((uniform - 3.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_separable_set_is_learned_from_an_endless_stream() {
        // One colour an image: no shift can hide it.
        let images = Tensor::arange(12, FLOAT).sin().view([4, 3, 1, 1]).expand([4, 3, 32, 32], false);
        let targets = Tensor::eye(4, FLOAT);
        let stream = std::iter::repeat_with(|| Ok::<_, Error>((images.copy(), targets.copy())));
        let mut network = mlp(4);
        let losses = train(&mut network, stream, &Recipe { steps: 30, ..Recipe::default() }).unwrap();
        assert_eq!(losses.len(), 30);
        assert!(losses[29] < losses[0] / 2.0, "{losses:?}");
        let labels = Tensor::arange(4, (Kind::Int64, Device::Cpu));
        assert_eq!(accuracy(&network, &images, &labels).unwrap(), 1.0);
    }

    /// Every parameter `0.1 cos(i)`, images `sin(i)`, ten steps: the losses that the PyTorch modules have under
    /// torch's AdamW and OneCycleLR. (With batch norm over two images rounding errors grow too fast for this.)
    #[test]
    fn losses_are_those_of_pytorch_step_by_step() {
        let wave = |size: &[i64]| Tensor::arange(size.iter().product::<i64>(), FLOAT);
        let images = wave(&[2, 3, 32, 32]).sin().view([2, 3, 32, 32]);
        let mut targets = [0.0_f32; 20];
        [targets[0], targets[1], targets[19]] = [0.7, 0.3, 1.0];
        let targets = Tensor::from_slice(&targets).view([2, 10]);
        let expected = [
            (Architecture::ConvNet, [2.32979, 2.31838, 2.26423, 2.20226, 2.13590, 1.99007]),
            (Architecture::ViT, [2.28537, 2.28395, 2.25927, 2.23107, 2.20339, 2.14137]),
            (Architecture::Mlp, [3.15944, 2.04551, 3.15023, 6.07647, 0.84093, 0.36700]),
        ];
        for (architecture, expected) in expected {
            let mut network = Network::new(architecture, 32, 10, 0, Device::Cpu).unwrap();
            tch::no_grad(|| {
                for mut parameter in network.weights().trainable_variables() {
                    let size = parameter.size();
                    parameter.copy_(&(wave(&size).cos() * 0.1).view(size.as_slice()));
                }
            });
            let stream = std::iter::repeat_with(|| Ok::<_, Error>((images.copy(), targets.copy())));
            let recipe = Recipe { steps: 10, shift: 0, ..Recipe::default() };
            let losses = train(&mut network, stream, &recipe).unwrap();
            let losses = [losses[0], losses[1], losses[2], losses[3], losses[4], losses[9]];
            for (found, expected) in losses.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-4, "{architecture}: {losses:?}");
            }
        }
    }

    #[test]
    fn equal_seeds_train_equal_networks() {
        let images = Tensor::arange(2 * 3 * 32 * 32, FLOAT).sin().view([2, 3, 32, 32]);
        let losses = |seed| {
            let batches = (0..3).map(|_| Ok::<_, Error>((images.copy(), Tensor::eye(2, FLOAT))));
            train(&mut mlp(2), batches, &Recipe { steps: 10, seed, ..Recipe::default() }).unwrap()
        };
        assert_eq!(losses(1), losses(1));
        assert_ne!(losses(1), losses(2));
        assert_eq!(losses(1).len(), 3, "the stream is shorter than the recipe");
    }

    #[test]
    fn unfit_batches_labels_and_recipes_are_refused() {
        let run = |images: &[i64], targets: &[i64], recipe: Recipe| {
            let batch = Ok::<_, Error>((Tensor::zeros(images, FLOAT), Tensor::zeros(targets, FLOAT)));
            train(&mut mlp(2), [batch], &recipe).unwrap_err().to_string()
        };
        assert!(run(&[1, 1, 32, 32], &[1, 2], Recipe::default()).starts_with("images: "));
        assert!(run(&[1, 3, 32, 32], &[1, 3], Recipe::default()).starts_with("targets: "));
        for recipe in [
            Recipe { steps: 0, ..Recipe::default() },
            Recipe { max_lr: f64::NAN, ..Recipe::default() },
            Recipe { warmup: 1.5, ..Recipe::default() },
            Recipe { weight_decay: -1.0, ..Recipe::default() },
        ] {
            assert!(run(&[1, 3, 32, 32], &[1, 2], recipe).contains("is allowed"));
        }
        let failing = [Err::<(Tensor, Tensor), _>(Error::Cancelled)];
        assert!(matches!(train(&mut mlp(2), failing, &Recipe::default()), Err(Error::Cancelled)));
        let (images, labels) = (Tensor::zeros([2, 3, 32, 32], FLOAT), Tensor::from_slice(&[0_i64]));
        assert!(accuracy(&mlp(2), &images, &labels).is_err());
    }

    #[test]
    fn dtypes_and_labels_that_do_not_fit_are_refused() {
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let run = |images: Kind, targets: Kind| {
            let batch = Ok::<_, Error>((zeros(&[2, 3, 32, 32], images), zeros(&[2, 2], targets)));
            train(&mut mlp(2), [batch], &Recipe::default()).map_err(|error| error.to_string())
        };
        assert_eq!(run(Kind::Float, Kind::Double).map(|losses| losses.len()), Ok(1));
        for kind in [Kind::Double, Kind::Int64, Kind::Bool] {
            assert!(run(kind, Kind::Float).unwrap_err().starts_with(&format!("images: {kind:?} was given")));
        }
        for kind in [Kind::Int64, Kind::Bool, Kind::ComplexFloat] {
            assert!(run(Kind::Float, kind).unwrap_err().starts_with(&format!("targets: {kind:?} was given")));
        }
        for (images, targets, what) in [
            (Tensor::new(), zeros(&[2, 2], Kind::Float), "images: "),
            (zeros(&[], Kind::Float), zeros(&[2, 2], Kind::Float), "images: "),
            (zeros(&[0, 3, 32, 32], Kind::Float), zeros(&[0, 2], Kind::Float), "images: "),
            (zeros(&[2, 3, 32, 32], Kind::Float), Tensor::new(), "targets: "),
            (zeros(&[2, 3, 32, 32], Kind::Float), zeros(&[], Kind::Float), "targets: "),
        ] {
            let error = train(&mut mlp(2), [Ok::<_, Error>((images, targets))], &Recipe::default());
            assert!(error.unwrap_err().to_string().starts_with(what));
        }

        let images = zeros(&[2, 3, 32, 32], Kind::Float);
        let score = |images: &Tensor, labels: &Tensor| {
            accuracy(&mlp(2), images, labels).map_err(|error| error.to_string())
        };
        assert!(score(&images, &Tensor::from_slice(&[0_i64, 1])).is_ok());
        assert!(score(&zeros(&[2, 3, 32, 32], Kind::Uint8), &Tensor::from_slice(&[0_i64, 1])).is_err());
        for (labels, reason) in [
            (Tensor::from_slice(&[0_i64, 2]), "labels: class 2 was given, 0 to 1 is expected"),
            (Tensor::from_slice(&[-1_i64, 0]), "labels: class -1 was given, 0 to 1 is expected"),
            (Tensor::from_slice(&[0_i32, 1]), "labels: Int was given, Int64 (to_kind converts) is expected"),
            (
                Tensor::from_slice(&[0.0_f32, 1.0]),
                "labels: Float was given, Int64 (to_kind converts) is expected",
            ),
            (zeros(&[2, 1], Kind::Int64), "labels: shape [2, 1] does not fit images [2, 3, 32, 32]"),
            (Tensor::new(), "labels: shape [0] does not fit images [2, 3, 32, 32]"),
        ] {
            assert_eq!(score(&images, &labels).unwrap_err(), reason);
        }
        assert!(score(&Tensor::new(), &Tensor::new()).is_err());
    }

    #[test]
    fn what_cannot_be_derived_is_an_error() {
        let batch = || Ok::<_, Error>((Tensor::zeros([2, 3, 32, 32], FLOAT), Tensor::eye(2, FLOAT)));
        let error = tch::no_grad(|| train(&mut mlp(2), [batch()], &Recipe::default())).unwrap_err();
        assert!(error.to_string().starts_with("loss: libtorch: "), "{error}");
        // As many steps as the stream has batches.
        let endless = Recipe { steps: usize::MAX, ..Recipe::default() };
        assert_eq!(train(&mut mlp(2), [batch()], &endless).unwrap().len(), 1);
    }

    /// Three images in batches of two leave one, whose batch norms see one value a channel in a ResNet at 16 pixels.
    #[test]
    fn a_last_batch_of_one_small_image_is_refused_and_can_be_dropped() {
        let pixels = (0..3 * 3 * 16 * 16).map(|i| (i as f32).sin().abs()).collect();
        let set = MemorySource::unit(3, [3, 16, 16], pixels, vec![0, 1, 2]).unwrap();
        let (images, labels) = labelled(&set).unwrap();
        let mut network = Network::new(Architecture::ResNet, 16, 3, 0, Device::Cpu).unwrap();
        let mut train_on = |drop_last| {
            let builder = Loader::builder(set.clone()).batch_size(2).drop_last(drop_last);
            let mut loader = builder.build().unwrap();
            let batches = endless(&mut loader, Device::Cpu);
            train(&mut network, batches, &Recipe { steps: 4, ..Recipe::default() })
        };
        let error = train_on(false).unwrap_err().to_string();
        assert!(error.starts_with("batch: a single image of 16 x 16 pixels"), "{error}");
        assert_eq!(train_on(true).unwrap().len(), 4);
        accuracy(&network, &images, &labels).unwrap();
    }

    #[test]
    fn logits_that_are_not_finite_have_no_accuracy() {
        let (images, labels) = (Tensor::zeros([3, 3, 32, 32], FLOAT), Tensor::from_slice(&[0_i64; 3]));
        let network = mlp(2);
        assert!(accuracy(&network, &images, &labels).is_ok());
        let _ = images.get(1).fill_(f64::NAN);
        let error = accuracy(&network, &images, &labels).unwrap_err().to_string();
        assert!(error.starts_with("logits: those of 1 of 3 images are not finite"), "{error}");
        let images = Tensor::zeros([3, 3, 32, 32], FLOAT);
        let _ = tch::no_grad(|| network.weights().trainable_variables()[0].fill_(f64::INFINITY));
        assert!(accuracy(&network, &images, &labels).is_err());
    }
}

//! What every [`Teach`] implementation must do, as checks that can be run against any of them.

use super::{Logits, Teach, TeachBatch};
use crate::{CancelToken, Error, Result};

/// Images of the suite's batch.
const IMAGES: usize = 5;

/// Runs every check against `teacher` with images of shape `[C, H, W]`. Logits that must agree may lie apart by
/// `tolerance` times the largest logit (or 1 if all are smaller): 1e-4 suits float32 on a CPU, 1e-2 lower precision.
///
/// ```
/// use diver_loaders::teach::{self, TeachBatch, conformance};
///
/// let mut teacher = teach::from_fn(|images: &TeachBatch<'_>| {
///     Ok(images.images().flat_map(|image| [image[0], image[1], image[0] * image[1]]).collect())
/// });
/// conformance::check(&mut teacher, [3, 8, 8], 1e-6);
/// ```
///
/// # Panics
/// With a message that names the rule broken.
pub fn check(teacher: &mut dyn Teach, shape: [usize; 3], tolerance: f32) {
    if let Err(broken) = try_check(teacher, shape, tolerance) {
        panic!("{broken}");
    }
}

/// As [`check`].
///
/// # Errors
/// The rule broken.
pub fn try_check(teacher: &mut dyn Teach, shape: [usize; 3], tolerance: f32) -> Result<(), String> {
    let images = Images::new(shape);
    let fingerprint = teacher.fingerprint();
    let says_something = |f: &serde_json::Value| f.as_object().is_some_and(|o| !o.is_empty());
    ensure(fingerprint.as_ref().is_none_or(says_something), || {
        "a fingerprint is a JSON object that says something".into()
    })?;
    ensure(teacher.preferred_batch() >= 1, || "the preferred batch is at least 1".into())?;

    let said = teacher.num_classes();
    let live = CancelToken::new();
    let order: [usize; IMAGES] = std::array::from_fn(|image| image);
    let values = accepted("a valid batch gets logits", images.ask(teacher, &order, &live))?;
    let classes = said.unwrap_or(values.len() / IMAGES);
    let checked = |rule: &str, values: Result<Vec<f32>>, count: usize| {
        accepted(rule, values.and_then(|values| Logits::new(values, count, classes)))
    };
    let whole = checked("each image gets one finite logit for each class", Ok(values), IMAGES)?;
    let largest = whole.values().iter().fold(1.0, |most: f32, logit| most.max(logit.abs()));
    let apart = |found: &[f32], image: usize| {
        let expected = whole.row(image).unwrap_or_default();
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
    };
    let same = |rule: &str, found: &Logits, order: &[usize]| {
        found.rows().zip(order).try_for_each(|(row, image)| {
            let apart = apart(row, *image);
            ensure(apart <= tolerance, || {
                format!("{rule}: the logits of image {image} differ by {apart:e} of the largest logit")
            })
        })
    };
    let is_other = |image: usize| whole.row(image).is_some_and(|row| apart(row, 0) > tolerance);
    ensure((1..IMAGES).all(is_other), || {
        "different images get different logits: the suite cannot tell the order of rows otherwise".into()
    })?;

    let again = checked("the same batch gets logits again", images.ask(teacher, &order, &live), IMAGES)?;
    same("equal calls give equal logits (is the network in evaluation mode?)", &again, &order)?;
    for image in order {
        let alone = checked("a batch of one gets logits", images.ask(teacher, &[image], &live), 1)?;
        same("an image's logits do not depend on its batch", &alone, &[image])?;
    }
    let mut turned = order;
    turned.reverse();
    let reversed =
        checked("a batch in another order gets logits", images.ask(teacher, &turned, &live), IMAGES)?;
    same("rows come in the order of the images", &reversed, &turned)?;

    let none = checked("an empty batch is no error, and gets no logits", images.ask(teacher, &[], &live), 0)?;
    ensure(none.is_empty(), || "an empty batch gets no logits".into())?;

    let token = CancelToken::new();
    token.cancel();
    let cancelled = images.ask(teacher, &order, &token);
    ensure(matches!(cancelled, Err(Error::Cancelled)), || {
        "a cancelled token ends the call with Error::Cancelled".into()
    })?;
    let after = checked("a cancelled teacher answers again", images.ask(teacher, &order, &live), IMAGES)?;
    same("a cancelled call leaves nothing behind", &after, &order)?;

    teacher.release();
    let after = checked("a released teacher answers again", images.ask(teacher, &order, &live), IMAGES)?;
    same("a release changes no logits", &after, &order)?;

    ensure(teacher.fingerprint() == fingerprint, || {
        "a call or a release does not change the fingerprint".into()
    })?;
    ensure(teacher.num_classes().is_none_or(|now| now == classes), || {
        format!("the teacher says {:?} classes after giving logits for {classes}", teacher.num_classes())
    })?;
    ensure(said.is_none() || teacher.num_classes() == said, || {
        "the number of classes stays known once it is known".into()
    })
}

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

fn accepted<T>(rule: &str, result: Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{rule}: {error}"))
}

/// Smooth images with values in [-2, 2], no two of which are equal.
struct Images {
    shape: [usize; 3],
    pixels: Vec<Vec<f32>>,
}

impl Images {
    fn new(shape: [usize; 3]) -> Self {
        let [channels, height, width] = shape;
        let image = |number: usize| {
            let mut pixels = Vec::with_capacity(channels * height * width);
            for channel in 0..channels {
                let phase = (number + 2 * channel) as f32;
                let rate = 0.2 + 0.1 * number as f32;
                for row in 0..height {
                    let value = |column| 2.0 * (phase + 0.3 * row as f32 + rate * column as f32).sin();
                    pixels.extend((0..width).map(value));
                }
            }
            pixels
        };
        Self { shape, pixels: (0..IMAGES).map(image).collect() }
    }

    /// What the teacher returns for the images of these numbers.
    fn ask(&self, teacher: &mut dyn Teach, order: &[usize], cancel: &CancelToken) -> Result<Vec<f32>> {
        let pixels: Vec<f32> = order.iter().flat_map(|image| self.pixels[*image].iter().copied()).collect();
        let [channels, height, width] = self.shape;
        teacher.teach(&TeachBatch::new(&pixels, [order.len(), channels, height, width])?, cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::super::from_fn;
    use super::*;
    use serde_json::{Value, json};

    /// A sound teacher of three classes, and what is broken of it.
    #[derive(Default)]
    struct Faulty {
        fault: Fault,
        calls: usize,
    }

    #[derive(Clone, Copy, Default, PartialEq)]
    enum Fault {
        #[default]
        None,
        Dropout,
        BatchNorm,
        SwapsRows,
        NotANumber,
        Constant,
        TooManyRows,
        RefusesEmpty,
        PadsEmpty,
        IgnoresCancel,
        StaysCancelled,
        ForgetsOnRelease,
        CountsInFingerprint,
        EmptyFingerprint,
        NoBatch,
        OtherClasses,
        ForgetsClasses,
    }

    fn logits(image: &[f32]) -> [f32; 3] {
        let mean = image.iter().sum::<f32>() / image.len() as f32;
        [image[0], 4.0 * mean, image[0] * image[image.len() - 1]]
    }

    impl Teach for Faulty {
        fn fingerprint(&self) -> Option<Value> {
            Some(match self.fault {
                Fault::CountsInFingerprint => json!({ "calls": self.calls }),
                Fault::EmptyFingerprint => json!({}),
                _ => json!({ "teacher": "test" }),
            })
        }

        fn preferred_batch(&self) -> usize {
            usize::from(self.fault != Fault::NoBatch)
        }

        fn num_classes(&self) -> Option<usize> {
            match self.fault {
                Fault::OtherClasses => Some(4),
                Fault::ForgetsClasses if self.calls > 0 => None,
                _ => Some(3),
            }
        }

        fn teach(&mut self, images: &TeachBatch<'_>, cancel: &CancelToken) -> Result<Vec<f32>> {
            self.calls += 1;
            if self.fault == Fault::StaysCancelled && cancel.is_cancelled() {
                self.calls = 1000;
            }
            if self.calls > 1000 {
                return Err(Error::Cancelled);
            }
            if self.fault != Fault::IgnoresCancel {
                cancel.check()?;
            }
            if images.is_empty() {
                return match self.fault {
                    Fault::RefusesEmpty => Err(Error::teach("there are no images")),
                    Fault::PadsEmpty => Ok(vec![0.0; 3]),
                    _ => Ok(Vec::new()),
                };
            }
            let mut rows: Vec<[f32; 3]> = images.images().map(logits).collect();
            match self.fault {
                Fault::Dropout => rows.iter_mut().for_each(|row| row[self.calls % 3] = 0.0),
                Fault::BatchNorm => {
                    let mean = rows.iter().map(|row| row[0]).sum::<f32>() / rows.len() as f32;
                    rows.iter_mut().for_each(|row| row[0] -= mean);
                }
                Fault::SwapsRows if rows.len() > 2 => rows.swap(1, 2),
                Fault::NotANumber => rows[0][2] = f32::NAN,
                Fault::Constant => rows.fill([1.0, 2.0, 3.0]),
                Fault::TooManyRows => rows.push([0.0; 3]),
                _ => {}
            }
            Ok(rows.into_flattened())
        }

        fn release(&mut self) {
            if self.fault == Fault::ForgetsOnRelease {
                self.fault = Fault::Constant;
            }
        }
    }

    fn broken(fault: Fault) -> Result<(), String> {
        try_check(&mut Faulty { fault, calls: 0 }, [3, 6, 5], 1e-6)
    }

    #[test]
    fn a_sound_teacher_conforms() {
        broken(Fault::None).unwrap();
        let boxed: Box<dyn Teach> = Box::<Faulty>::default();
        check(&mut { boxed }, [1, 4, 4], 1e-6);
        check(&mut from_fn(|images| Ok(images.images().flat_map(logits).collect())), [3, 8, 8], 1e-6);
    }

    #[test]
    fn a_broken_teacher_is_told_which_rule_it_broke() {
        for (fault, rule) in [
            (Fault::Dropout, "equal calls give equal logits"),
            (Fault::BatchNorm, "do not depend on its batch"),
            (Fault::SwapsRows, "do not depend on its batch: the logits of image 1"),
            (Fault::NotANumber, "image 0 for class 2"),
            (Fault::Constant, "different images get different logits"),
            (Fault::TooManyRows, "one finite logit for each class"),
            (Fault::RefusesEmpty, "an empty batch is no error"),
            (Fault::PadsEmpty, "an empty batch"),
            (Fault::IgnoresCancel, "a cancelled token ends the call"),
            (Fault::StaysCancelled, "a cancelled teacher answers again"),
            (Fault::ForgetsOnRelease, "a release changes no logits"),
            (Fault::CountsInFingerprint, "does not change the fingerprint"),
            (Fault::EmptyFingerprint, "a JSON object that says something"),
            (Fault::NoBatch, "at least 1"),
            (Fault::OtherClasses, "one finite logit for each class"),
            (Fault::ForgetsClasses, "stays known"),
        ] {
            let told = broken(fault).unwrap_err();
            assert!(told.contains(rule), "{told:?} does not say {rule:?}");
        }
    }
}

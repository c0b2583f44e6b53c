//! What every [`Source`] implementation must do, as checks that can be run against any of them.

use super::{Label, LabelKind, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use std::collections::BTreeSet;

/// Most samples that are read, spread over the set.
const READ: usize = 64;
const THREADS: usize = 4;

/// Runs every check against `source`.
///
/// # Panics
/// With a message that names the rule broken.
pub fn check(source: &dyn Source) {
    let info = source.info();
    assert!(info.num_samples > 0, "a set has samples");
    let [channels, height, width] = info.shape;
    assert!(channels == 1 || channels == 3, "images have 1 or 3 channels, not {channels}");
    assert!(height > 0 && width > 0, "images have an area");
    assert!(
        info.classes.as_ref().is_none_or(|names| names.len() == info.num_classes),
        "each class has one name, or none has"
    );
    let portions = source.portions();
    let covered: usize = portions.iter().map(|portion| portion.samples).sum();
    assert!(portions.is_empty() || covered == info.num_samples, "its portions are of all samples");
    assert!(portions.iter().all(|portion| portion.samples > 0), "each portion has samples");

    let step = info.num_samples.div_ceil(READ);
    let indices: BTreeSet<usize> =
        (0..info.num_samples).step_by(step).chain([info.num_samples - 1]).collect();
    let samples: Vec<(usize, Sample)> = indices
        .into_iter()
        .map(|index| {
            (index, source.sample(index).unwrap_or_else(|e| panic!("sample {index} is readable: {e}")))
        })
        .collect();
    for (index, sample) in &samples {
        check_sample(source, *index, sample);
        let label = source.label(*index).expect("a sample that is readable has a label");
        assert_eq!(label, sample.label, "sample {index} has one label");
        assert_eq!(source.name(*index), source.name(*index), "sample {index} has one name, if any");
    }

    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let samples = &samples;
            scope.spawn(move || {
                for (index, sample) in
                    samples.iter().cycle().skip(thread * samples.len() / THREADS).take(samples.len())
                {
                    let again = source.sample(*index).expect("a sample is readable from any thread");
                    assert!(again == *sample, "sample {index} reads the same from any thread");
                }
            });
        }
    });

    for index in [info.num_samples, usize::MAX] {
        let error = source.sample(index).expect_err("an index out of range is an error").to_string();
        assert!(error.contains(&index.to_string()), "the error names the sample: {error}");
        assert!(source.label(index).is_err(), "a sample that is not there has no label");
        assert!(source.name(index).is_none(), "a sample that is not there has no name");
    }
    assert!(source.info() == info, "reading does not change what a source says of itself");
}

fn check_sample(source: &dyn Source, index: usize, sample: &Sample) {
    let info = source.info();
    let values: usize = info.shape.iter().product();
    assert_eq!(sample.shape, info.shape, "sample {index} has the set's shape");
    assert_eq!(sample.pixels.len(), values, "sample {index} has a value for each pixel and channel");
    if let StoredPixels::F32(pixels) = &sample.pixels {
        assert!(pixels.iter().all(|p| p.is_finite()), "sample {index} has finite values");
    }
    match (&sample.label, info.labels) {
        (Label::Hard(class), LabelKind::Hard) => {
            assert!(
                *class < info.num_classes,
                "sample {index}: class {class} of {} exists",
                info.num_classes
            );
        }
        (Label::Logits(logits), LabelKind::Logits) => {
            assert_eq!(logits.len(), info.num_classes, "sample {index} has a logit for each class");
            assert!(logits.iter().all(|l| l.is_finite()), "sample {index} has finite logits");
        }
        (Label::Probabilities(shares), LabelKind::Probabilities) => {
            assert_eq!(shares.len(), info.num_classes, "sample {index} has a probability for each class");
            let sum: f32 = shares.iter().sum();
            assert!((sum - 1.0).abs() < 0.02, "sample {index} has probabilities that sum to 1, not {sum}");
        }
        (label, kind) => panic!("sample {index} has a label {label:?} in a set of {kind:?} ones"),
    }
    let again = source.sample(index).expect("a sample is readable twice");
    assert!(again == *sample && again.digest() == sample.digest(), "sample {index} reads the same twice");

    let space = source.value_space(index);
    assert!(
        space == info.value_space || info.value_space == ValueSpace::Mixed && space != ValueSpace::Mixed,
        "sample {index} has the set's value space, or one of its own in a mixed set, not {space:?}"
    );
    match sample.to_pixels(&space) {
        Ok(pixels) => check_pixels(info, index, &pixels),
        Err(error) => assert!(space.check_pixels().is_err(), "sample {index} has pixels: {error}"),
    }
    let normalized = sample.clone().into_normalized(&space, &info.normalize);
    assert_eq!(normalized.len(), values, "sample {index} has as many normalised values as stored ones");
    assert!(normalized.iter().all(|v| v.is_finite()), "sample {index} has finite normalised values");
    let mut written = vec![0.0; values];
    source
        .write_normalized(index, &mut written)
        .expect("a sample that is readable can be written normalised");
    assert!(written == normalized, "sample {index} is written with the same normalised values");
}

fn check_pixels(info: &SourceInfo, index: usize, pixels: &[f32]) {
    assert_eq!(
        pixels.len(),
        3 * info.shape[1] * info.shape[2],
        "sample {index} has three channels for a refiner"
    );
    assert!(pixels.iter().all(|p| (0.0..=1.0).contains(p)), "sample {index} is in [0, 1] for a refiner");
}

//! Datasets as tensors.

use super::torch;
use crate::BatchExt;
use diver_loaders::{Error, Loader, Result, Source};
use tch::{Device, Tensor};

/// The batches of `loader` as tensors on `device`, one epoch after another without end: for
/// [`train`](super::train()). Images are `[B, 3, height, width]`, a single channel repeated three times, and targets
/// `[B, classes]`, both float32. A batch that fails is an error in its place.
///
/// ```
/// use diver::eval::endless;
/// use diver_loaders::{Loader, MemorySource};
/// use tch::Device;
///
/// let set = MemorySource::unit(2, [1, 8, 8], vec![0.5; 2 * 64], vec![0, 1])?;
/// let mut loader = Loader::builder(set).batch_size(2).build()?;
/// for batch in endless(&mut loader, Device::Cpu).take(3) {
///     let (images, targets) = batch?;
///     assert_eq!((images.size(), targets.size()), (vec![2, 3, 8, 8], vec![2, 2]));
/// }
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub fn endless(loader: &mut Loader, device: Device) -> impl Iterator<Item = Result<(Tensor, Tensor)>> {
    loader.batches().map(move |batch| {
        let (images, targets) = batch?.to_tch(device)?;
        Ok((three_channels(images)?, targets))
    })
}

/// All samples of `set`: images `[N, 3, height, width]` (float32), normalised with the constants of its
/// [`info`](Source::info), and labels `[N]` (int64). A single channel is repeated three times. For test sets, which
/// [`accuracy`](super::accuracy) takes whole.
///
/// # Errors
/// If a sample cannot be read or is not of the set's shape, or there is none.
///
/// ```
/// use diver::eval::labelled;
/// use diver_loaders::MemorySource;
///
/// let set = MemorySource::unit(2, [1, 8, 8], vec![0.5; 2 * 64], vec![0, 1])?;
/// let (images, labels) = labelled(&set)?;
/// assert_eq!((images.size(), labels.size()), (vec![2, 3, 8, 8], vec![2]));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub fn labelled(set: &dyn Source) -> Result<(Tensor, Tensor)> {
    let info = set.info();
    let shape = info.shape.map(|n| n as i64);
    let (mut images, mut labels) =
        (Vec::with_capacity(info.num_samples), Vec::with_capacity(info.num_samples));
    for index in 0..info.num_samples {
        let sample = set.sample(index)?;
        labels.push(sample.label.class() as i64);
        let values = sample.into_normalized(&set.value_space(index), &info.normalize);
        let image = Tensor::from_slice(&values).f_view(shape).map_err(|_| {
            let reason = format!("{} values do not make an image of shape {shape:?}", values.len());
            Error::sample(&info.path, index, reason)
        })?;
        images.push(image);
    }
    let images = Tensor::f_stack(&images, 0).map_err(torch("images"))?;
    Ok((three_channels(images)?, Tensor::from_slice(&labels)))
}

/// `[B, 1, H, W]` repeated to `[B, 3, H, W]`, which networks take; what has three channels as it is.
fn three_channels(images: Tensor) -> Result<Tensor> {
    match images.size()[..] {
        [_, 1, _, _] => images.f_repeat([1, 3, 1, 1]).map_err(torch("images")),
        _ => Ok(images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diver_loaders::{Label, MemorySource, Sample, SourceInfo};

    /// Sample `i` holds the value `i / 10` everywhere.
    fn set(samples: usize) -> MemorySource {
        let values = (0..samples).flat_map(|i| [i as f32 / 10.0; 3]).collect();
        MemorySource::unit(samples, [3, 1, 1], values, (0..samples).collect()).unwrap()
    }

    #[test]
    fn an_endless_stream_is_the_epochs_in_order() {
        let loader = || Loader::builder(set(5)).batch_size(2).shuffle(true).build().unwrap();
        let first = |images: Tensor| Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
        let mut expected = Vec::new();
        let mut by_epoch = loader();
        for epoch in 0..3 {
            expected
                .extend(by_epoch.epoch(epoch).map(|batch| batch.unwrap().images::<f32>().unwrap().to_vec()));
        }
        let mut loader = loader();
        let stream = endless(&mut loader, Device::Cpu);
        let found: Vec<_> = stream.take(9).map(|batch| first(batch.unwrap().0)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_single_channel_is_the_same_three_times_to_train_on_and_to_test_on() {
        let values = (0..2 * 4).map(|i| i as f32 / 10.0).collect();
        let set = MemorySource::unit(2, [1, 2, 2], values, vec![0, 1]).unwrap();
        let (tested, _) = labelled(&set).unwrap();
        let mut loader = Loader::builder(set).batch_size(2).build().unwrap();
        let (trained, _) = endless(&mut loader, Device::Cpu).next().unwrap().unwrap();
        assert_eq!(trained.size(), [2, 3, 2, 2]);
        assert_eq!(trained, tested);
        for channel in 1..3 {
            assert_eq!(trained.select(1, channel), trained.select(1, 0));
        }
        assert_ne!(trained.get(0), trained.get(1));
    }

    /// A source that does not hold what its info says.
    #[derive(Debug)]
    struct Wrong(MemorySource, SourceInfo);

    impl Source for Wrong {
        fn info(&self) -> &SourceInfo {
            &self.1
        }

        fn label(&self, index: usize) -> Result<Label> {
            self.0.label(index)
        }

        fn sample(&self, index: usize) -> Result<Sample> {
            self.0.sample(index)
        }
    }

    #[test]
    fn samples_of_another_shape_and_empty_sets_are_errors() {
        let wrong = |info: SourceInfo| labelled(&Wrong(set(3), info)).unwrap_err().to_string();
        let info = set(3).info().clone();
        let error = wrong(SourceInfo { shape: [3, 2, 2], ..info.clone() });
        assert_eq!(error, "memory: sample 0: 3 values do not make an image of shape [3, 2, 2]");
        let error = wrong(SourceInfo { num_samples: 0, ..info });
        assert!(error.starts_with("images: libtorch: "), "{error}");
    }

    #[test]
    fn labelled_samples_are_normalised() {
        let (images, labels) = labelled(&set(3)).unwrap();
        let red = f64::from(diver_loaders::Normalize::IMAGENET.apply(0, 0.2));
        assert!((images.double_value(&[2, 0, 0, 0]) - red).abs() < 1e-6);
        assert_eq!(labels, Tensor::from_slice(&[0_i64, 1, 2]));
    }
}

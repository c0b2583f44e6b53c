//! Datasets as tensors.

use crate::BatchExt;
use diver_loaders::{Loader, Result, Source};
use tch::{Device, Tensor};

/// The batches of `loader` as tensors on `device`, one epoch after another without end: for
/// [`train`](super::train()). A batch that fails is an error in its place.
///
/// ```
/// use diver::eval::endless;
/// use diver_loaders::{Loader, MemorySource};
/// use tch::Device;
///
/// let set = MemorySource::unit(2, [3, 8, 8], vec![0.5; 2 * 192], vec![0, 1])?;
/// let mut loader = Loader::builder(set).batch_size(2).build()?;
/// for batch in endless(&mut loader, Device::Cpu).take(3) {
///     let (images, targets) = batch?;
///     assert_eq!((images.size(), targets.size()), (vec![2, 3, 8, 8], vec![2, 2]));
/// }
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub fn endless(loader: &mut Loader, device: Device) -> impl Iterator<Item = Result<(Tensor, Tensor)>> {
    loader.batches().map(move |batch| Ok(batch?.to_tch(device)?))
}

/// All samples of `set`: images `[N, 3, height, width]`, normalised with the constants of its
/// [`info`](Source::info), and labels `[N]` (int64). A single channel is repeated three times. For test sets, which
/// [`accuracy`](super::accuracy) takes whole.
///
/// # Errors
/// If a sample cannot be read.
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
    let [channels, height, width] = info.shape.map(|n| n as i64);
    let (mut images, mut labels) = (Vec::with_capacity(info.samples), Vec::with_capacity(info.samples));
    for index in 0..info.samples {
        let sample = set.sample(index)?;
        labels.push(sample.label.class() as i64);
        let values = sample.into_normalized(&info.value_space, &info.normalize);
        images.push(
            Tensor::from_slice(&values).view([channels, height, width]).expand([3, height, width], false),
        );
    }
    Ok((Tensor::stack(&images, 0), Tensor::from_slice(&labels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diver_loaders::MemorySource;

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
            expected.extend(by_epoch.epoch(epoch).map(|batch| batch.unwrap().images().to_vec()));
        }
        let mut loader = loader();
        let stream = endless(&mut loader, Device::Cpu);
        let found: Vec<_> = stream.take(9).map(|batch| first(batch.unwrap().0)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn labelled_samples_are_normalised() {
        let (images, labels) = labelled(&set(3)).unwrap();
        let red = f64::from(diver_loaders::Normalize::IMAGENET.apply(0, 0.2));
        assert!((images.double_value(&[2, 0, 0, 0]) - red).abs() < 1e-6);
        assert_eq!(labels, Tensor::from_slice(&[0_i64, 1, 2]));
    }
}

//! What a batch's images are written as, and where, through the loader's public face.
#![allow(clippy::unwrap_used)]

use diver_loaders::augment::{Augment, HorizontalFlip, RandomResizedCrop};
use diver_loaders::refine::{Progress, RawBatch};
use diver_loaders::stream::sink::{ALIGNMENT, Buffer, Sink};
use diver_loaders::teach::{self, TeachBatch};
use diver_loaders::{
    Batch, CancelToken, Conditioning, Dtype, Element, Error, Label, Loader, LoaderBuilder, MemoryFormat,
    MemorySource, Mix, MixMode, Normalize, Per, Refine, RgbImage, Sample, Source, SourceInfo, StoredPixels,
    Targets, ValueSpace, bf16, f16,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SAMPLES: usize = 23;
const SIDE: usize = 5;

/// Images of bytes, all values of which come.
#[derive(Debug)]
struct Bytes {
    info: SourceInfo,
    /// Where values were written to.
    written: Mutex<Vec<usize>>,
}

impl Bytes {
    fn new(channels: usize) -> Self {
        let size = channels * SIDE * SIDE;
        let values = vec![0.0; SAMPLES * size];
        let set = MemorySource::unit(SAMPLES, [channels, SIDE, SIDE], values, vec![0; SAMPLES]).unwrap();
        let info = SourceInfo { normalize: Normalize::IMAGENET, ..set.info().clone() };
        Self { info, written: Mutex::default() }
    }

    /// The stored values, `[C, H, W]`.
    fn stored(&self, index: usize) -> Vec<u8> {
        let size: usize = self.info.shape.iter().product();
        (0..size).map(|at| ((index * size + at) * 7 % 256) as u8).collect()
    }
}

impl Source for Bytes {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, _index: usize) -> Result<Label, Error> {
        Ok(Label::Hard(0))
    }

    fn sample(&self, index: usize) -> Result<Sample, Error> {
        let pixels = StoredPixels::U8(self.stored(index));
        Ok(Sample { pixels, shape: self.info.shape, label: Label::Hard(0) })
    }

    fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<(), Error> {
        self.written.lock().unwrap().push(out.as_ptr().addr());
        out.copy_from_slice(
            &self.sample(index)?.into_normalized(&self.info.value_space, &self.info.normalize),
        );
        Ok(())
    }
}

/// Inverts images.
struct Inverter;

impl Refine for Inverter {
    fn fingerprint(&self) -> Option<serde_json::Value> {
        None
    }

    fn check_conditioning(&self, _conditioning: &Conditioning) -> Result<(), Error> {
        Ok(())
    }

    fn refine(
        &mut self,
        batch: &RawBatch<'_>,
        _cancel: &CancelToken,
        _progress: &dyn Progress,
    ) -> Result<Vec<RgbImage>, Error> {
        let inverted: Vec<f32> = batch.pixels.iter().map(|pixel| 1.0 - pixel).collect();
        let images = inverted.chunks_exact(3 * SIDE * SIDE);
        images.map(|planar| RgbImage::from_planar(SIDE, SIDE, planar)).collect()
    }
}

fn batches(builder: LoaderBuilder) -> Vec<Batch> {
    let mut loader = builder.build().unwrap();
    // A second epoch is written to buffers of the first.
    loader.batches().take(8).map(Result::unwrap).collect()
}

/// The images of a batch in the order `[B, C, H, W]`.
fn planar<T: Element>(batch: &Batch) -> Vec<T> {
    let ([count, channels, height, width], strides) = (batch.shape(), batch.strides());
    let values = batch.images::<T>().unwrap();
    let size = channels * height * width;
    let place = |at: usize| {
        let (channel, row, column) = (at / (height * width) % channels, at / width % height, at % width);
        at / size * strides[0] + channel * strides[1] + row * strides[2] + column * strides[3]
    };
    assert_eq!(values.len(), count * size);
    (0..values.len()).map(|at| values[place(at)]).collect()
}

/// A normalised value as a byte.
fn byte((at, value): (usize, &f32), channels: usize, area: usize) -> u8 {
    let pixel = Normalize::IMAGENET.invert(at / area % channels, *value);
    (255.0 * pixel).round_ties_even().clamp(0.0, 255.0) as u8
}

/// Every dtype and memory format of a loader is what its planes of float32 are, converted one by one.
fn check(channels: usize, builder: impl Fn() -> LoaderBuilder) {
    let expected = batches(builder());
    assert!(expected.iter().all(|batch| batch.dtype() == Dtype::Float32));
    for format in MemoryFormat::ALL {
        for dtype in Dtype::ALL {
            for threads in [1, 4] {
                let made = batches(builder().dtype(*dtype).memory_format(*format).threads(threads));
                for (made, expected) in made.iter().zip(&expected) {
                    assert_eq!((made.dtype(), made.memory_format()), (*dtype, *format));
                    assert_eq!(made.shape(), expected.shape());
                    assert_eq!((made.indices(), made.targets()), (expected.indices(), expected.targets()));
                    assert_eq!(
                        made.image_bytes().len(),
                        made.shape().iter().product::<usize>() * dtype.size()
                    );
                    let values = expected.images::<f32>().unwrap();
                    let [.., height, width] = expected.shape();
                    match dtype {
                        Dtype::Float32 => assert_eq!(planar::<f32>(made), values),
                        Dtype::Float16 => {
                            assert!(
                                planar::<f16>(made).into_iter().eq(values.iter().map(|v| f16::from_f32(*v)))
                            );
                        }
                        Dtype::Bfloat16 => {
                            let expected = values.iter().map(|v| bf16::from_f32(*v));
                            assert!(planar::<bf16>(made).into_iter().eq(expected));
                        }
                        Dtype::Uint8 => {
                            let bytes = values.iter().enumerate().map(|v| byte(v, channels, height * width));
                            assert!(planar::<u8>(made).into_iter().eq(bytes));
                        }
                    }
                }
            }
        }
    }
}

fn builder(channels: usize) -> LoaderBuilder {
    Loader::builder(Bytes::new(channels)).batch_size(6).shuffle(true).seed(3)
}

#[test]
fn raw_images_come_in_every_form() {
    for channels in [1, 3] {
        check(channels, || builder(channels));
        check(channels, || builder(channels).image_size(8, 3));
    }
}

#[test]
fn views_come_in_every_form() {
    let flip = || HorizontalFlip::new(0.5).unwrap().into();
    let augment = Augment::new([flip(), RandomResizedCrop::default().into()]).unwrap();
    check(3, || builder(3).augment(augment.clone()));
}

#[test]
fn mixes_and_blends_come_in_every_form() {
    for mode in [MixMode::Replace, MixMode::Blend] {
        for channels in [1, 3] {
            let mix = Mix::constant(0.4).unwrap();
            check(channels, || builder(channels).refiner(Inverter).mix(mix.clone()).mode(mode));
        }
    }
}

#[test]
fn bytes_are_those_that_are_stored_or_refined() {
    let set = Bytes::new(3);
    let mut refined = 0;
    for format in MemoryFormat::ALL {
        let builder = builder(3).refiner(Inverter).mix(Mix::constant(0.5).unwrap());
        for batch in batches(builder.dtype(Dtype::Uint8).memory_format(*format)) {
            let images = planar::<u8>(&batch);
            for (slot, image) in images.chunks_exact(3 * SIDE * SIDE).enumerate() {
                let is_refined = batch.refined()[slot];
                let stored = set.stored(batch.indices()[slot]).into_iter();
                let expected: Vec<u8> =
                    stored.map(|byte| if is_refined { 255 - byte } else { byte }).collect();
                assert_eq!(image, expected);
                refined += usize::from(is_refined);
            }
        }
    }
    assert_ne!(refined, 0);
}

#[test]
fn images_of_another_type_are_refused() {
    let mut batch = batches(builder(3).dtype(Dtype::Bfloat16)).remove(0);
    let Err(Error::Config { option: "dtype", reason }) = batch.images::<u8>() else { panic!("{batch:?}") };
    assert!(reason.contains("bfloat16") && reason.contains("uint8"), "{reason}");
    batch.images_mut::<bf16>().unwrap()[7] = bf16::from_f32(-3.0);
    assert_eq!(batch.images::<bf16>().unwrap()[7], bf16::from_f32(-3.0));
    assert!(batch.images_mut::<f32>().is_err());
}

#[test]
fn whitened_values_are_no_bytes() {
    let values = vec![0.5; 12];
    let set = MemorySource::unit(1, [3, 2, 2], values.clone(), vec![0]).unwrap();
    let info = SourceInfo { value_space: ValueSpace::Whitened, ..set.info().clone() };
    let whitened = || {
        let set = MemorySource::new(info.clone(), values.clone(), vec![Label::Hard(0)]).unwrap();
        Loader::builder(set)
    };
    assert!(whitened().dtype(Dtype::Float16).build().is_ok());
    let Err(Error::Config { option: "dtype", reason }) = whitened().dtype(Dtype::Uint8).build() else {
        panic!("whitened values have no pixels");
    };
    assert!(reason.contains("whitened"), "{reason}");
}

/// A sink that counts, and fails when it is told to.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicUsize,
    returned: AtomicUsize,
    /// The number of the buffer that there is no memory for, from 1 on.
    fails_at: AtomicUsize,
    places: Mutex<Vec<std::ops::Range<usize>>>,
}

#[derive(Debug)]
struct Counted {
    room: Vec<u8>,
    len: usize,
    counts: Arc<Counts>,
}

impl Sink for Counting {
    fn take(&self, len: usize) -> Result<Box<dyn Buffer>, Error> {
        let number = self.0.taken.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.0.fails_at.load(Ordering::SeqCst) {
            return Err(Error::config("sink", "told to fail"));
        }
        let counted = Counted { room: vec![0; len + ALIGNMENT], len, counts: Arc::clone(&self.0) };
        let start = counted.bytes().as_ptr().addr();
        self.0.places.lock().unwrap().push(start..start + len);
        Ok(Box::new(counted))
    }
}

impl Buffer for Counted {
    fn bytes(&self) -> &[u8] {
        &self.room[self.room.as_ptr().align_offset(ALIGNMENT)..][..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.room.as_ptr().align_offset(ALIGNMENT);
        &mut self.room[start..][..self.len]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.returned.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_sink_gets_back_what_it_gave() {
    let sink = Counting::default();
    let mut loader = builder(3).sink(sink.clone()).build().unwrap();
    let plain = batches(builder(3));
    for (batch, expected) in loader.batches().take(8).zip(&plain) {
        let mut batch = batch.unwrap();
        assert_eq!(batch.image_bytes(), expected.image_bytes());
        let buffer: &dyn std::any::Any = batch.buffer_mut();
        assert_eq!(buffer.downcast_ref::<Counted>().unwrap().bytes(), expected.image_bytes());
    }
    drop(loader);
    let [taken, returned] = [&sink.0.taken, &sink.0.returned].map(|count| count.load(Ordering::SeqCst));
    assert!(taken >= 8 && taken == returned, "{taken} were taken, and {returned} came back");
}

#[test]
fn a_sink_that_fails_fails_one_batch() {
    let sink = Counting::default();
    sink.0.fails_at.store(3, Ordering::SeqCst);
    let mut loader = builder(3).sink(sink).threads(1).build().unwrap();
    let failed: Vec<bool> = loader
        .iter()
        .map(|batch| match batch {
            Err(Error::Config { option: "sink", .. }) => true,
            other => other.is_err(),
        })
        .collect();
    assert_eq!(failed, [false, false, true, false]);
}

#[test]
fn planes_of_float32_are_written_where_they_stay() {
    let is_written_in_place = |channels: usize, dtype, format| {
        let (sink, set) = (Counting::default(), Arc::new(Bytes::new(channels)));
        let builder = Loader::builder(Arc::clone(&set)).sink(sink.clone()).dtype(dtype).memory_format(format);
        batches(builder);
        let (places, written) = (sink.0.places.lock().unwrap(), set.written.lock().unwrap());
        assert!(!written.is_empty());
        let inside = written.iter().filter(|at| places.iter().any(|place| place.contains(at))).count();
        assert!(inside == 0 || inside == written.len());
        inside > 0
    };
    use MemoryFormat::{ChannelsLast, Contiguous};
    assert!(is_written_in_place(3, Dtype::Float32, Contiguous));
    // One channel lies the same way in both formats.
    assert!(is_written_in_place(1, Dtype::Float32, ChannelsLast));
    assert!(!is_written_in_place(3, Dtype::Float32, ChannelsLast));
    assert!(!is_written_in_place(3, Dtype::Float16, Contiguous));
}

#[test]
fn what_a_program_keeps_comes_without_images() {
    for mode in [MixMode::Replace, MixMode::Both] {
        let mixed =
            || builder(3).refiner(Inverter).mix(Mix::linear(0.0, 1.0, 4).unwrap()).variants(2).mode(mode);
        let mut plain = mixed().build().unwrap();
        let mut loader = mixed().resident(true).build().unwrap();
        let mut kept: HashMap<usize, Vec<f32>> = HashMap::new();
        for epoch in 0..8 {
            let mut held = 0;
            for (expected, batch) in plain.epoch(epoch).map(Result::unwrap).zip(epoch_of(&mut loader, epoch))
            {
                let images = expected.images::<f32>().unwrap().chunks_exact(3 * SIDE * SIDE);
                assert_eq!(batch.slots(), expected.slots());
                assert_eq!((batch.indices(), batch.refined()), (expected.indices(), expected.refined()));
                assert_eq!((batch.targets(), batch.labels()), (expected.targets(), expected.labels()));
                assert_eq!(batch.shape(), expected.shape());
                if batch.is_held() {
                    held += 1;
                    assert!(batch.image_bytes().is_empty());
                    assert!(matches!(batch.images::<f32>(), Err(Error::Config { option: "resident", .. })));
                    for (slot, image) in batch.slots().iter().zip(images) {
                        assert_eq!(kept[slot], image);
                    }
                } else {
                    assert_eq!(batch.image_bytes(), expected.image_bytes());
                    kept.extend(batch.slots().iter().copied().zip(images.map(<[f32]>::to_vec)));
                    loader.hold(&batch);
                }
            }
            // Nothing comes twice in the first epoch. From the fourth on all are refined, by one refinement and then by
            // the other; some of the sixth may have been made before the fifth was looked at.
            assert!(epoch > 0 || held == 0, "{held} batches are held at first");
            assert!(epoch < 6 || held == plain.len(), "{held} batches are held in epoch {epoch}");
        }
    }
}

/// The batches of an epoch.
fn epoch_of(loader: &mut Loader, epoch: u64) -> Vec<Batch> {
    loader.epoch(epoch).map(Result::unwrap).collect()
}

#[test]
fn what_takes_every_image_is_refused_where_images_stay() {
    let refused = |builder: LoaderBuilder| match builder.resident(true).build() {
        Err(Error::Config { option: "resident", reason }) => reason,
        other => panic!("{other:?}"),
    };
    let flip = Augment::new([HorizontalFlip::default().into()]).unwrap();
    assert!(refused(builder(3).augment(flip)).contains("augment"));
    let mix = Mix::constant(0.5).unwrap();
    assert!(refused(builder(3).refiner(Inverter).mix(mix).mode(MixMode::Blend)).contains("mode"));
    let teacher = teach::from_fn(|images: &TeachBatch<'_>| Ok(vec![0.0; images.len()]));
    let taught = builder(3).labels(Targets::teacher(1.0).unwrap()).teacher(teacher, Per::Image);
    assert!(refused(taught).contains("teacher"));
}

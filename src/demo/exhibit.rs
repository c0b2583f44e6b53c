//! One shipped example: its files, its refined images and its pictures.

use super::rows::Row;
use crate::eval::augment::Random;
use crate::eval::parallel;
use crate::{DeviceChoice, Refiner};
use diver_loaders::cli::DemoArgs;
use diver_loaders::refine::Progress;
use diver_loaders::{
    Cache, CancelToken, Error, Loader, MemorySource, Normalize, OpenOptions, Refinery, Result, RgbImage,
    Sheet, Source, ValueSpace,
};
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// An example as it lies in the folder of examples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exhibit {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What the set is.
    pub(super) set: &'static str,
    folder: &'static str,
}

pub(super) const ALL: [Exhibit; 2] = [
    Exhibit {
        name: "digits",
        title: "Digits",
        set: "real handwritten digits, distilled by distribution matching (DM) to one image a class",
        folder: "dm_ipc1",
    },
    Exhibit {
        name: "shapes",
        title: "Shapes",
        set: "drawn shapes in colour, distilled by distribution matching (DM) to ten images a class",
        folder: "dm_ipc10",
    },
];

/// Pixels of every picture for one of an image.
const SCALE: usize = 3;
/// White pixels between images.
const GAP: usize = 2;
const BATCH: usize = 50;

/// What refining all rows took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Refined {
    /// Images refined now.
    pub(super) images: usize,
    /// Images that the cache had.
    pub(super) cached: usize,
    /// Wall time, the opening of backbone and cache included.
    pub(super) seconds: f64,
}

/// The images of one row, the first of each class.
pub(super) struct Strip {
    pub(super) row: Row,
    pub(super) images: Vec<RgbImage>,
}

/// An example whose files have been found to be readable.
pub(super) struct Opened {
    folder: PathBuf,
    set: PathBuf,
    normalize: Normalize,
    ipc: usize,
    cache: Cache,
    device: DeviceChoice,
}

impl Exhibit {
    pub(super) fn named(name: &str) -> Result<Self> {
        ALL.into_iter().find(|exhibit| exhibit.name == name).ok_or_else(|| {
            let known = ALL.map(|exhibit| exhibit.name).join(", ");
            Error::config("set", format!("`{name}` is not an example; there are {known}"))
        })
    }

    pub(super) fn open(self, args: &DemoArgs, cache: &Cache) -> Result<Opened> {
        if !args.examples.is_dir() {
            let reason = format!(
                "{} is no folder; run in diver's repository, or name its folder `examples`",
                args.examples.display()
            );
            return Err(Error::config("examples", reason));
        }
        let folder = args.examples.join(self.name);
        let set = folder.join(self.folder);
        let source = diver_loaders::open(&set)?;
        let info = source.info();
        Ok(Opened {
            normalize: info.normalize,
            ipc: info.num_samples / info.num_classes,
            folder,
            set,
            cache: cache.clone(),
            device: args.device.parse()?,
        })
    }
}

impl Opened {
    /// The real images that networks are tested on.
    pub(super) fn test(&self) -> Result<Box<dyn Source>> {
        self.real("test")
    }

    fn real(&self, split: &str) -> Result<Box<dyn Source>> {
        OpenOptions::new().normalization(self.normalize).open(self.folder.join(format!("{split}.parquet")))
    }

    /// The images of a row before refinement.
    fn source(&self, row: Row, seed: u64) -> Result<Box<dyn Source>> {
        if row.is_real() {
            let train = self.real("train")?;
            let chosen = some_of_each_class(&*train, self.ipc, seed)?;
            return Ok(Box::new(as_pixels(&*train, &chosen)?));
        }
        let set = diver_loaders::open(&self.set)?;
        if row == Row::Clipped {
            let all: Vec<usize> = (0..set.info().num_samples).collect();
            return Ok(Box::new(as_pixels(&*set, &all)?));
        }
        Ok(set)
    }

    fn refiner(&self, row: Row, seed: u64) -> Result<Option<Refiner>> {
        let Some(knobs) = row.knobs(seed)? else { return Ok(None) };
        let builder = Refiner::builder(self.folder.join("backbone")).device(self.device);
        Ok(Some(builder.batch_size(BATCH).knobs(knobs).build()?))
    }

    /// A row's images as a training loop streams them: refined ones come out of the cache.
    pub(super) fn loader(&self, row: Row, seed: u64) -> Result<Loader> {
        let mut builder = Loader::builder(self.source(row, seed)?).batch_size(BATCH).shuffle(true).seed(seed);
        if let Some(refiner) = self.refiner(row, seed)? {
            builder = builder.refiner(refiner).cache(self.cache.clone());
        }
        builder.build()
    }

    /// Fills the cache with the images of all rows and `seeds`, several rows at once.
    pub(super) fn refine(&self, seeds: u64, cancel: &CancelToken, bar: &ProgressBar) -> Result<Refined> {
        let started = Instant::now();
        // Without noise, every seed has the same images.
        let seeds_of = |row| if row == Row::Autoencoder { 1 } else { seeds };
        let jobs: Vec<(Row, u64)> =
            Row::ALL.into_iter().flat_map(|row| (0..seeds_of(row)).map(move |seed| (row, seed))).collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let summaries = parallel::map(&jobs, threads, cancel, |&(row, seed)| {
            let Some(refiner) = self.refiner(row, seed)? else { return Ok(None) };
            let source = self.source(row, seed)?;
            let mut refinery = Refinery::new(source, refiner, Some(&self.cache))?;
            let share = Share { bar, told: AtomicUsize::new(0), expected: AtomicUsize::new(0) };
            refinery.run(0..refinery.num_samples(), cancel, &share).map(Some)
        })?;
        Ok(Refined {
            images: summaries.iter().flatten().map(|summary| summary.refined).sum(),
            cached: summaries.iter().flatten().map(|summary| summary.cached).sum(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The pictures of every row, of the first seed.
    pub(super) fn strips(&self) -> Result<Vec<Strip>> {
        let strip = |row| Ok(Strip { row, images: first_of_each_class(&mut self.loader(row, 0)?)? });
        Row::ALL.into_iter().map(strip).collect()
    }
}

/// One refinery's part in a common progress bar.
struct Share<'a> {
    bar: &'a ProgressBar,
    told: AtomicUsize,
    expected: AtomicUsize,
}

impl Progress for Share<'_> {
    fn step(&self, _done: usize, _total: usize) {}

    fn images(&self, done: usize, total: usize) {
        self.bar.inc_length((total - self.expected.swap(total, Ordering::Relaxed)) as u64);
        self.bar.inc((done - self.told.swap(done, Ordering::Relaxed)) as u64);
    }
}

/// All rows below one another.
pub(super) fn sheet(strips: &[Strip]) -> Result<RgbImage> {
    let sheet = Sheet::new(SCALE, GAP)?;
    strips.iter().fold(sheet, |sheet, strip| sheet.row(strip.images.clone())).to_image()
}

/// Samples of `source` as pixels in [0, 1], to be normalised as the source is.
fn as_pixels(source: &dyn Source, indices: &[usize]) -> Result<MemorySource> {
    let mut info = source.info().clone();
    let (mut pixels, mut labels) = (Vec::new(), Vec::with_capacity(indices.len()));
    for &index in indices {
        let sample = source.sample(index)?;
        pixels.extend(sample.to_pixels(&source.value_space(index))?);
        labels.push(sample.label);
    }
    info.num_samples = labels.len();
    info.shape[0] = 3;
    info.value_space = ValueSpace::Unit;
    MemorySource::new(info, pixels, labels)
}

/// Positions of `count` samples of each class, others for every seed.
fn some_of_each_class(source: &dyn Source, count: usize, seed: u64) -> Result<Vec<usize>> {
    let info = source.info();
    let mut classes = vec![Vec::new(); info.num_classes];
    for index in 0..info.num_samples {
        classes[source.label(index)?.class()].push(index);
    }
    let mut random = Random(seed);
    let mut chosen = Vec::with_capacity(count * classes.len());
    for (class, mut of_class) in classes.into_iter().enumerate() {
        if of_class.len() < count {
            let reason = format!("{count} images of class {class} are needed, there are {}", of_class.len());
            return Err(Error::format(&info.path, reason));
        }
        for place in 0..count {
            let other = place + random.below((of_class.len() - place) as u64) as usize;
            of_class.swap(place, other);
        }
        chosen.extend(&of_class[..count]);
    }
    Ok(chosen)
}

/// The first image of each class, in the order of the dataset.
fn first_of_each_class(loader: &mut Loader) -> Result<Vec<RgbImage>> {
    let normalize = loader.info().normalize;
    let mut first: Vec<Option<(usize, RgbImage)>> = vec![None; loader.info().num_classes];
    for batch in loader.epoch(0) {
        let batch = batch?;
        let [_, channels, height, width] = batch.shape();
        let samples = batch.images::<f32>()?.chunks_exact(channels * height * width);
        for ((values, &index), &label) in samples.zip(batch.indices()).zip(batch.labels()) {
            if first[label].as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                let pixel = |(at, value): (usize, &f32)| normalize.invert(at / (height * width), *value);
                let pixels: Vec<f32> = values.iter().enumerate().map(pixel).collect();
                first[label] = Some((index, RgbImage::from_planar(width, height, &pixels)?));
            }
        }
    }
    Ok(first.into_iter().flatten().map(|(_, image)| image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn set() -> MemorySource {
        let pixels = (0..40 * 3).map(|i| i as f32 / 120.0).collect();
        MemorySource::unit(40, [3, 1, 1], pixels, (0..40).map(|i| i % 4).collect()).unwrap()
    }

    #[test]
    fn random_choices_are_balanced_distinct_and_the_seeds_own() {
        let chosen = |seed| some_of_each_class(&set(), 3, seed).unwrap();
        let of_class: Vec<usize> = chosen(1).iter().map(|index| index % 4).collect();
        assert_eq!(of_class, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(chosen(1).into_iter().collect::<HashSet<_>>().len(), 12);
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        assert_eq!(some_of_each_class(&set(), 10, 0).unwrap().len(), 40);
        let error = some_of_each_class(&set(), 11, 0).unwrap_err().to_string();
        assert_eq!(error, "memory: 11 images of class 0 are needed, there are 10");
    }

    #[test]
    fn pictures_are_the_first_of_each_class_as_they_were() {
        let mut loader = Loader::builder(set()).batch_size(7).shuffle(true).build().unwrap();
        let images = first_of_each_class(&mut loader).unwrap();
        let greys: Vec<u8> = images.iter().map(|image| image.as_bytes()[0]).collect();
        let expected = [0.0, 3.0, 6.0, 9.0].map(|value| (value / 120.0_f32 * 255.0).round() as u8);
        assert_eq!(greys, expected);
    }

    #[test]
    fn an_unknown_example_is_refused_with_the_known() {
        let error = Exhibit::named("faces").unwrap_err().to_string();
        assert_eq!(error, "set: `faces` is not an example; there are digits, shapes");
    }
}

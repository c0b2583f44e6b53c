//! `diver bench`.

use super::output::Output;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::refine::{NoiseKey, RawBatch, Silent};
use crate::wording::counted;
use crate::{
    CancelToken, Error, Identity, Label, Loader, LoaderOptions, Refine, Result, Sample, Source, SourceInfo,
};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

#[derive(Args, Debug)]
#[command(after_help = "Timings of one machine compare with others of the same machine and moment only.

Example:
  diver bench examples/digits/dm_ipc1 --backbone examples/digits/backbone --batches 1,10,50")]
pub(super) struct BenchArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Batch sizes to refine in; samples are repeated to fill them
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,8,32")]
    batches: Vec<usize>,

    /// Timed runs of each measurement, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// Batch size of the streamed epochs
    #[arg(long, value_name = "N", default_value_t = LoaderOptions::default().batch_size)]
    stream_batch: usize,

    #[command(flatten)]
    refiner: RefinerArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    fingerprint: Option<serde_json::Value>,
    refine: Vec<Refined>,
    stream: Streamed,
}

#[derive(Debug, Serialize)]
struct Refined {
    batch: usize,
    seconds_per_image: f64,
}

/// Epochs of the dataset: raw as its source gives it, refined from memory.
#[derive(Debug, Serialize)]
struct Streamed {
    samples: usize,
    /// As many as fit into memory.
    refined_samples: usize,
    batch: usize,
    raw_images_per_second: f64,
    refined_images_per_second: f64,
}

pub(super) fn run(args: &BenchArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    if args.batches.contains(&0) {
        return Err(Error::config("batches", "a batch holds at least 1 image"));
    }
    let source: Arc<dyn Source> = args.source.open()?.into();
    // Before anything is timed: what they refuse is told at once.
    let mut raw = Loader::builder(Arc::clone(&source)).batch_size(args.stream_batch).shuffle(true).build()?;
    let mut refined = refined_loader(Arc::clone(&source), args.stream_batch)?;
    let mut refiner_args = args.refiner.clone();
    refiner_args.batch_size = refiner_args.batch_size.or(args.batches.iter().max().copied());
    let mut refiner = host.refiner(&refiner_args, cancel)?;
    let refine = args
        .batches
        .iter()
        .map(|batch| time_refiner(&*source, &mut *refiner, *batch, args, cancel))
        .collect::<Result<Vec<_>>>()?;
    let stream = Streamed {
        samples: source.info().num_samples,
        batch: args.stream_batch,
        refined_samples: refined.info().num_samples,
        raw_images_per_second: time_stream(&mut raw, args.runs)?,
        refined_images_per_second: time_stream(&mut refined, args.runs)?,
    };
    let report = Report { fingerprint: refiner.fingerprint(), refine, stream };
    output.result(&describe(&report), &report)
}

fn time_refiner(
    source: &dyn Source,
    refiner: &mut dyn Refine,
    images: usize,
    args: &BenchArgs,
    cancel: &CancelToken,
) -> Result<Refined> {
    let info = source.info();
    let (mut pixels, mut conditioning, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for image in 0..images {
        let index = image % info.num_samples;
        let sample = source.sample(index)?;
        pixels.extend(sample.to_pixels(&source.value_space(index))?);
        conditioning.push(info.class_map.conditioning(sample.label.class())?);
        keys.push(NoiseKey { content: sample.digest(), variant: u32::try_from(image).unwrap_or(u32::MAX) });
    }
    let batch = RawBatch::new(&pixels, info.shape[1], info.shape[2], &conditioning, &keys)?;
    refiner.refine(&batch, cancel, &Silent)?;
    let seconds = median(args.runs, || refiner.refine(&batch, cancel, &Silent).map(drop))?;
    Ok(Refined { batch: images, seconds_per_image: seconds / images as f64 })
}

/// A loader of refined images that come from memory, of as many samples as its limit has room for. They are refined by
/// the identity, since a refiner's own time is another measurement.
fn refined_loader(source: Arc<dyn Source>, batch: usize) -> Result<Loader> {
    const MEMORY: usize = 1 << 30;
    let [_, height, width] = source.info().shape;
    let image = 3 * height * width;
    let samples = source.info().num_samples.min(MEMORY / image.max(1)).max(1);
    Loader::builder(First::new(source, samples))
        .refiner(Identity)
        .memory_limit(MEMORY.max(image))
        .batch_size(batch)
        .shuffle(true)
        .build()
}

/// The first samples of a set.
#[derive(Debug)]
struct First {
    source: Arc<dyn Source>,
    info: SourceInfo,
}

impl First {
    fn new(source: Arc<dyn Source>, samples: usize) -> Self {
        let info = SourceInfo { num_samples: samples, ..source.info().clone() };
        Self { source, info }
    }
}

impl Source for First {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.source.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.source.sample(index)
    }
}

/// Images a second over whole epochs.
fn time_stream(loader: &mut Loader, runs: u16) -> Result<f64> {
    const IMAGES: usize = 20_000;
    let samples = loader.info().num_samples;
    let epochs = IMAGES.div_ceil(samples);
    let mut stream = |epochs| loader_epochs(loader, epochs);
    stream(1)?;
    let seconds = median(runs, || stream(epochs))?;
    Ok((epochs * samples) as f64 / seconds)
}

fn loader_epochs(loader: &mut Loader, epochs: usize) -> Result<()> {
    for _ in 0..epochs {
        for batch in loader.iter() {
            std::hint::black_box(batch?.image_bytes());
        }
    }
    Ok(())
}

/// The median time of some runs, in seconds.
fn median(runs: u16, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let started = Instant::now();
        run()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn describe(report: &Report) -> String {
    let mut text = String::from("refine   batch   s/image   images/s\n");
    for Refined { batch, seconds_per_image } in &report.refine {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{batch:>14}{seconds_per_image:>10.4}{:>11.1}", 1.0 / seconds_per_image);
    }
    let stream = &report.stream;
    let of = match stream.samples - stream.refined_samples {
        0 => String::new(),
        _ => format!(", as many as fit: {}", counted(stream.refined_samples, "sample")),
    };
    let _ = writeln!(
        text,
        "stream   {} in batches of {}: {:.0} raw images/s, {:.0} refined images/s from memory{of}",
        counted(stream.samples, "sample"),
        stream.batch,
        stream.raw_images_per_second,
        stream.refined_images_per_second
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;

    /// Many more images than there is memory for, all of them the same.
    #[derive(Debug)]
    struct Large(MemorySource, SourceInfo);

    impl Source for Large {
        fn info(&self) -> &SourceInfo {
            &self.1
        }

        fn label(&self, _index: usize) -> Result<Label> {
            self.0.label(0)
        }

        fn sample(&self, _index: usize) -> Result<Sample> {
            self.0.sample(0)
        }
    }

    #[test]
    fn a_set_that_does_not_fit_into_memory_is_streamed_in_part() {
        let side = 512;
        let one = MemorySource::unit(1, [3, side, side], vec![0.5; 3 * side * side], vec![0]).unwrap();
        let info = SourceInfo { num_samples: 5000, ..one.info().clone() };
        let large: Arc<dyn Source> = Arc::new(Large(one, info));
        let mut loader = refined_loader(large, 4).unwrap();
        assert_eq!(loader.info().num_samples, (1 << 30) / (3 * side * side));
        let batch = loader.iter().next().unwrap().unwrap();
        assert_eq!(batch.refined(), [true; 4]);
    }

    #[test]
    fn a_set_that_fits_is_streamed_whole() {
        let set = MemorySource::unit(7, [3, 2, 2], vec![0.5; 84], vec![0; 7]).unwrap();
        let mut loader = refined_loader(Arc::new(set), 4).unwrap();
        assert_eq!(loader.iter().map(|batch| batch.unwrap().len()).sum::<usize>(), 7);
    }
}

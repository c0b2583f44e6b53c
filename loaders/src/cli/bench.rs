//! `diver bench`.

use super::output::Output;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::refine::{NoiseKey, RawBatch, Silent};
use crate::wording::counted;
use crate::{CancelToken, Error, Identity, Loader, Mix, Refine, Result, Source};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
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
    #[arg(long, value_name = "N", default_value_t = 64)]
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

/// Epochs of the dataset from memory.
#[derive(Debug, Serialize)]
struct Streamed {
    samples: usize,
    batch: usize,
    raw_images_per_second: f64,
    refined_images_per_second: f64,
}

pub(super) fn run(args: &BenchArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    if args.batches.contains(&0) {
        return Err(Error::config("batches", "a batch holds at least 1 image"));
    }
    if args.stream_batch == 0 {
        return Err(Error::config("stream-batch", "a batch holds at least 1 image"));
    }
    let source = args.source.open()?;
    let mut refiner_args = args.refiner.clone();
    refiner_args.refine_batch = refiner_args.refine_batch.or(args.batches.iter().max().copied());
    let mut refiner = host.refiner(&refiner_args, cancel)?;
    let refine = args
        .batches
        .iter()
        .map(|batch| time_refiner(&*source, &mut *refiner, *batch, args, cancel))
        .collect::<Result<Vec<_>>>()?;
    let stream = Streamed {
        samples: source.info().samples,
        batch: args.stream_batch,
        raw_images_per_second: time_stream(args, 0.0)?,
        refined_images_per_second: time_stream(args, 1.0)?,
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
        let sample = source.sample(image % info.samples)?;
        pixels.extend(sample.to_pixels(&info.value_space)?);
        conditioning.push(info.class_map.conditioning(sample.label.class())?);
        keys.push(NoiseKey { content: sample.digest(), variant: u32::try_from(image).unwrap_or(u32::MAX) });
    }
    let batch = RawBatch::new(&pixels, info.shape[1], info.shape[2], &conditioning, &keys)?;
    refiner.refine(&batch, cancel, &Silent)?;
    let seconds = median(args.runs, || refiner.refine(&batch, cancel, &Silent).map(drop))?;
    Ok(Refined { batch: images, seconds_per_image: seconds / images as f64 })
}

/// Images a second over whole epochs; refined ones come from memory, through the identity, since a refiner's own
/// time is another measurement.
fn time_stream(args: &BenchArgs, refined: f64) -> Result<f64> {
    const IMAGES: usize = 20_000;
    let mut loader = Loader::builder(args.source.open()?)
        .refiner(Identity)
        .mix(Mix::constant(refined)?)
        .batch_size(args.stream_batch)
        .shuffle(true)
        .build()?;
    let samples = loader.info().samples;
    let epochs = IMAGES.div_ceil(samples);
    let mut stream = |epochs| loader_epochs(&mut loader, epochs);
    stream(1)?;
    let seconds = median(args.runs, || stream(epochs))?;
    Ok((epochs * samples) as f64 / seconds)
}

fn loader_epochs(loader: &mut Loader, epochs: usize) -> Result<()> {
    for _ in 0..epochs {
        for batch in loader.iter() {
            std::hint::black_box(batch?.images());
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
    let _ = writeln!(
        text,
        "stream   {} in batches of {}: {:.0} raw images/s, {:.0} refined images/s from memory",
        counted(stream.samples, "sample"),
        stream.batch,
        stream.raw_images_per_second,
        stream.refined_images_per_second
    );
    text
}

//! What refinement changes, in two minutes on a CPU: refines the distilled digits into a cache, trains networks on
//! them raw and refined, prints the accuracies and writes a picture of both.
//!
//! ```text
//! cargo run --release --example demo -- [--out FOLDER] [--quick]
//! ```
//!
//! A second run refines nothing: it finds everything in the cache.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use diver::eval::{Architecture, Network, Recipe, Summary, Table, accuracy, endless, labelled, train};
use diver::{
    Cache, Knobs, Loader, MemorySource, Mode, OpenOptions, Refiner, RgbImage, Sheet, Source, SourceInfo,
};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tch::{Device, Tensor};

const USAGE: &str = "usage: demo [--out FOLDER] [--quick]

  --out FOLDER  where the cache and the picture go (out/demo)
  --quick       one seed and two networks";

const SET: &str = "examples/digits/dm_ipc1";
const BACKBONE: &str = "examples/digits/backbone";
const TEST: &str = "examples/digits/test.parquet";
const REAL: &str = "examples/digits/train.parquet";

/// The rows of the table that have refined images, so that what the whole method adds to its parts can be seen.
const REFINED: [(&str, Mode); 3] =
    [("encoded and decoded", Mode::Vae), ("diffusion alone", Mode::Raw), ("refined (DIVER)", Mode::Full)];

fn main() -> ExitCode {
    let (mut out, mut quick) = (PathBuf::from("out/demo"), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.len()) {
            ("--quick", _) => quick = true,
            ("--out", 1..) => out = arguments.next().map_or(out, PathBuf::from),
            ("--help", _) => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    match run(&out, quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(out: &Path, quick: bool) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    // More threads than one wait for one another longer than they work on networks this small.
    tch::set_num_threads(1);
    let mut raw = Loader::builder(diver::open(SET)?).batch_size(50).shuffle(true).build()?;
    let judge = Judge::new(raw.info(), quick)?;
    let mut sheet = Sheet::new(3, 4)?.row(pictures(&mut raw)?);

    let cache = Cache::open(out.join("cache"))?;
    let mut refined = Vec::new();
    for (label, mode) in REFINED {
        let knobs = Knobs::builder().mode(mode).build()?;
        let mut loader = Loader::builder(diver::open(SET)?)
            .refiner(Refiner::builder(BACKBONE).device("cpu").knobs(knobs).build()?)
            .cache(cache.clone())
            .batch_size(50)
            .shuffle(true)
            .build()?;
        // The first epoch refines what the cache lacks; every later one reads it.
        let images = pictures(&mut loader)?;
        let (stats, samples) = (loader.stats(), loader.info().samples as u64);
        println!(
            "{label}: {} images refined in {:.1} s, {} found in the cache",
            stats.misses,
            stats.refine_seconds,
            samples - stats.misses.min(samples)
        );
        if mode == Mode::Full {
            sheet = sheet.row(images);
        }
        refined.push((label, loader));
    }

    let mut table = Table::new("trained on", &judge.networks);
    table.row("raw", judge.row(|seed, judge| judge.scores(&mut raw, seed))?);
    for (label, mut loader) in refined {
        table.row(label, judge.row(|seed, judge| judge.scores(&mut loader, seed))?);
    }
    let real = OpenOptions::new().normalization(raw.info().normalize).open(REAL)?;
    table.row(
        "real images",
        judge.row(|seed, judge| {
            let mut loader = Loader::builder(one_of_each_class(&*real, seed)?).batch_size(50).build()?;
            judge.scores(&mut loader, seed)
        })?,
    );
    println!(
        "\nPer cent of {} test images recognised after training on {} images; {}.\n\
         The images were distilled on a ConvNet; the other networks are new to them.\n\n{table}",
        judge.labels.numel(),
        raw.info().samples,
        if quick { "one seed" } else { "mean ± standard deviation of three seeds" },
    );

    let picture = out.join("raw_vs_refined.png");
    std::fs::write(&picture, sheet.to_image()?.to_png()?)?;
    println!("Raw images above their refinements: {}", picture.display());
    println!("Done in {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Trains networks and tests them, always in the same way.
struct Judge {
    networks: Vec<Architecture>,
    seeds: u64,
    side: usize,
    classes: usize,
    images: Tensor,
    labels: Tensor,
}

impl Judge {
    fn new(set: &SourceInfo, quick: bool) -> Result<Self, Box<dyn Error>> {
        use Architecture::{ConvNet, MobileNet, ResNet, ViT};
        let test = OpenOptions::new().normalization(set.normalize).open(TEST)?;
        let (images, labels) = labelled(&*test)?;
        let (networks, seeds) =
            if quick { (vec![ConvNet, ResNet], 1) } else { (vec![ConvNet, ResNet, MobileNet, ViT], 3) };
        Ok(Self { networks, seeds, side: set.shape[1], classes: set.classes, images, labels })
    }

    /// A cell for each network, from its scores of all seeds.
    fn row(
        &self,
        mut scores: impl FnMut(u64, &Self) -> Result<Vec<f64>, Box<dyn Error>>,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        let by_seed = (0..self.seeds).map(|seed| scores(seed, self)).collect::<Result<Vec<_>, _>>()?;
        let cell = |network: usize| match by_seed.iter().map(|scores| scores[network]).collect::<Vec<_>>()[..]
        {
            [score] => format!("{score:.1}"),
            ref scores => Summary::of(scores).to_string(),
        };
        Ok((0..self.networks.len()).map(cell).collect())
    }

    /// The accuracy of each network, in per cent, after training on the loader's batches.
    fn scores(&self, loader: &mut Loader, seed: u64) -> Result<Vec<f64>, Box<dyn Error>> {
        let score = |&architecture| {
            let mut network = Network::new(architecture, self.side, self.classes, seed, Device::Cpu)?;
            let recipe = Recipe { seed, ..Recipe::default() };
            train(&mut network, endless(loader, Device::Cpu), &recipe)?;
            Ok(100.0 * accuracy(&network, &self.images, &self.labels)?)
        };
        self.networks.iter().map(score).collect()
    }
}

/// The images of the loader's first epoch in the order of the dataset, ten at most.
fn pictures(loader: &mut Loader) -> Result<Vec<RgbImage>, Box<dyn Error>> {
    let normalize = loader.info().normalize;
    let mut images = vec![None; loader.info().samples];
    for batch in loader.epoch(0) {
        let batch = batch?;
        let [_, channels, height, width] = batch.shape();
        let samples = batch.images().chunks_exact(channels * height * width);
        for (values, &index) in samples.zip(batch.indices()) {
            let pixels =
                values.iter().enumerate().map(|(i, value)| normalize.invert(i / (height * width), *value));
            images[index] = Some(RgbImage::from_planar(width, height, &pixels.collect::<Vec<_>>())?);
        }
    }
    Ok(images.into_iter().flatten().take(10).collect())
}

/// A real image of each class, others for every seed.
fn one_of_each_class(set: &dyn Source, seed: u64) -> Result<MemorySource, Box<dyn Error>> {
    let mut info = set.info().clone();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for class in 0..info.classes {
        let mut of_class = Vec::new();
        for index in 0..info.samples {
            if set.label(index)?.class() == class {
                of_class.push(index);
            }
        }
        let index = of_class[seed as usize % of_class.len()];
        let sample = set.sample(index)?;
        values.extend(sample.to_pixels(&info.value_space));
        labels.push(sample.label);
    }
    info.samples = labels.len();
    Ok(MemorySource::new(info, values, labels)?)
}

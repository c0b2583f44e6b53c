//! Trains a network on a distilled dataset, raw or refined, with soft-label cross-entropy.
//!
//! ```text
//! cargo run --release --example train -- examples/shapes/dm_ipc10 --backbone examples/shapes/backbone \
//!     --test examples/shapes/test.parquet --mode refined --net vit
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use diver::eval::{Architecture, Network, Recipe, accuracy, endless, labelled, train};
use diver::{Cache, Loader, Mix, OpenOptions, Refiner};
use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;
use tch::Device;

const USAGE: &str = "usage: train SOURCE --test FILE [options]

  SOURCE          a distilled dataset
  --test FILE     real images to test on, as Parquet or in class folders
  --mode MODE     raw, refined, or mixed: half of each epoch refined (raw)
  --backbone DIR  what refines, a diffusers folder
  --cache DIR     where refined images are kept (out/cache)
  --net NAME      convnet, resnet, mobilenet, vit or mlp (convnet)
  --steps N       optimizer steps (100)
  --batch N       images of a batch (50)
  --seed N        of the initial weights, the order and the shifts (0)";

fn main() -> ExitCode {
    match run(&Arguments(std::env::args().skip(1).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let seed = arguments.parsed("--seed", 0)?;
    let device = Device::Cpu;

    let set = diver::open(arguments.source()?)?;
    let info = set.info().clone();
    let refined_share = match arguments.option("--mode").unwrap_or("raw") {
        "raw" => 0.0,
        "mixed" => 0.5,
        "refined" => 1.0,
        other => return Err(format!("--mode {other}: raw, refined or mixed is expected").into()),
    };
    let mut builder =
        Loader::builder(set).batch_size(arguments.parsed("--batch", 50)?).shuffle(true).seed(seed);
    if refined_share > 0.0 {
        let backbone = arguments.option("--backbone").ok_or("refined images need a --backbone")?;
        let cache = arguments.option("--cache").unwrap_or("out/cache");
        builder = builder
            .refiner(Refiner::from_pretrained(backbone)?)
            .cache(Cache::open(cache)?)
            .mix(Mix::constant(refined_share)?);
    }
    let mut loader = builder.build()?;

    // Test images are normalised as the training images are.
    let test = arguments.option("--test").ok_or("there is no --test")?;
    let test = OpenOptions::new().normalization(info.normalize).open(test)?;
    let (images, labels) = labelled(&*test)?;

    let architecture: Architecture = arguments.parsed("--net", Architecture::ConvNet)?;
    let mut network = Network::new(architecture, info.shape[1], info.num_classes, seed, device)?;
    let recipe = Recipe { steps: arguments.parsed("--steps", 100)?, seed, ..Recipe::default() };
    let losses = train(&mut network, endless(&mut loader, device), &recipe)?;

    let stats = loader.stats();
    println!("refined: {} now, {} from the cache", stats.misses, stats.disk_hits + stats.memory_hits);
    println!("loss: {:.3} at first, {:.3} at last", losses[0], losses[losses.len() - 1]);
    println!("{architecture}: {:.1} % of {}", 100.0 * accuracy(&network, &images, &labels)?, labels.numel());
    Ok(())
}

/// The command line: one source, and options with a value each.
struct Arguments(Vec<String>);

impl Arguments {
    fn source(&self) -> Result<&str, String> {
        let first = self.0.first().filter(|first| !first.starts_with("--"));
        first.map(String::as_str).ok_or_else(|| "there is no SOURCE".to_owned())
    }

    fn option(&self, name: &str) -> Option<&str> {
        let position = self.0.iter().position(|argument| argument == name)?;
        self.0.get(position + 1).map(String::as_str)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str, default: T) -> Result<T, String> {
        self.option(name).map_or(Ok(default), |text| text.parse().map_err(|e| format!("{name} {text}: {e}")))
    }
}

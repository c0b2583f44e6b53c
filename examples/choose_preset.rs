//! How the preset `small_latents` was chosen: networks trained on a refined set under many windows and strengths of the
//! pull, and tested on validation images, which no other table reports on.
//!
//! ```text
//! cargo run --release --example choose_preset -- [shapes|digits] [dm_ipc10|dm_ipc1|dc_ipc1]
//! ```
//!
//! Refined images are kept in `out/choose_preset`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use diver::eval::{Architecture, Candidate, Judge, Table};
use diver::{Cache, CancelToken, Knobs, Loader, Mode, OpenOptions, Refiner};
use std::error::Error;
use std::path::PathBuf;

/// Windows of 50 steps under the paper's gamma: all steps, the paper's, where theory puts it for latents of 8 x 8, and
/// around both; and that of theory under other strengths.
const SETTINGS: [((usize, usize), f64); 7] = [
    ((50, 1), 0.1),
    ((40, 25), 0.1),
    ((40, 10), 0.1),
    ((30, 12), 0.1),
    ((20, 5), 0.1),
    ((30, 12), 0.05),
    ((30, 12), 0.2),
];
const SEEDS: u64 = 2;
const UNSEEN: [Architecture; 4] =
    [Architecture::ResNet, Architecture::MobileNet, Architecture::ViT, Architecture::Mlp];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "shapes".to_owned());
    let folder = PathBuf::from("examples").join(name);
    let set = folder.join(arguments.next().unwrap_or_else(|| "dm_ipc10".to_owned()));
    tch::set_num_threads(1);
    let cache = Cache::open("out/choose_preset")?;
    let normalize = diver::open(&set)?.info().normalize;
    let validation = OpenOptions::new().normalization(normalize).open(folder.join("validation.parquet"))?;
    let judge = Judge::new(&*validation)?.seeds(SEEDS);

    let mut settings = vec![("encoded and decoded".to_owned(), Knobs::builder().mode(Mode::Vae))];
    settings.push(("diffusion alone".to_owned(), Knobs::builder().mode(Mode::Raw)));
    for ((high, low), gamma) in SETTINGS {
        let builder = Knobs::builder().window(high, low).gamma(gamma);
        settings.push((format!("{high}..{low}, gamma {gamma}"), builder));
    }
    let stream = |builder: Option<&diver::KnobsBuilder>, seed| {
        let mut loader = Loader::builder(diver::open(&set)?).batch_size(50).shuffle(true).seed(seed);
        if let Some(builder) = builder {
            let knobs = builder.clone().refine_seed(seed).build()?;
            let refiner = Refiner::builder(folder.join("backbone")).batch_size(50).knobs(knobs).build()?;
            loader = loader.refiner(refiner).cache(cache.clone());
        }
        loader.build()
    };
    let stream = &stream;
    let mut candidates = vec![Candidate::new("raw", move |seed| stream(None, seed))];
    for (label, builder) in &settings {
        candidates.push(Candidate::new(label, move |seed| stream(Some(builder), seed)));
    }
    let scores = judge.run(&candidates, &CancelToken::new(), &|done, all| {
        if done % 10 == 0 {
            eprintln!("{done} of {all} trainings");
        }
    })?;

    let mut table = Table::new("set", ["ConvNet", "unseen"]);
    for row in &scores {
        let cell = |networks: &[Architecture]| row.summary(networks).map_or(String::new(), |s| s.to_string());
        table.row(&row.label, [cell(&[Architecture::ConvNet]), cell(&UNSEEN)]);
    }
    println!("{}: per cent of {} validation images\n\n{table}", set.display(), judge.test_images());
    Ok(())
}

//! `diver demo`: what refinement changes, on the shipped examples, beside what its parts do alone.

mod exhibit;
mod markup;
mod page;
mod plot;
mod rows;

use crate::eval::{Architecture, Candidate, Judge, Scores, Table};
use diver_loaders::cli::{DemoArgs, DemoReport};
use diver_loaders::{Cache, CancelToken, Error, Result};
use exhibit::{Exhibit, Strip};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rows::Row;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

/// The network that the sets were distilled on.
const PROXY: Architecture = Architecture::ConvNet;

/// One example's results.
struct Results {
    exhibit: Exhibit,
    strips: Vec<Strip>,
    scores: Vec<Scores>,
    test_images: usize,
    refined: exhibit::Refined,
    train_seconds: f64,
}

/// Refines the examples that `args` names, trains networks on them, and writes pictures and a page.
pub(crate) fn run(args: &DemoArgs, cancel: &CancelToken) -> Result<DemoReport> {
    let started = Instant::now();
    let names: Vec<&str> = if args.sets.is_empty() {
        exhibit::ALL.iter().map(|exhibit| exhibit.name).collect()
    } else {
        args.sets.iter().map(String::as_str).collect()
    };
    let exhibits = names.into_iter().map(Exhibit::named).collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(&args.output).map_err(Error::io(&args.output, "cannot make the folder"))?;
    let cache = Cache::open(args.output.join("cache"))?;
    // Networks this small are fastest on one thread each, and there is more than one of them.
    let one_thread = OneThread::new();
    let results = exhibits
        .into_iter()
        .map(|exhibit| judged(exhibit, args, &cache, cancel))
        .collect::<Result<Vec<_>>>()?;
    drop(one_thread);

    for Results { exhibit, strips, .. } in &results {
        write(&args.output.join(format!("{}.png", exhibit.name)), exhibit::sheet(strips)?.to_png()?)?;
    }
    let path = args.output.join("index.html");
    write(&path, page::page(&results)?)?;

    let mut text = String::new();
    for result in &results {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}\n\n{}", described(result, args.quick), table(&result.scores));
    }
    let seconds = started.elapsed().as_secs_f64();
    let _ = writeln!(
        text,
        "{}: the images, the tables and plots of them. Done in {seconds:.0} s.",
        path.display()
    );
    let sets: Vec<_> = results.iter().map(json).collect();
    Ok(DemoReport { text, json: serde_json::json!({ "sets": sets, "page": path, "seconds": seconds }) })
}

/// While it lives, every operation of torch's computes on one thread.
struct OneThread(i32);

impl OneThread {
    fn new() -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        Self(before)
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::io(path, "cannot write"))
}

/// One example from its files to its scores.
fn judged(exhibit: Exhibit, args: &DemoArgs, cache: &Cache, cancel: &CancelToken) -> Result<Results> {
    let seeds = if args.quick { 1 } else { 3 };
    let opened = exhibit.open(args, cache)?;
    let bar = bar(exhibit.name, "images refined");
    let refined = opened.refine(seeds, cancel, &bar)?;
    bar.finish_and_clear();
    let strips = opened.strips()?;

    let test = opened.test()?;
    let mut judge = Judge::new(&*test)?.seeds(seeds);
    if args.quick {
        judge = judge.networks(vec![PROXY, Architecture::ResNet]);
    }
    let candidates: Vec<_> =
        Row::ALL.iter().map(|row| Candidate::new(row.label(), |seed| opened.loader(*row, seed))).collect();
    let bar = self::bar(exhibit.name, "networks trained");
    let started = Instant::now();
    let scores = judge.run(&candidates, cancel, &|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let (test_images, train_seconds) = (judge.test_images(), started.elapsed().as_secs_f64());
    Ok(Results { exhibit, strips, scores, test_images, refined, train_seconds })
}

/// A progress bar on standard error, if that is a terminal.
fn bar(set: &str, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = format!("{set} {{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left");
    // If the template were wrong, the default style would serve.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// The networks that the sets were not distilled on, of those that were trained.
fn unseen(scores: &Scores) -> Vec<Architecture> {
    scores.networks.iter().map(|(network, _)| *network).filter(|network| *network != PROXY).collect()
}

fn described(result: &Results, quick: bool) -> String {
    let Results { exhibit, test_images, refined, train_seconds, .. } = result;
    format!(
        "{}: {}. Per cent of {test_images} test images recognised; {}.\n{} images refined in {:.0} s, {} found in the \
         cache; all trainings in {train_seconds:.0} s.",
        exhibit.title,
        exhibit.set,
        if quick { "one seed" } else { "mean ± standard deviation over three seeds" },
        refined.images,
        refined.seconds,
        refined.cached,
    )
}

/// Rows by networks, and the mean of the networks that the images are new to.
fn table(scores: &[Scores]) -> Table {
    let networks = scores.first().map_or(&[][..], |scores| &scores.networks);
    let headings = networks.iter().map(|(network, _)| network.to_string()).chain(["unseen".to_owned()]);
    let mut table = Table::new("trained on", headings);
    for row in scores {
        table.row(&row.label, cells(row));
    }
    table
}

/// The scores of a row as text: each network's, and the mean of the unseen ones.
fn cells(row: &Scores) -> Vec<String> {
    let single = row.networks.iter().all(|(_, scores)| scores.len() == 1);
    let each = row.networks.iter().map(|(network, _)| vec![*network]).chain([unseen(row)]);
    each.map(|networks| match row.summary(&networks) {
        Some(summary) if single => format!("{:.1}", summary.mean),
        Some(summary) => summary.to_string(),
        None => String::new(),
    })
    .collect()
}

fn json(result: &Results) -> serde_json::Value {
    let row = |scores: &Scores| {
        let networks: serde_json::Map<_, _> = scores
            .networks
            .iter()
            .map(|(network, scores)| (network.to_string(), serde_json::json!(scores)))
            .collect();
        let unseen = scores.summary(&unseen(scores));
        serde_json::json!({
            "label": scores.label,
            "accuracy": networks,
            "unseen": unseen.map(|summary| serde_json::json!({ "mean": summary.mean, "std": summary.std })),
        })
    };
    serde_json::json!({
        "set": result.exhibit.name,
        "test_images": result.test_images,
        "refined": result.refined.images,
        "cached": result.refined.cached,
        "refine_seconds": result.refined.seconds,
        "train_seconds": result.train_seconds,
        "rows": result.scores.iter().map(row).collect::<Vec<_>>(),
    })
}

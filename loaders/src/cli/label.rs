//! `diver label`.

use super::cache_args::CacheArgs;
use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs, TeacherArgs};
use crate::cache::LogitForm;
use crate::refine::Progress as _;
use crate::wording::counted;
use crate::{Batch, CancelToken, Error, Loader, Per, Result, Targets};
use clap::Args;
use std::num::NonZero;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Images of a batch, between which progress is shown.
const BATCH: usize = 32;
/// How often to see whether the command was interrupted.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
#[command(
    after_help = "Logits go into the cache, a row for each image: a loader with the same set, teacher and settings, and a label
per image, finds them. What is not refined yet is refined first.

Example:
  diver label examples/digits/dm_ipc1 --backbone examples/digits/backbone --teacher teacher.pt"
)]
pub(super) struct LabelArgs {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    teacher: TeacherArgs,

    /// Store the logits in float16, half the size, to three digits
    #[arg(long, help_heading = "Teacher")]
    half: bool,

    /// Store only so many of the greatest logits; the probability of the other classes is spread evenly over them
    #[arg(long, value_name = "K", help_heading = "Teacher")]
    top_k: Option<NonZero<usize>>,

    /// Label the images as they are stored, without a backbone
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    refiner: RefinerArgs,
}

pub(super) fn run(args: &LabelArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    let started = Instant::now();
    let cache = args.cache.open()?;
    let form = LogitForm { half: args.half, top_k: args.top_k };
    let mut builder = Loader::builder(args.source.open()?)
        .cache(cache.clone())
        .labels(Targets::teacher(1.0)?)
        .teacher(host.teacher(&args.teacher, cancel)?, Per::Image)
        .logit_form(form)
        .batch_size(BATCH);
    if !args.raw {
        builder = builder.refiner(host.refiner(&args.refiner, cancel)?);
    }
    let mut loader = builder.build()?;
    let images = loader.info().num_samples;
    let bar = Bar::new();
    let mut done = 0;
    let epoch = loader.start_epoch();
    while let Some(batch) = next_batch(&mut loader, epoch, cancel)? {
        // A training could go on with what is in memory; this command is for the cache alone.
        if let Some(error) = loader.cache_failure() {
            return Err(error.into());
        }
        done += batch.len();
        bar.images(done, images);
    }
    let stats = loader.finish()?;
    let labelled = stats.taught.min(images as u64);
    let text = format!(
        "{}: {} from the cache, {labelled} labelled\ncache: {}",
        counted(images, "image"),
        images as u64 - labelled,
        cache.root().display()
    );
    let json = serde_json::json!({
        "samples": images,
        "cached": images as u64 - labelled,
        "labelled": labelled,
        "teach_seconds": stats.stages.teach.seconds,
        "seconds": started.elapsed().as_secs_f64(),
        "cache": cache.root().to_string_lossy(),
    });
    output.result(&text, &json)
}

/// The next batch of an epoch, unless it is over.
///
/// # Errors
/// If a sample cannot be labelled; [`Error::Cancelled`], however long a batch takes.
fn next_batch(loader: &mut Loader, epoch: u64, cancel: &CancelToken) -> Result<Option<Batch>> {
    loop {
        cancel.check()?;
        match loader.poll_batch(epoch, LOOK) {
            Poll::Ready(batch) => return batch.transpose(),
            Poll::Pending => {}
        }
    }
}

/// A host without teachers.
pub(super) fn no_teacher() -> Error {
    Error::NoRefiner("this program has no teachers: take the `diver` command that `cargo build` makes".into())
}

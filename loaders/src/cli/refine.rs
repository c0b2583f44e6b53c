//! `diver refine`.

use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::wording::counted;
use crate::{Cache, CancelToken, Refinery, Result};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args, Debug)]
#[command(
    after_help = "The cache is filled in small parts, each durable when written: an interrupted command goes on
where it stopped, and a loader with the same backbone and settings finds every image in it.

Example:
  diver refine examples/digits/dm_ipc1 --backbone examples/digits/backbone --cache out/cache"
)]
pub(super) struct RefineArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Folder that keeps refined images
    #[arg(long, value_name = "FOLDER", default_value = "~/.cache/diver")]
    cache: PathBuf,

    #[command(flatten)]
    refiner: RefinerArgs,
}

pub(super) fn run(args: &RefineArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    let started = Instant::now();
    let source = args.source.open()?;
    let samples = source.info().num_samples;
    let cache = Cache::open(&args.cache)?;
    let refiner = host.refiner(&args.refiner, cancel)?;
    let fingerprint = refiner.fingerprint();
    let mut refinery = Refinery::new(source, refiner, Some(&cache))?;
    let summary = refinery.run(cancel, &Bar::new())?;
    let folder = refinery.generation().map(|g| g.path().to_owned());

    let each = if summary.refined > 0 {
        format!(
            " in {:.1} s, {:.3} s an image",
            summary.refine_seconds,
            summary.refine_seconds / summary.refined as f64
        )
    } else {
        String::new()
    };
    let text = format!(
        "{}: {} from the cache, {} refined{each}\ncache: {}",
        counted(samples, "image"),
        summary.cached,
        summary.refined,
        folder.as_deref().unwrap_or(cache.root()).display(),
    );
    let json = serde_json::json!({
        "samples": samples,
        "cached": summary.cached,
        "refined": summary.refined,
        "refine_seconds": summary.refine_seconds,
        "seconds": started.elapsed().as_secs_f64(),
        "cache": cache.root(),
        "folder": folder,
        "fingerprint": fingerprint,
    });
    output.result(&text, &json)
}

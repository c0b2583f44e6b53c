//! `diver refine`.

use super::cache_args::CacheArgs;
use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::cache::Partition;
use crate::wording::counted;
use crate::{CancelToken, Loader, Refinery, Result};
use clap::Args;
use std::num::NonZero;
use std::str::FromStr;
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

    #[command(flatten)]
    cache: CacheArgs,

    /// Refine one of n shares of the set, as 0/4 to 3/4 for four processes. Processes that write to one cache share the
    /// work without it: this is for those that cannot see each other's files
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Shard,

    /// Refinements of each image, each with its own noise: for loaders with as many `variants`
    #[arg(long, value_name = "N", default_value = "1", value_parser = variants)]
    variants: NonZero<u32>,

    #[command(flatten)]
    refiner: RefinerArgs,
}

fn variants(text: &str) -> Result<NonZero<u32>, String> {
    let most = Loader::MOST_VARIANTS;
    let found = text.parse().ok().filter(|variants: &NonZero<u32>| variants.get() <= most);
    found.ok_or_else(|| format!("expected a number from 1 to {most}"))
}

/// One of several shares of a set.
#[derive(Clone, Copy, Debug)]
struct Shard {
    index: usize,
    count: NonZero<usize>,
}

impl Shard {
    /// Its samples, of so many.
    fn samples(self, of: usize) -> impl Iterator<Item = usize> {
        (self.index..of).step_by(self.count.get())
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let (index, count): (usize, NonZero<usize>) =
            parsed.ok_or("expected a share and their number, as in 0/4")?;
        if index >= count.get() {
            return Err(format!("shares count from 0: of {count}, the last is {}/{count}", count.get() - 1));
        }
        Ok(Self { index, count })
    }
}

pub(super) fn run(args: &RefineArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    let started = Instant::now();
    let source = args.source.open()?;
    let samples = source.info().num_samples;
    let cache = args.cache.open()?;
    let refiner = host.refiner(&args.refiner, cancel)?;
    let fingerprint = refiner.fingerprint();
    let mut refinery = Refinery::with_variants(source, refiner, Some(&cache), args.variants)?;
    let share = args.shard.samples(samples);
    let samples = args.shard.samples(samples).count();
    let images = samples * args.variants.get() as usize;
    let summary = refinery.run(share, cancel, &Bar::new())?;
    let folder = refinery.partition().map(Partition::path);

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
        counted(images, "image"),
        summary.cached,
        summary.refined,
        folder.as_ref().unwrap_or(&cache.root()).display(),
    );
    let json = serde_json::json!({
        "samples": samples,
        "images": images,
        "cached": summary.cached,
        "refined": summary.refined,
        "refine_seconds": summary.refine_seconds,
        "seconds": started.elapsed().as_secs_f64(),
        "cache": cache.root().to_string_lossy(),
        "folder": folder.as_deref().map(std::path::Path::to_string_lossy),
        "fingerprint": fingerprint,
    });
    output.result(&text, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_bounded() {
        assert_eq!(variants("3").unwrap().get(), 3);
        for text in ["0", "1025", "-1", "x"] {
            assert!(variants(text).unwrap_err().contains("from 1 to 1024"), "{text}");
        }
    }

    #[test]
    fn shards_cover_a_set_once() {
        let shard = |text: &str| text.parse::<Shard>();
        let mut all: Vec<usize> =
            ["0/3", "1/3", "2/3"].iter().flat_map(|text| shard(text).unwrap().samples(8)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        for (text, reason) in [("3/3", "the last is 2/3"), ("1", "0/4"), ("0/0", "0/4"), ("-1/2", "0/4")] {
            assert!(shard(text).unwrap_err().contains(reason), "{text}");
        }
    }
}

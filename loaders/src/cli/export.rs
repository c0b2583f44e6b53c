//! `diver export`.

use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::export::{ExportFormat, check, export};
use crate::pixels::planar;
use crate::refine::Silent;
use crate::wording::counted;
use crate::{
    Cache, CancelToken, Error, Refinery, Result, RgbImage, Sample, Source, SourceInfo, StoredPixels,
    ValueSpace,
};
use clap::builder::ArgPredicate;
use clap::{ArgGroup, Args};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Images that are in memory at a time.
const CHUNK: usize = 64;

#[derive(Args, Debug)]
#[command(after_help = "What the cache lacks is refined first. Images leave at the size of the set.

Example:
  diver export examples/digits/dm_ipc1 --backbone examples/digits/backbone --cache out/cache \\
    --to image-folder --output out/digits")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// What to write
    #[arg(long, value_name = "FORMAT")]
    to: ExportFormat,

    /// The folder to write, which is not there yet
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,

    /// Export the images as they are stored, without a backbone
    #[arg(long)]
    raw: bool,

    /// Folder that keeps refined images
    #[arg(long, value_name = "FOLDER", default_value = "~/.cache/diver")]
    cache: PathBuf,

    #[command(flatten)]
    refiner: RefinerArgs,
}

/// The command with either a backbone, for refined images, or `--raw`.
pub(super) fn command(command: clap::Command) -> clap::Command {
    let command = command.mut_arg("backbone", |backbone| {
        backbone.required(false).default_value_if("raw", ArgPredicate::Equals("true".into()), "")
    });
    command.group(ArgGroup::new("images").args(["backbone", "raw"]).required(true))
}

pub(super) fn run(args: &ExportArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    let source = args.source.open()?;
    let info = source.info().clone();
    let exported = if args.raw {
        let samples = (0..info.samples).map(|index| source.sample(index));
        export(&info, samples, args.to, &args.output, cancel)?
    } else {
        let [_, height, width] = info.shape;
        let refined = SourceInfo { shape: [3, height, width], value_space: ValueSpace::Unit, ..info.clone() };
        // Before anything is refined, which may take hours.
        check(&refined, args.to, &args.output)?;
        let labels = (0..info.samples).map(|index| source.label(index)).collect::<Result<Vec<_>>>()?;
        let cache = Cache::open(&args.cache)?;
        let mut refinery = Refinery::new(source, host.refiner(&args.refiner, cancel)?, Some(&cache))?;
        refinery.run(cancel, &Bar::new())?;
        let indices: Vec<usize> = (0..info.samples).collect();
        let mut labels = labels.into_iter();
        let samples = indices.chunks(CHUNK).flat_map(|chunk| {
            let images = match refinery.images(chunk, cancel, &Silent) {
                Ok(images) => images.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            let labels = &mut labels;
            let joined: Vec<Result<Sample>> = images
                .into_iter()
                .map(|image: Result<Arc<RgbImage>>| {
                    let label =
                        labels.next().ok_or_else(|| Error::format(&info.path, "more images than labels"))?;
                    Ok(Sample {
                        pixels: StoredPixels::U8(planar(image?.as_bytes())),
                        shape: refined.shape,
                        label,
                    })
                })
                .collect();
            joined
        });
        export(&refined, samples, args.to, &args.output, cancel)?
    };

    let mut text = format!("{}: {}", counted(exported.samples, "sample"), args.output.display());
    for note in &exported.notes {
        // Writing to a string does not fail.
        let _ = write!(text, "\nnote: {note}");
    }
    let json =
        serde_json::json!({ "samples": exported.samples, "output": args.output, "notes": exported.notes });
    output.result(&text, &json)
}

#[cfg(test)]
mod tests {
    use super::super::{DemoArgs, DemoReport, run};
    use super::*;
    use crate::{Identity, Refine};
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts how often a refiner is asked for.
    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl Host for Asked {
        fn refiner(&self, _args: &RefinerArgs, _cancel: &CancelToken) -> Result<Box<dyn Refine>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Identity))
        }

        fn demo(&self, _args: &DemoArgs, _cancel: &CancelToken) -> Result<DemoReport> {
            Err(Error::NoRefiner("none".into()))
        }
    }

    #[test]
    fn either_a_backbone_or_raw_images_are_asked_for() {
        let parse = |options: &str| {
            let command = command(ExportArgs::augment_args(clap::Command::new("export")));
            let line = format!("export set --to mtt -o out {options}");
            command.try_get_matches_from(line.split_whitespace()).map_err(|error| error.to_string())
        };
        for options in ["--raw", "--backbone x"] {
            assert!(parse(options).is_ok(), "{options}");
        }
        for options in ["", "--raw --backbone x"] {
            let error = parse(options).unwrap_err();
            assert!(error.contains("--raw") && error.contains("--backbone"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_before_anything_is_refined() {
        let folder = tempfile::tempdir().unwrap();
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch/small.pt");
        let (host, cache) = (Asked::default(), folder.path().join("cache"));
        let export = |output: &Path| {
            let [set, cache, output] = [&set, &cache, output].map(|path| path.as_os_str());
            let command = ["export", "--backbone", "x", "--to", "mtt"].map(std::ffi::OsStr::new);
            let places = ["--cache".as_ref(), cache, "--output".as_ref(), output, set];
            let args = ["diver".as_ref()].into_iter().chain(command).chain(places);
            run(args, &host, &CancelToken::new())
        };
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("file"), b"").unwrap();
        for output in [taken.clone(), taken.join("file"), taken.join("file/below")] {
            assert_eq!((export(&output), host.0.load(Ordering::Relaxed)), (1, 0), "{}", output.display());
        }
        let free = folder.path().join("free");
        assert_eq!((export(&free), host.0.load(Ordering::Relaxed)), (0, 1));
        assert!(free.join("images_best.pt").is_file());
    }
}

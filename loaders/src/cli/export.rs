//! `diver export`.

use super::cache_args::CacheArgs;
use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::export::{ExportFormat, check, export_raw, export_refined, refined_info};
use crate::wording::counted;
use crate::{CancelToken, Result};
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "What the cache lacks is refined first. Images leave at the size of the set, and grey
where it is.

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

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    refiner: RefinerArgs,
}

pub(super) fn run(args: &ExportArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    let source = args.source.open()?;
    let exported = if args.raw {
        export_raw(&*source, args.to, &args.output, cancel)?
    } else {
        // Before a backbone is looked for, and anything is refined.
        check(&refined_info(source.info()), args.to, &args.output)?;
        let cache = args.cache.open()?;
        let refiner = host.refiner(&args.refiner, cancel)?;
        export_refined(source, refiner, Some(&cache), args.to, &args.output, cancel, &Bar::new())?
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
    use crate::export::export;
    use crate::refine::{Progress, RawBatch};
    use crate::{Conditioning, Error, Identity, Loader, MemorySource, Refine, RgbImage, Source as _};
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

    /// Colours grey images: its own refiner, as a host.
    struct Tinter;

    impl Host for Tinter {
        fn refiner(&self, _args: &RefinerArgs, _cancel: &CancelToken) -> Result<Box<dyn Refine>> {
            Ok(Box::new(Self))
        }

        fn demo(&self, _args: &DemoArgs, _cancel: &CancelToken) -> Result<DemoReport> {
            Err(Error::NoRefiner("none".into()))
        }
    }

    impl Refine for Tinter {
        fn fingerprint(&self) -> Option<serde_json::Value> {
            Some(serde_json::json!({ "refiner": "tinter" }))
        }

        fn check_conditioning(&self, _conditioning: &Conditioning) -> Result<()> {
            Ok(())
        }

        fn refine(
            &mut self,
            batch: &RawBatch<'_>,
            _cancel: &CancelToken,
            _progress: &dyn Progress,
        ) -> Result<Vec<RgbImage>> {
            let area = batch.height * batch.width;
            let tinted = |image: &[f32]| {
                let planes = image.chunks_exact(area).zip([0.0, 0.013, 0.05]);
                planes
                    .flat_map(|(plane, tint)| plane.iter().map(move |pixel| pixel + tint))
                    .collect::<Vec<f32>>()
            };
            let images = batch.pixels.chunks_exact(3 * area).map(tinted);
            images.map(|image| RgbImage::from_planar(batch.width, batch.height, &image)).collect()
        }
    }

    #[test]
    fn refined_images_of_grey_sets_stay_grey() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..8).map(|place| place as f32 / 8.0).collect();
        let grey = MemorySource::unit(2, [1, 2, 2], values, vec![0, 1]).unwrap();
        let set = folder.path().join("set");
        let samples = (0..2).map(|index| grey.sample(index));
        export(grey.info(), samples, ExportFormat::Mtt, &set, &CancelToken::new()).unwrap();
        let batch = |set: &Path, is_refined: bool| {
            let builder = Loader::builder(crate::open(set).unwrap()).shuffle(false).batch_size(2);
            let builder = if is_refined { builder.refiner(Tinter) } else { builder };
            let batch = builder.build().unwrap().epoch(0).next().unwrap().unwrap();
            (batch.shape(), batch.images::<f32>().unwrap().to_vec())
        };
        let (_, expected) = batch(&set, true);
        for format in ["dc", "mtt", "safetensors", "parquet"] {
            let [cache, output] = ["cache", format].map(|name| folder.path().join(name));
            let args = ["diver", "export", "--backbone", "x", "--to", format].map(std::ffi::OsStr::new);
            let places = ["--cache".as_ref(), cache.as_os_str(), "--output".as_ref(), output.as_os_str()];
            let args = args.into_iter().chain(places).chain([set.as_os_str()]);
            assert_eq!(run(args, &Tinter, &CancelToken::new()), 0);
            if format == "parquet" {
                assert_eq!(
                    crate::open(&output).unwrap().info().shape,
                    [3, 2, 2],
                    "its images are of colours"
                );
                continue;
            }
            let file = match format {
                "dc" => output.join("res_DIVER.pt"),
                "safetensors" => output.join("data.safetensors"),
                _ => output,
            };
            let (shape, images) = batch(&file, false);
            assert_eq!(shape, [2, 1, 2, 2], "{format}");
            let off = images.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "{format} is off by {off} from what is streamed");
        }
    }

    #[test]
    fn either_a_backbone_or_raw_images_are_asked_for() {
        let parse = |options: &str| {
            let command =
                super::super::raw_or_refined(ExportArgs::augment_args(clap::Command::new("export")));
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

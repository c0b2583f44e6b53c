//! `diver preview`.

use super::cache_args::CacheArgs;
use super::output::Output;
use super::progress::Bar;
use super::source_args::SourceArgs;
use super::{Host, RefinerArgs};
use crate::paths::local;
use crate::wording::counted;
use crate::{CancelToken, Error, Preview, Result};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  diver preview examples/shapes/dm_ipc10 --backbone examples/shapes/backbone --cache out/cache -o sheet.png")]
pub(super) struct PreviewArgs {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    cache: CacheArgs,

    /// The PNG file to write
    #[arg(long, short, value_name = "FILE", default_value = "preview.png")]
    output: PathBuf,

    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    per_class: u16,

    /// Enlargement of every pixel; by default such that small images become visible
    #[arg(long, value_name = "N")]
    scale: Option<usize>,

    #[command(flatten)]
    refiner: RefinerArgs,
}

pub(super) fn run(args: &PreviewArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    check_name(&args.output)?;
    // Before hours of refinement, not after them.
    if let Some(folder) = args.output.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "cannot make the folder"))?;
    }
    let preview = Preview::of(args.source.open()?, args.per_class.into())?;
    let chosen = preview.indices().to_vec();
    let cache = args.cache.open()?;
    let refiner = host.refiner(&args.refiner, cancel)?;
    let png = preview.refined(refiner, Some(&cache), args.scale, cancel, &Bar::new())?.to_png()?;
    std::fs::write(&args.output, png).map_err(Error::io(&args.output, "cannot write the sheet"))?;
    let text = format!("{}, raw above refined: {}", counted(chosen.len(), "image"), args.output.display());
    output.result(&text, &serde_json::json!({ "images": chosen, "output": args.output }))
}

/// A picture under the name of another kind would not open everywhere, and an object store has no folder to write to.
/// Said before images are refined.
fn check_name(output: &Path) -> Result<()> {
    match local("output", output)?.extension() {
        Some(extension) if !extension.eq_ignore_ascii_case("png") => {
            let reason =
                format!("the sheet is a PNG file: name it {}", output.with_extension("png").display());
            Err(Error::config("output", reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_are_named_as_what_they_are() {
        for name in ["sheet.png", "sheet.PNG", "sheet", "out.d/sheet"] {
            assert!(check_name(Path::new(name)).is_ok(), "{name}");
        }
        let error = check_name(Path::new("out/x.jpg")).unwrap_err().to_string();
        assert_eq!(error, "output: the sheet is a PNG file: name it out/x.png");
        let error = check_name(Path::new("s3://bucket/sheet.png")).unwrap_err().to_string();
        assert!(error.starts_with("output: `s3://bucket/sheet.png`"), "{error}");
    }
}

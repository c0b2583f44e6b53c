//! The `diver` command, given a way to make refiners.
//!
//! The engine knows no torch, so whoever owns the process injects a [`RefinerFactory`]: the `diver` binary brings
//! the one for libtorch.

mod bench;
mod inspect;
mod output;
mod preview;
mod progress;
mod refine;
mod refiner_args;
mod source_args;

pub use refiner_args::RefinerArgs;

use crate::{CancelToken, Error, Refine, Result};
use clap::{Parser, Subcommand};
use output::Output;
use std::ffi::OsString;

/// Makes the refiner that a command line asks for.
pub trait RefinerFactory {
    /// A refiner for `args`.
    ///
    /// # Errors
    /// If an option has a value that it cannot have, or the backbone cannot be loaded.
    fn build(&self, args: &RefinerArgs) -> Result<Box<dyn Refine>>;
}

/// Exit code of a command that was interrupted, as shells report it.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Parser)]
#[command(
    name = "diver",
    version,
    about = "Refine distilled datasets with diffusion models and stream them into training loops",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON object on standard output instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Refine every image of a distilled dataset that the cache lacks
    Refine(refine::RefineArgs),
    /// Say what a distilled dataset is: format, size, classes, value space
    Inspect(inspect::InspectArgs),
    /// Write a contact sheet of raw images with their refinements below
    Preview(preview::PreviewArgs),
    /// Time the refiner and the loader on this machine
    Bench(bench::BenchArgs),
}

/// Runs the command line `args`, the program's name first, and returns the exit code. Work stops soon after `cancel`
/// is set.
///
/// ```
/// use diver_loaders::cli::{RefinerArgs, RefinerFactory, run};
/// use diver_loaders::{CancelToken, Identity, Refine, Result};
///
/// struct Identities;
///
/// impl RefinerFactory for Identities {
///     fn build(&self, _args: &RefinerArgs) -> Result<Box<dyn Refine>> {
///         Ok(Box::new(Identity))
///     }
/// }
///
/// let code = run(["diver", "inspect", "nowhere"], &Identities, &CancelToken::new());
/// assert_eq!(code, 1);
/// ```
pub fn run<I, A>(args: I, factory: &dyn RefinerFactory, cancel: &CancelToken) -> u8
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap that belong on standard output, with success.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let output = Output { json: cli.json };
    let result = match cli.command {
        Command::Refine(args) => refine::run(&args, factory, cancel, output),
        Command::Inspect(args) => inspect::run(&args, output),
        Command::Preview(args) => preview::run(&args, factory, cancel, output),
        Command::Bench(args) => bench::run(&args, factory, cancel, output),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            output.error(&error);
            if is_cancelled(&error) { INTERRUPTED } else { 1 }
        }
    }
}

fn is_cancelled(error: &Error) -> bool {
    match error {
        Error::Cancelled => true,
        Error::Shared(error) => is_cancelled(error),
        _ => false,
    }
}

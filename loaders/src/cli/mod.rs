//! The `diver` command, given what needs torch.
//!
//! The engine knows no torch, so whoever owns the process injects a [`Host`]: the `diver` binary brings the one for
//! libtorch.

mod bench;
mod cache;
mod cache_args;
mod demo;
mod export;
mod inspect;
mod label;
mod output;
mod preview;
mod progress;
mod refine;
mod refiner_args;
mod source_args;
mod teacher_args;

pub use demo::{DemoArgs, DemoReport};
pub use refiner_args::RefinerArgs;
pub use teacher_args::TeacherArgs;

use crate::{CancelToken, Error, Refine, Result, Teach};
use clap::builder::ArgPredicate;
use clap::{ArgGroup, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use output::Output;
use std::ffi::OsString;

/// What the command cannot do by itself: refine, and train networks.
pub trait Host {
    /// The refiner that a command line asks for; `cancel` ends a download.
    ///
    /// # Errors
    /// If an option has a value that it cannot have, or the backbone cannot be loaded.
    fn refiner(&self, args: &RefinerArgs, cancel: &CancelToken) -> Result<Box<dyn Refine>>;

    /// The teacher that a command line asks for; by default there are none.
    ///
    /// # Errors
    /// If an option has a value that it cannot have, or the network cannot be loaded.
    fn teacher(&self, args: &TeacherArgs, cancel: &CancelToken) -> Result<Box<dyn Teach>> {
        let _ = (args, cancel);
        Err(label::no_teacher())
    }

    /// Refines the shipped examples, trains networks on them, and compares.
    ///
    /// # Errors
    /// If an option has a value that it cannot have; if the examples cannot be read or refined, or the results not
    /// written; [`Error::Cancelled`] soon after `cancel` is set.
    fn demo(&self, args: &DemoArgs, cancel: &CancelToken) -> Result<DemoReport>;
}

/// Exit code of a command that was interrupted, as shells report it.
const INTERRUPTED: u8 = 130;

/// The cache of a command line that names none.
const DEFAULT_CACHE: &str = "~/.cache/diver";

/// What became of the work of an interrupted command that refines.
const KEPT: &str = "; what was refined is in the cache, and the same command goes on from there";

#[derive(Debug, Parser)]
#[command(
    name = "diver",
    version,
    about = "Refine distilled datasets with diffusion models and stream them into training loops",
    after_help = "Exit codes: 0 done, 1 failed or damage found, 2 a command line that cannot be read, 130 interrupted."
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
    /// Label every image of a distilled dataset, refined or raw, by a teacher network
    Label(label::LabelArgs),
    /// Say what a distilled dataset is: format, size, classes, value space
    Inspect(inspect::InspectArgs),
    /// Write a set, refined or raw, in the format of a method or a tool
    Export(export::ExportArgs),
    /// Write a contact sheet of raw images with their refinements below
    Preview(preview::PreviewArgs),
    /// Time the refiner and the loader on this machine
    Bench(bench::BenchArgs),
    /// Refine the shipped examples, train networks on them raw and refined, and compare
    Demo(demo::DemoArgs),
    /// List, explain, check and tidy a cache of refined images
    Cache(cache::CacheArgs),
}

/// Runs the command line `args`, the program's name first, and returns the exit code. Work stops soon after `cancel`
/// is set.
///
/// ```
/// use diver_loaders::cli::{DemoArgs, DemoReport, Host, RefinerArgs, run};
/// use diver_loaders::{CancelToken, Error, Identity, Refine, Result};
///
/// struct Identities;
///
/// impl Host for Identities {
///     fn refiner(&self, _args: &RefinerArgs, _cancel: &CancelToken) -> Result<Box<dyn Refine>> {
///         Ok(Box::new(Identity))
///     }
///
///     fn demo(&self, _args: &DemoArgs, _cancel: &CancelToken) -> Result<DemoReport> {
///         Err(Error::NoRefiner("this program trains no networks".into()))
///     }
/// }
///
/// let code = run(["diver", "inspect", "nowhere"], &Identities, &CancelToken::new());
/// assert_eq!(code, 1);
/// ```
pub fn run<I, A>(args: I, host: &dyn Host, cancel: &CancelToken) -> u8
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let command = command();
    let parsed = command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap that belong on standard output, with success.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let output = Output { json: cli.json };
    let keeps = matches!(
        cli.command,
        Command::Refine(_) | Command::Label(_) | Command::Export(_) | Command::Preview(_)
    );
    let done = |()| 0;
    let result = match cli.command {
        Command::Refine(args) => refine::run(&args, host, cancel, output).map(done),
        Command::Label(args) => label::run(&args, host, cancel, output).map(done),
        Command::Inspect(args) => inspect::run(&args, output).map(done),
        Command::Export(args) => export::run(&args, host, cancel, output).map(done),
        Command::Preview(args) => preview::run(&args, host, cancel, output).map(done),
        Command::Bench(args) => bench::run(&args, host, cancel, output).map(done),
        Command::Demo(args) => demo::run(&args, host, cancel, output).map(done),
        Command::Cache(args) => cache::run(&args, host, cancel, output),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            if is_cancelled(&error) {
                output.error(&format!("interrupted{}", if keeps { KEPT } else { "" }));
                return INTERRUPTED;
            }
            output.error(&error.to_string());
            1
        }
    }
}

fn command() -> clap::Command {
    Cli::command().mut_subcommand("export", raw_or_refined).mut_subcommand("label", raw_or_refined)
}

/// A command with either a backbone, for refined images, or `--raw`.
fn raw_or_refined(command: clap::Command) -> clap::Command {
    let command = command.mut_arg("backbone", |backbone| {
        backbone.required(false).default_value_if("raw", ArgPredicate::Equals("true".into()), "")
    });
    command.group(ArgGroup::new("images").args(["backbone", "raw"]).required(true))
}

fn is_cancelled(error: &Error) -> bool {
    match error {
        Error::Cancelled => true,
        Error::Shared(error) => is_cancelled(error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::KnobsBuilder;
    use crate::{OpenOptions, options};
    use std::collections::BTreeSet;

    /// What a command takes besides the groups of options.
    fn arguments(command: &str) -> BTreeSet<String> {
        let cli = Cli::command();
        let found = cli.find_subcommand(command).unwrap_or_else(|| panic!("no {command}"));
        found.get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }

    #[test]
    fn a_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_option_is_an_argument() {
        let of = |schema: &'static serde_json::Value| {
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str())
        };
        for command in ["refine", "label", "inspect", "export", "preview", "bench"] {
            let arguments = arguments(command);
            let missing = |name: &&str| !arguments.contains(*name);
            assert_eq!(of(options::schema::<OpenOptions>()).find(missing), None, "{command}");
            if command != "inspect" {
                let refiner = of(options::schema::<RefinerArgs>()).map(|name| match name {
                    // `bench` has batches of its own.
                    "batch_size" => "refine_batch",
                    name => name,
                });
                let knobs = of(options::schema::<KnobsBuilder>());
                assert_eq!(
                    refiner.filter(|name| *name != "knobs").chain(knobs).find(missing),
                    None,
                    "{command}"
                );
            }
        }
    }
}

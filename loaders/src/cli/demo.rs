//! `diver demo`.

use super::Host;
use super::output::Output;
use crate::paths::local;
use crate::{CancelToken, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The demonstration that a command line asks for. As JSON, it reaches a host that lives in another library.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
#[command(after_help = "Refined images are kept in the output folder: a second run refines nothing.

Example:
  diver demo --set digits --quick")]
#[non_exhaustive]
pub struct DemoArgs {
    /// Folder of the shipped examples
    #[arg(long, value_name = "FOLDER", default_value = "examples")]
    pub examples: PathBuf,

    /// Folder for the cache, the pictures and the page
    #[arg(long, short, value_name = "FOLDER", default_value = "out/demo")]
    pub output: PathBuf,

    /// Which examples, digits or shapes; both by default
    #[arg(long = "set", value_name = "NAME")]
    pub sets: Vec<String>,

    /// Fewer networks and one seed
    #[arg(long)]
    pub quick: bool,

    /// Where to refine: auto, cpu, cuda or cuda:N. Networks are trained on the CPU
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// What a demonstration found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoReport {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
}

pub(super) fn run(args: &DemoArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<()> {
    local("examples", &args.examples)?;
    local("output", &args.output)?;
    let report = host.demo(args, cancel)?;
    output.result(&report.text, &report.json)
}

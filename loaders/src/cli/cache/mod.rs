//! `diver cache`: looking into a cache, and tidying it.

mod compact;
mod explain;
mod gc;
mod ls;
mod verify;

use super::output::Output;
use super::{DEFAULT_CACHE, Host};
use crate::options::Span;
use crate::paths::{expand_home, refused};
use crate::{Cache, CancelToken, Error, Result};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct CacheArgs {
    /// Folder that keeps refined images
    #[arg(long, value_name = "FOLDER|URL", default_value = DEFAULT_CACHE, global = true)]
    cache: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the fingerprints in the cache, the last used first: images, size, age, and how they differ
    Ls(Box<ls::LsArgs>),
    /// Say which images of a dataset the cache has, and how the most similar fingerprints differ
    Explain(Box<explain::ExplainArgs>),
    /// Decode every image and set damaged cache parts aside; the exit code is 1 if anything is damaged
    Verify,
    /// Merge small cache parts into large ones, while other processes read and write
    Compact,
    /// Delete fingerprints to make room: without --apply, only say which
    Gc(gc::GcArgs),
}

/// Returns the exit code.
pub(super) fn run(args: &CacheArgs, host: &dyn Host, cancel: &CancelToken, output: Output) -> Result<u8> {
    let folder = expand_home(&args.cache);
    if refused(&args.cache).is_none() && !folder.exists() {
        let reason = "there is no such folder: pass the folder or URL that `diver refine --cache` wrote to";
        return Err(Error::format(&folder, reason));
    }
    let cache = Cache::open(&args.cache)?;
    match &args.command {
        Command::Ls(args) => ls::run(args, &cache, cancel, output),
        Command::Explain(args) => explain::run(args, &cache, host, cancel, output),
        Command::Verify => return verify::run(&cache, cancel, output),
        Command::Compact => compact::run(&cache, cancel, output),
        Command::Gc(args) => gc::run(args, &cache, cancel, output),
    }
    .map(|()| 0)
}

/// Rows of cells, in aligned columns.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// So many seconds, in the largest unit that fits. A clock of another machine may be off by any amount.
fn ago(seconds: f64) -> Span {
    Span(Duration::from_secs(seconds.max(0.0) as u64))
}

/// A fingerprint's value, the long ones (hashes of weights) by their beginning.
fn shown(value: &serde_json::Value) -> String {
    const MOST: usize = 24;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", ""], ["ccc", "d", "e"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a    bb\nccc  d   e");
        assert_eq!(shown(&serde_json::json!("x".repeat(64))), format!("{}...", "x".repeat(24)));
        assert_eq!(shown(&serde_json::json!([1, 2.5])), "[1,2.5]");
    }
}

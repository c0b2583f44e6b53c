//! `diver cache ls`.

use super::{ago, shown, table};
use crate::cache::Listing;
use crate::cli::output::Output;
use crate::options::Amount;
use crate::refine::Dataset;
use crate::wording::counted;
use crate::{Cache, CancelToken, Error, OpenOptions, Result};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  diver cache ls --cache out/cache --set examples/digits/dm_ipc1")]
pub(super) struct LsArgs {
    /// A distilled dataset: rows are then counted that belong to it
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,

    #[command(flatten)]
    options: OpenOptions,
}

/// A fingerprint, and how many rows of the set it has.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    listing: Listing,
    found: Option<usize>,
}

pub(super) fn run(args: &LsArgs, cache: &Cache, cancel: &CancelToken, output: Output) -> Result<()> {
    let keys = match &args.set {
        Some(set) => Some(Dataset::new(args.options.open(set)?, None, None, None)?.keys(cancel)?),
        None if args.options == OpenOptions::default() => None,
        None => return Err(Error::config("set", "options say how to open a dataset: name it with --set")),
    };
    let mut lines = Vec::new();
    for listing in cache.list()? {
        cancel.check()?;
        let found = keys.as_ref().map(|keys| cache.count(&listing, keys)).transpose()?;
        lines.push(Line { listing, found });
    }
    let wanted = keys.as_ref().map(std::collections::BTreeSet::len);
    let root = cache.root();
    let json =
        serde_json::json!({ "cache": root.display().to_string(), "wanted": wanted, "fingerprints": lines });
    if lines.is_empty() {
        return output.result(&format!("{}: the cache is empty", root.display()), &json);
    }
    let bytes = Amount(lines.iter().map(|line| line.listing.bytes).sum());
    let heading = ["NAME", "ROWS", "SIZE", "PARTS", "WRITTEN", "USED", "DIFFERS IN"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading).chain(lines.iter().map(|line| cells(line, wanted))).collect();
    let count = counted(lines.len(), "fingerprint");
    output.result(&format!("{}: {count}, {}\n{}", root.display(), bytes, table(&rows)), &json)
}

fn cells(Line { listing, found }: &Line, wanted: Option<usize>) -> [String; 7] {
    let rows = match (found, wanted) {
        (Some(found), Some(wanted)) => format!("{found} of {wanted}"),
        _ => listing.rows.to_string(),
    };
    let parts = match listing.damaged {
        0 => listing.parts.to_string(),
        damaged => format!("{} + {damaged} damaged", listing.parts),
    };
    let written =
        if listing.parts == 0 { "never".to_owned() } else { format!("{} ago", ago(listing.age_seconds)) };
    let differs = match &listing.fingerprint {
        None => "fingerprint.json is missing or damaged".to_owned(),
        Some(_) => {
            let fields = listing.differs.iter().map(|(field, value)| format!("{field}={}", shown(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
    };
    let used = format!("{} ago", ago(listing.unused_seconds));
    [listing.name.clone(), rows, Amount(listing.bytes).to_string(), parts, written, used, differs]
}

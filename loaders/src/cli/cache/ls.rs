//! `diver cache ls`.

use super::{ago, shown, table};
use crate::cache::Listing;
use crate::cli::output::Output;
use crate::options::Amount;
use crate::wording::counted;
use crate::{Cache, CancelToken, Error, OpenOptions, Result};
use clap::Args;
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

pub(super) fn run(args: &LsArgs, cache: &Cache, cancel: &CancelToken, output: Output) -> Result<()> {
    let listed = match &args.set {
        Some(set) => cache.list_for(args.options.open(set)?, cancel)?,
        None if args.options == OpenOptions::default() => cache.list()?,
        None => return Err(Error::config("set", "options say how to open a dataset: name it with --set")),
    };
    let root = cache.root();
    let json = serde_json::json!({ "cache": root.display().to_string(), "fingerprints": listed });
    if listed.is_empty() {
        return output.result(&format!("{}: the cache is empty", root.display()), &json);
    }
    let bytes = Amount(listed.iter().map(|one| one.bytes).sum());
    let heading = ["NAME", "ROWS", "SIZE", "PARTS", "WRITTEN", "USED", "DIFFERS IN"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading).chain(listed.iter().map(cells)).collect();
    let count = counted(listed.len(), "fingerprint");
    output.result(&format!("{}: {count}, {}\n{}", root.display(), bytes, table(&rows)), &json)
}

fn cells(listing: &Listing) -> [String; 7] {
    let rows = match (listing.found, listing.wanted) {
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

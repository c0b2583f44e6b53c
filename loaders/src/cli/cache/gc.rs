//! `diver cache gc`.

use super::{ago, table};
use crate::cache::{Evicted, Rules};
use crate::cli::output::Output;
use crate::options::{Amount, Span};
use crate::wording::counted;
use crate::{Cache, CancelToken, Result};
use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  diver cache gc --keep 20GB --older 30d --cache out/cache")]
pub(super) struct GcArgs {
    #[command(flatten)]
    rules: RuleArgs,

    /// Delete; without it, nothing is changed
    #[arg(long)]
    apply: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct RuleArgs {
    /// Delete the least recently used fingerprints until the cache has at most so many bytes, as in 20GB or 512MiB
    #[arg(long, value_name = "SIZE")]
    keep: Option<Amount>,

    /// Delete fingerprints that were not used for longer, as in 30d or 12h
    #[arg(long, value_name = "TIME")]
    older: Option<Span>,

    /// Delete this fingerprint: the name of its folder, or its beginning; may be given several times
    #[arg(long = "fingerprint", value_name = "NAME")]
    fingerprints: Vec<String>,
}

pub(super) fn run(args: &GcArgs, cache: &Cache, cancel: &CancelToken, output: Output) -> Result<()> {
    let RuleArgs { keep, older, fingerprints } = &args.rules;
    let rules = Rules {
        keep_bytes: keep.map(|Amount(bytes)| bytes),
        unused_for: older.map(|Span(time)| time),
        fingerprints: fingerprints.clone(),
    };
    let evicted = cache.gc(&rules, args.apply, cancel)?;
    let (stay, go): (Vec<_>, Vec<_>) = evicted.iter().partition(|one| one.is_in_use);
    let room = Amount(go.iter().map(|one| one.bytes).sum());

    let count = counted(go.len(), "fingerprint");
    let head = match (args.apply, go.len()) {
        (_, 0) => "nothing to delete".to_owned(),
        (true, _) => format!("deleted {count}, which freed {room}"),
        (false, _) => format!("would delete {count}, which frees {room}: add --apply to do it"),
    };
    let does = if args.apply { "deleted" } else { "delete" };
    let line = |does: &str, one: &Evicted| {
        let used = format!("used {} ago", ago(one.unused_seconds));
        [format!("  {does}"), one.name.clone(), Amount(one.bytes).to_string(), used]
    };
    let rows: Vec<_> = go
        .iter()
        .map(|one| line(does, one))
        .chain(stay.iter().map(|one| line("in use, stays", one)))
        .collect();
    let text = format!("{}: {head}\n{}", cache.root().display(), table(&rows));
    let json = serde_json::json!({
        "cache": cache.root().display().to_string(),
        "applied": args.apply,
        "freed_bytes": room,
        "evicted": evicted,
    });
    output.result(&text, &json)
}

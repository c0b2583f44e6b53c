//! `diver cache explain`.

use super::{shown, table};
use crate::cache::Explanation;
use crate::cli::output::Output;
use crate::cli::source_args::SourceArgs;
use crate::cli::{Host, RefinerArgs};
use crate::wording::counted;
use crate::{Cache, CancelToken, Refinery, Result};
use clap::Args;
use std::fmt::Write as _;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  diver cache explain examples/digits/dm_ipc1 --backbone examples/digits/backbone --steps 20 --cache out/cache")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    refiner: RefinerArgs,
}

pub(super) fn run(
    args: &ExplainArgs,
    cache: &Cache,
    host: &dyn Host,
    cancel: &CancelToken,
    output: Output,
) -> Result<()> {
    let refinery = Refinery::new(args.source.open()?, host.refiner(&args.refiner, cancel)?, None)?;
    let explanation = refinery.explain(cache, cancel)?;
    output.result(&describe(&explanation, cache), &explanation)
}

fn describe(explanation: &Explanation, cache: &Cache) -> String {
    let Explanation { verdict, name, wanted, found, neighbours, .. } = explanation;
    let mut text = format!(
        "{verdict}: the cache has {found} of {}, under {}\n",
        counted(*wanted, "row"),
        cache.root().join(name).display(),
    );
    for other in neighbours {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{} has {} of them, and differs in:", other.name, other.found);
        let value = |value: &Option<serde_json::Value>| value.as_ref().map_or_else(|| "-".to_owned(), shown);
        let heading = ["  FIELD", "WANTED", "THEIRS"].map(str::to_owned);
        let fields = other.differences.iter();
        let fields = fields.map(|one| [format!("  {}", one.field), value(&one.wanted), value(&one.theirs)]);
        let rows: Vec<_> = std::iter::once(heading).chain(fields).collect();
        let _ = writeln!(text, "{}", table(&rows));
    }
    text
}

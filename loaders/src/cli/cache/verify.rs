//! `diver cache verify`.

use crate::cli::output::Output;
use crate::cli::progress::Bar;
use crate::wording::counted;
use crate::{Cache, CancelToken, Result};
use std::fmt::Write as _;

/// Returns the exit code.
pub(super) fn run(cache: &Cache, cancel: &CancelToken, output: Output) -> Result<u8> {
    let bar = Bar::of("verifying", "parts");
    let found = cache.verify(cancel, &|done, total| bar.count(done, total))?;
    drop(bar);
    let (rows, parts) = (counted(found.rows, "row"), counted(found.parts, "part"));
    let mut text = format!("{}: {rows} in {parts} are sound\n", cache.root().display());
    // Writing to a string does not fail.
    for part in &found.damaged {
        let _ = writeln!(text, "damaged: {} was set aside; its images will be refined again", part.display());
    }
    for fault in &found.faults {
        let _ = writeln!(text, "damaged: {fault}");
    }
    output.result(&text, &found)?;
    Ok(u8::from(!(found.damaged.is_empty() && found.faults.is_empty())))
}

//! `diver cache compact`.

use crate::cli::output::Output;
use crate::wording::counted;
use crate::{Cache, CancelToken, Result};

pub(super) fn run(cache: &Cache, cancel: &CancelToken, output: Output) -> Result<()> {
    let done = cache.compact(cancel)?;
    let root = cache.root();
    let text = if done.gathered == 0 {
        format!("{}: nothing to merge", root.display())
    } else {
        let (from, into) = (counted(done.gathered, "part"), counted(done.into, "part"));
        format!("{}: merged {from} into {into}, with {}", root.display(), counted(done.rows, "row"))
    };
    output.result(&text, &done)
}

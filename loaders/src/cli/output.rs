//! What commands print.

use crate::{Error, Result};
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;

/// Text for people, or one JSON object for programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints a result, `text` or `json`.
    pub(super) fn result(self, text: &str, json: &impl Serialize) -> Result<()> {
        let printed = if self.json {
            serde_json::to_string(json).map_err(|e| Error::config("json", e.to_string()))?
        } else {
            text.trim_end().to_owned()
        };
        writeln!(std::io::stdout(), "{printed}").map_err(Error::io(Path::new("stdout"), "cannot write"))
    }

    /// Reports an error: on standard error, and as JSON on standard output where JSON is asked for.
    pub(super) fn error(self, error: &str) {
        // Where even this cannot be written, the exit code still says that the command failed.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        if self.json {
            let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({ "error": error }));
        }
    }
}

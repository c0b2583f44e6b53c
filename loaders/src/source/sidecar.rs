//! `norm.json`, which lies beside data: what the files do not say themselves. diver's own convention.

use super::class_list::ClassList;
use super::options::Values;
use crate::{Error, Normalize, Result, text};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Stands for the file of a set that is in none.
pub(crate) const IN_MEMORY: &str = "<memory>";

/// Under this key of a file's metadata diver writes what the images' values are.
pub(crate) const VALUES: &str = "values";

/// Its name.
pub(crate) const NAME: &str = "norm.json";

/// The most bytes of it that are read.
pub(super) const LONGEST: u64 = 2 * ClassList::LONGEST as u64;

/// What a `norm.json` says.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// The file.
    pub(crate) file: PathBuf,
    pub(crate) normalize: Normalize,
    /// What the images' float values are.
    pub(crate) values: Option<Values>,
    pub(crate) classes: Option<ClassList>,
}

/// `{"mean": number | [r, g, b], "std": number | [r, g, b], "values": name, "classes": list}`, of which the last two may
/// be missing.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    mean: OneOrThree,
    std: OneOrThree,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<ClassList>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "neither a number nor a list of three")]
enum OneOrThree {
    One(f32),
    Three([f32; 3]),
}

impl From<OneOrThree> for [f32; 3] {
    fn from(value: OneOrThree) -> Self {
        match value {
            OneOrThree::One(value) => [value; 3],
            OneOrThree::Three(values) => values,
        }
    }
}

impl Sidecar {
    /// Reads that of a folder, or of a file's folder (or, from `Normal/`, the one above), if there is one.
    ///
    /// # Errors
    /// If it is not what it must be.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        if path == Path::new(IN_MEMORY) {
            return Ok(None);
        }
        let folder = if path.is_dir() { Some(path) } else { path.parent() };
        let whole = folder.map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_owned()));
        let above = whole.as_deref().filter(|f| f.ends_with("Normal")).and_then(Path::parent);
        for file in [folder, above].into_iter().flatten().map(|folder| folder.join(NAME)) {
            // A pipe would have to be waited for.
            if file.exists() && !file.is_file() {
                return Err(Error::format(&file, "expected a regular file"));
            }
            let mut text = Vec::new();
            let opened = std::fs::File::open(&file);
            match opened.and_then(|opened| opened.take(LONGEST + 1).read_to_end(&mut text)) {
                Ok(_) => return Self::parse(file, text).map(Some),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(&file, "cannot read")(e)),
            }
        }
        Ok(None)
    }

    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn parse(file: PathBuf, text: Vec<u8>) -> Result<Self> {
        if text.len() as u64 > LONGEST {
            return Err(Error::format(&file, format!("more than {LONGEST} bytes: it is not diver's")));
        }
        let parsed: Text = serde_json::from_str(&text::decode(&file, text)?).map_err(|e| {
            let reason = format!(
                "{e}. Expected a number or a list of three for `mean` and for `std`, as in {{\"mean\": [r, g, b], \"std\": \
                 [r, g, b]}}, and beside them at most `values` and `classes`"
            );
            Error::format(&file, reason)
        })?;
        let of_file = |e: Error| Error::format(&file, e.to_string());
        let normalize = Normalize::new(parsed.mean.into(), parsed.std.into()).map_err(of_file)?;
        let values = parsed.values.map(|name| name.parse()).transpose().map_err(of_file)?;
        if let Some(classes) = &parsed.classes {
            classes.check(&file)?;
        }
        Ok(Self { file, normalize, values, classes: parsed.classes })
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        let text = Text {
            mean: OneOrThree::Three(self.normalize.mean),
            std: OneOrThree::Three(self.normalize.std),
            values: self.values.map(|values| values.as_str().to_owned()),
            classes: self.classes.clone(),
        };
        let json = serde_json::json!(text);
        std::fs::write(&self.file, format!("{json}\n")).map_err(Error::io(&self.file, "cannot write"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let classes = r#"{"count": 2, "names": ["a", "b"], "indices": [3, 1]}"#;
        let written = Sidecar {
            file: folder.path().join(NAME),
            normalize: Normalize::new([0.1, 0.2, 0.3], [0.5; 3]).unwrap(),
            values: Some(Values::Whitened),
            classes: Some(ClassList::from_json(Path::new("x"), classes).unwrap()),
        };
        written.write().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("images_best.pt")] {
            let read = Sidecar::read(&path).unwrap().unwrap();
            assert_eq!(
                (read.normalize, read.values, read.classes),
                (written.normalize, written.values, written.classes.clone())
            );
        }
        std::fs::create_dir(folder.path().join("Normal")).unwrap();
        assert!(Sidecar::read(&folder.path().join("Normal/images_best.pt")).unwrap().is_some());
        std::fs::create_dir(folder.path().join("other")).unwrap();
        assert!(Sidecar::read(&folder.path().join("other")).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NAME);
        for (text, reason) in [
            (r#"{"mean": 0.5}"#.to_owned(), "missing field `std`"),
            (r#"{"mean": 0.5, "std": 0}"#.into(), "std"),
            (r#"{"mean": 0.5, "std": 1, "values": "raw"}"#.into(), "`raw` is not one of normalized, unit"),
            (r#"{"mean": 0.5, "std": 1, "classes": {"count": 2, "names": []}}"#.into(), "0 names for 2"),
            (r#"{"mean": 0.5, "std": 1, "classes": 10}"#.into(), "invalid type"),
            (format!("{{\"mean\": 0.5, \"std\": 1}}{}", " ".repeat(LONGEST as usize)), "more than"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = Sidecar::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(NAME) && error.contains(reason), "{error}");
        }
    }
}

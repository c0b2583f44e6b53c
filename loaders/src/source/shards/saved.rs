//! The folders that `datasets` saves: which files are the set, by the JSON files beside them.

use super::wanted;
use crate::source::place::Folder;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The most bytes of a file that `datasets` writes of a folder that it saves.
const LONGEST: u64 = 1 << 24;

/// What `Dataset.save_to_disk` says of a folder.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    data: Vec<SavedFile>,
    #[serde(rename = "_indices_files", alias = "_indices_data_files", default)]
    indices: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct SavedFile {
    filename: String,
}

/// What `DatasetDict.save_to_disk` says of a folder.
#[derive(Deserialize)]
struct Dict {
    splits: Vec<String>,
}

/// The files of a folder that `datasets` saved, in their order; none of another folder.
///
/// # Errors
/// If there are several splits, of which `split` names none; if what `datasets` says of them is damaged.
pub(in crate::source) fn saved(folder: &Folder, split: Option<&str>) -> Result<Option<Vec<PathBuf>>> {
    if !folder.has_file("dataset_dict.json") && !folder.has_file("state.json") {
        return Ok(None);
    }
    let folder = folder.path();
    if let Some(dict) = json(&folder.join("dataset_dict.json"))? {
        let file = folder.join("dataset_dict.json");
        let damaged = |reason: String| Error::format(&file, format!("not as `datasets` writes it: {reason}"));
        let dict: Dict = serde_json::from_value(dict).map_err(|e| damaged(e.to_string()))?;
        let splits: Vec<&str> = dict.splits.iter().map(String::as_str).collect();
        if let Some(odd) = splits.iter().find(|split| !is_plain(split)) {
            return Err(damaged(format!("`{odd}` is no name of a split")));
        }
        let wanted = wanted(&splits, split, "datasets").map_err(|reason| match split {
            Some(split) => Error::config("split", format!("`{split}`: {}: {reason}", folder.display())),
            None => Error::format(folder, reason),
        })?;
        let inner = folder.join(wanted);
        let files = state(&inner)?;
        return files
            .map(Some)
            .ok_or_else(|| Error::format(&inner, "state.json is missing: save the set again"));
    }
    // Of one split, with or without its name.
    state(folder)
}

fn state(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let file = folder.join("state.json");
    // Other tools' states are called so, too.
    let Some(state) = json(&file)?.filter(|state| state.get("_data_files").is_some()) else {
        return Ok(None);
    };
    let damaged = |reason: String| Error::format(&file, format!("not as `datasets` writes it: {reason}"));
    let state: State = serde_json::from_value(state).map_err(|e| damaged(e.to_string()))?;
    if state.indices.is_some_and(|indices| !indices.is_empty()) {
        let reason = "the rows are chosen by a second table: call flatten_indices() and save the set again";
        return Err(Error::format(&file, reason));
    }
    if let Some(odd) = state.data.iter().find(|data| !is_plain(&data.filename)) {
        return Err(damaged(format!("`{}` is no name of a file in this folder", odd.filename)));
    }
    if state.data.is_empty() {
        return Err(damaged("it lists no files".into()));
    }
    Ok(Some(state.data.into_iter().map(|data| folder.join(data.filename)).collect()))
}

/// Whether a name stays in its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != ".."
}

/// A JSON file; none if there is none, or it is damaged.
fn json(file: &Path) -> Result<Option<serde_json::Value>> {
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= LONGEST => {
            let text = std::fs::read(file).map_err(Error::io(file, "cannot read"))?;
            Ok(serde_json::from_slice(&text).ok())
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_datasets_saves_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(saved(&Folder::list(folder.path()).unwrap(), None).unwrap(), None);
        write("state.json", r#"{"epoch": 3}"#);
        assert_eq!(saved(&Folder::list(folder.path()).unwrap(), None).unwrap(), None, "another tool's");
        write("state.json", r#"{"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}"#);
        let files = saved(&Folder::list(folder.path()).unwrap(), None).unwrap().unwrap();
        assert_eq!(files, ["b.arrow", "a.arrow"].map(|name| folder.path().join(name)));
        for text in [
            r#"{"_data_files": [{"filename": "../a.arrow"}]}"#,
            r#"{"_data_files": []}"#,
            r#"{"_data_files": [{"filename": "a.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}"#,
        ] {
            write("state.json", text);
            let error = saved(&Folder::list(folder.path()).unwrap(), None).unwrap_err().to_string();
            assert!(error.contains("state.json"), "{error}");
        }
        write("dataset_dict.json", r#"{"splits": [".."]}"#);
        assert!(saved(&Folder::list(folder.path()).unwrap(), None).unwrap_err().to_string().contains("`..`"));
        write("dataset_dict.json", r#"{"splits": ["train"]}"#);
        assert!(
            saved(&Folder::list(folder.path()).unwrap(), None)
                .unwrap_err()
                .to_string()
                .contains("state.json is missing")
        );
    }
}

//! The refined images of one fingerprint.

use super::folder::Folder;
use super::part::{self, Part};
use super::{Fingerprint, Row, RowKey};
use crate::{Error, Result, RgbImage};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The refined images that share a fingerprint: found by key, read one at a time, added a part at a time.
/// Usable from several threads; other processes may add to the same folder meanwhile.
#[derive(Debug)]
pub struct Generation {
    folder: Folder,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    rows: HashMap<RowKey, Location>,
    parts: HashMap<u64, Arc<Part>>,
}

#[derive(Clone, Copy, Debug)]
struct Location {
    part: u64,
    row: usize,
}

impl Generation {
    pub(super) fn open(root: &Path, fingerprint: &Fingerprint) -> Result<Self> {
        const NAME: &str = "fingerprint.json";
        let folder = Folder::create(root.join(fingerprint.folder_name()))?;
        let path = folder.path().join(NAME);
        match std::fs::read_to_string(&path) {
            Ok(found) if found.trim_end() == fingerprint.as_json() => {}
            Ok(_) => {
                let reason = "describes other refinements than this folder's name: move the folder away";
                return Err(Error::format(&path, reason));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                folder.write_file(NAME, format!("{}\n", fingerprint.as_json()).as_bytes())?;
            }
            Err(e) => return Err(Error::io(&path, "cannot read")(e)),
        }
        let generation = Self { folder, index: Mutex::default() };
        generation.refresh()?;
        Ok(generation)
    }

    /// The folder of this fingerprint.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.lock().rows.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is an image for `key`, as of the last [`refresh`](Self::refresh).
    pub fn contains(&self, key: &RowKey) -> bool {
        self.lock().rows.contains_key(key)
    }

    /// Takes note of the parts that other processes have committed since. A damaged part is set aside as
    /// `part-N.corrupt` with a warning: its images count as missing.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn refresh(&self) -> Result<()> {
        for number in self.folder.parts()? {
            if self.lock().parts.contains_key(&number) {
                continue;
            }
            match Part::open(self.folder.part_path(number)) {
                Ok(part) => self.lock().add(number, part),
                Err(error) => self.set_aside(number, &error)?,
            }
        }
        Ok(())
    }

    /// The image for `key`; `None` if there is none, or if its part turns out to be gone or damaged (then the
    /// whole part is set aside with a warning).
    ///
    /// # Errors
    /// If a damaged part cannot be set aside.
    pub fn get(&self, key: &RowKey) -> Result<Option<RgbImage>> {
        let (location, part) = {
            let index = self.lock();
            let Some(location) = index.rows.get(key).copied() else { return Ok(None) };
            let Some(part) = index.parts.get(&location.part) else { return Ok(None) };
            (location, Arc::clone(part))
        };
        match part.read(location.row) {
            Ok(image) => Ok(Some(image)),
            Err(error) => self.set_aside(location.part, &error).map(|()| None),
        }
    }

    /// Commits `rows` as one part, durable when the call returns. `class_names` name the labels.
    ///
    /// # Errors
    /// If the part cannot be written; then nothing of it is left behind.
    pub fn commit(&self, rows: &[Row], class_names: &[String]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let number = self.folder.commit_part(&part::encode(rows, class_names)?)?;
        // Parts of other processes with lower numbers come first: the first committed row of a key wins.
        self.refresh()?;
        tracing::debug!(part = number, rows = rows.len(), "committed");
        Ok(())
    }

    fn set_aside(&self, number: u64, error: &Error) -> Result<()> {
        self.lock().remove(number);
        if matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound) {
            return Ok(()); // Deleted by someone: its images are missing, nothing is damaged.
        }
        let aside = self.folder.quarantine(number)?;
        tracing::warn!("{error}; set aside as {}; its images will be refined again", aside.display());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Every update leaves the index whole, so a panic elsewhere does not spoil it.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Parts are added in the order of their numbers, so the first committed row of a key stays.
    fn add(&mut self, number: u64, part: Part) {
        for (row, key) in part.keys().iter().enumerate() {
            self.rows.entry(*key).or_insert(Location { part: number, row });
        }
        self.parts.insert(number, Arc::new(part));
    }

    fn remove(&mut self, number: u64) {
        self.parts.remove(&number);
        self.rows.retain(|_, location| location.part != number);
    }
}

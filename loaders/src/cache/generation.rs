//! The refined images of one fingerprint.

use super::folder::Folder;
use super::part::{self, Part};
use super::{Fingerprint, Row, RowKey};
use crate::{Error, Result, RgbImage};
use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// By number: of two rows with one key, that of the first part counts.
    parts: BTreeMap<u64, Arc<Part>>,
    /// Damaged parts that could not be renamed: they are not looked at again.
    skipped: HashSet<u64>,
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
    /// If the folder cannot be listed, or a part cannot be opened.
    pub fn refresh(&self) -> Result<()> {
        for number in self.folder.parts()? {
            if self.lock().knows(number) {
                continue;
            }
            match Part::open(self.folder.part_path(number)) {
                Ok(part) => self.lock().add(number, part),
                Err(error) => self.give_up(number, error)?,
            }
        }
        Ok(())
    }

    /// The image for `key`; `None` if there is none, or if every part that has it turns out to be gone or damaged. (A
    /// damaged part is set aside whole, with a warning.)
    ///
    /// # Errors
    /// If the system refuses to read the part, which says nothing about what is in it.
    pub fn get(&self, key: &RowKey) -> Result<Option<RgbImage>> {
        loop {
            // The lock is not held while the part is read.
            let found = self.lock().find(key);
            let Some((number, row, part)) = found else { return Ok(None) };
            match part.read(row) {
                Ok(image) => return Ok(Some(image)),
                Err(error) => self.give_up(number, error)?,
            }
        }
    }

    /// Finds out whether rows could be committed, before they are refined: the folder of a cache that is only read may be
    /// another user's.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn check_writable(&self) -> Result<()> {
        self.folder.check_writable()
    }

    /// Commits `rows` as one part, durable when the call returns, as far as the file system can make it so.
    /// `class_names` name the labels. Returns the keys that another process committed first: its images are the ones
    /// that stay.
    ///
    /// # Errors
    /// If the part cannot be written; then nothing of it is left behind.
    pub fn commit(&self, rows: &[Row], class_names: &[String]) -> Result<Vec<RowKey>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let number = self.folder.commit_part(&part::encode(rows, class_names)?)?;
        tracing::debug!(part = number, rows = rows.len(), "committed");
        // Parts of other processes with lower numbers come first. The part is there whether it is seen or not.
        if let Err(error) = self.refresh() {
            tracing::warn!("{error}; new parts are not seen yet");
        }
        let index = self.lock();
        let is_elsewhere = |key: &RowKey| index.rows.get(key).is_some_and(|location| location.part != number);
        Ok(rows.iter().map(|row| row.key).filter(is_elsewhere).collect())
    }

    /// Does without part `number`, if `error` says that it is gone or damaged.
    fn give_up(&self, number: u64, error: Error) -> Result<()> {
        match &error {
            // Deleted by someone: its images are missing, nothing is damaged.
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                self.lock().remove(number);
            }
            // No descriptors left, no permission, a network that is down: the part may be sound.
            Error::Io { .. } => return Err(error),
            _ => {
                self.lock().remove(number);
                match self.folder.quarantine(number) {
                    Ok(aside) => tracing::warn!(
                        "{error}; set aside as {}; its images will be refined again",
                        aside.display()
                    ),
                    Err(refused) => {
                        tracing::warn!("{error}; {refused}; its images will be refined again");
                        self.lock().skipped.insert(number);
                    }
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Every update leaves the index whole, so a panic elsewhere does not spoil it.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn knows(&self, number: u64) -> bool {
        self.parts.contains_key(&number) || self.skipped.contains(&number)
    }

    /// Where the row of `key` is: its part, with the part's number, and its place in it.
    fn find(&self, key: &RowKey) -> Option<(u64, usize, Arc<Part>)> {
        let Location { part: number, row } = *self.rows.get(key)?;
        Some((number, row, Arc::clone(self.parts.get(&number)?)))
    }

    /// Parts are added in the order of their numbers, so the first committed row of a key stays.
    fn add(&mut self, number: u64, part: Part) {
        self.index(number, &part);
        self.parts.insert(number, Arc::new(part));
    }

    fn index(&mut self, number: u64, part: &Part) {
        for (row, key) in part.keys().iter().enumerate() {
            self.rows.entry(*key).or_insert(Location { part: number, row });
        }
    }

    /// Other parts may have rows of the same keys, which count from now on.
    fn remove(&mut self, number: u64) {
        self.parts.remove(&number);
        self.rows.retain(|_, location| location.part != number);
        let rows: usize = self.parts.values().map(|part| part.keys().len()).sum();
        if rows > self.rows.len() {
            for (number, part) in self.parts.clone() {
                self.index(number, &part);
            }
        }
    }
}

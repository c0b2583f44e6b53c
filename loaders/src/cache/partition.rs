//! The rows of one fingerprint.

use super::artifact::{Artifact, ImageForm, ImageRow};
use super::index::{Index, Location};
use super::lease::{self, Leases};
use super::pages::Pages;
use super::part::{self, Opened, Part};
use super::store::PartStore;
use super::upkeep::{self, Gathering};
use super::{Cache, Fingerprint, RowKey};
use crate::options::Amount;
use crate::{Error, Result};
use bytes::Bytes;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) const FINGERPRINT: &str = "fingerprint.json";
/// A file with the name of the last gathering of parts, written before any of them is deleted.
pub(super) const GATHERED: &str = "gathered";
/// A file whose age tells when the partition was last used.
pub(super) const USED: &str = "used";

/// The age of that file is exact to so much.
const STAMP: Duration = Duration::from_secs(300);
/// How many commits of a process there are between two looks at the size of the whole cache.
const LOOKS: u32 = 32;

/// How often a row is looked for that is moved, or damaged, time and again.
const MOST_TRIES: usize = 64;

/// Listing a folder takes at most one part in so many of a process's time.
const LISTING: u32 = 20;
const SHORTEST_BREAK: Duration = Duration::from_secs(1);

/// The rows that share a fingerprint, refined images unless said otherwise: found by key, read one at a time, added a
/// part at a time. Usable from several threads; other processes may add to the same folder meanwhile.
#[derive(Debug)]
pub struct Partition<A: Artifact = ImageRow> {
    cache: Cache,
    folder: String,
    fingerprint: Fingerprint,
    index: Mutex<Index>,
    listing: Mutex<Listed>,
    pages: Mutex<Pages>,
    leases: Leases,
    commits: AtomicU32,
    /// Whether the last look at what others have committed failed.
    is_blind: AtomicBool,
    gathering: Gathering,
    artifact: PhantomData<fn() -> A>,
}

impl<A: Artifact> Partition<A> {
    /// Opens the partition of a cache with this fingerprint.
    pub(super) fn open(cache: &Cache, fingerprint: &serde_json::Value) -> Result<Self> {
        Self::open_as(cache, Fingerprint::new(fingerprint))
    }

    fn open_as(cache: &Cache, fingerprint: Fingerprint) -> Result<Self> {
        let folder = fingerprint.folder_name();
        let store = Arc::clone(&cache.store);
        match store.make_folder(&folder) {
            // A cache that is only read lacks what nobody has refined.
            Err(error) if is_denied(&error) => {}
            other => other?,
        }
        let leases = Leases::new(store, &folder, cache.options.lease_expiry.0);
        let partition = Self {
            cache: cache.clone(),
            folder,
            fingerprint,
            index: Mutex::default(),
            listing: Mutex::new(Listed { next: Instant::now(), gathered: Bytes::new() }),
            pages: Mutex::default(),
            leases,
            commits: AtomicU32::new(0),
            is_blind: AtomicBool::new(false),
            gathering: Gathering::default(),
            artifact: PhantomData,
        };
        partition.check_fingerprint()?;
        partition.list()?;
        Ok(partition)
    }

    fn check_fingerprint(&self) -> Result<()> {
        let name = self.name(FINGERPRINT);
        let json = format!("{}\n", self.fingerprint.as_json());
        let found = match self.store().get(&name) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                match self.store().put_if_absent(&name, json.as_bytes()) {
                    Ok(true) => return Ok(()),
                    Ok(false) => self.store().get(&name)?,
                    // As above. Whoever commits rows is told.
                    Err(error) if is_denied(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            other => other?,
        };
        if serde_json::from_slice::<serde_json::Value>(&found).is_err() {
            let path = self.store().place(&name);
            tracing::warn!("{}: it was damaged, and is written again", path.display());
            return self.store().put(&name, json.as_bytes());
        }
        if found.trim_ascii_end() == self.fingerprint.as_json().as_bytes() {
            return Ok(());
        }
        let reason =
            "it was changed, and does not match the name of its folder: restore it, or move the folder away";
        Err(Error::format(&self.store().place(&name), reason))
    }

    /// The folder of this fingerprint, as users call it.
    pub fn path(&self) -> PathBuf {
        self.store().place(&self.folder)
    }

    /// Number of rows, each key once.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a row for `key`, as of the last [`refresh`](Self::refresh).
    pub fn contains(&self, key: &RowKey) -> bool {
        self.lock().contains(key)
    }

    /// Takes note of the parts that other processes have committed since. A damaged part is set aside as
    /// `part-N.corrupt` with a warning: its rows count as missing.
    ///
    /// This takes as long as there are new parts, however many are known: parts are numbered, and the next numbers are
    /// tried. What that does not find, as where a part was set aside or several were gathered in one, the whole folder
    /// tells, which is listed now and then.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a part cannot be opened.
    pub fn refresh(&self) -> Result<()> {
        if self.gathered()? != self.listing().gathered {
            return self.list();
        }
        loop {
            let next = self.lock().next();
            if !self.look_at(next)? {
                break;
            }
        }
        let next = self.listing().next;
        if Instant::now() >= next { self.list() } else { Ok(()) }
    }

    /// Refreshes, if the store can be read: of what is not seen, nothing is lost but the right to be first. Warns once
    /// until it can be read again.
    pub(crate) fn try_refresh(&self) {
        self.try_to_see(self.refresh());
    }

    /// As [`try_refresh`](Self::try_refresh), however short ago it was listed.
    pub(crate) fn try_list(&self) {
        self.try_to_see(self.list());
    }

    fn try_to_see<T>(&self, seen: Result<T>) {
        let was_blind = self.is_blind.swap(seen.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (seen, was_blind) {
            tracing::warn!(
                "{error}; images that other processes refine are not seen until it can be read again"
            );
        }
    }

    /// Takes note that the partition is used, if that can be written.
    pub(super) fn stamp(&self) {
        let name = self.name(USED);
        if self.store().stat(&name).is_ok_and(|stat| stat.is_none_or(|stat| stat.age > STAMP)) {
            let _ = self.store().put(&name, b"");
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn PartStore> {
        &self.cache.store
    }

    /// How new images are stored.
    pub(crate) fn image_form(&self) -> ImageForm {
        self.cache.options.image_form
    }

    /// The name of its folder.
    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    /// The numbers of the parts in use, ascending.
    pub(super) fn parts(&self) -> Vec<u32> {
        self.lock().parts().collect()
    }

    /// The files that are there and cannot be used.
    pub(super) fn skipped(&self) -> Vec<PathBuf> {
        self.lock().skipped().map(|number| self.store().place(&self.part_name(number))).collect()
    }

    /// Number of parts that are as they were committed.
    pub(super) fn fresh_parts(&self) -> usize {
        self.lock().fresh()
    }

    pub(super) fn gathering(&self) -> &Gathering {
        &self.gathering
    }

    /// Opens the partition once more, as another process would.
    pub(super) fn reopener(&self) -> impl FnOnce() -> Result<Self> + Send + use<A> {
        let (cache, fingerprint) = (self.cache.clone(), self.fingerprint.clone());
        move || Self::open_as(&cache, fingerprint)
    }

    /// Does without a part that is deleted.
    pub(super) fn forget(&self, number: u32) {
        self.pages().remove(number);
        self.lock().remove(number);
    }

    /// Takes note of all parts, and of those that are gone.
    pub(super) fn list(&self) -> Result<()> {
        let started = Instant::now();
        let gathered = self.gathered()?;
        // A folder that is listed while parts are gathered may show neither them nor what they became.
        let is_first = self.lock().parts().next().is_none();
        let mut is_stable = !is_first;
        while !self.list_once()? || !is_stable {
            is_stable = true;
        }
        let pause = SHORTEST_BREAK.max(started.elapsed() * LISTING);
        *self.listing() = Listed { next: Instant::now() + pause, gathered };
        Ok(())
    }

    /// Opens parts that are new, several at a time where the store is far away: a part is one request.
    fn open_all(&self, numbers: &[u32]) -> Vec<(u32, Result<Opened>)> {
        let open = |number: &u32| (*number, part::open(self.store(), &self.part_name(*number)));
        let threads = self.store().parallel().min(numbers.len());
        if threads <= 1 {
            return numbers.iter().map(open).collect();
        }
        std::thread::scope(|scope| {
            let each = numbers.len().div_ceil(threads);
            let shares: Vec<_> = numbers
                .chunks(each)
                .map(|share| scope.spawn(move || share.iter().map(open).collect::<Vec<_>>()))
                .collect();
            // A decoder that panics is caught where it is called.
            shares.into_iter().filter_map(|share| share.join().ok()).flatten().collect()
        })
    }

    /// Lists the folder once; says whether every part is still there that was seen until now.
    fn list_once(&self) -> Result<bool> {
        let mut there = Vec::new();
        for name in self.store().list(&self.folder)? {
            match number(&name) {
                Some((number, true)) => there.push(number),
                // Set aside: the number stays taken.
                Some((number, false)) => self.lock().take(number),
                None => {}
            }
        }
        there.sort_unstable();
        let known: Vec<u32> = self.lock().parts().collect();
        let mut are_all_there = true;
        for gone in known.into_iter().filter(|number| there.binary_search(number).is_err()) {
            self.lock().remove(gone);
            are_all_there = false;
        }
        there.retain(|number| !self.lock().knows(*number));
        for (number, opened) in self.open_all(&there) {
            are_all_there &= self.note(number, opened)?;
        }
        Ok(are_all_there)
    }

    /// Takes note of part `number`, if it is there; says whether it was.
    fn look_at(&self, number: u32) -> Result<bool> {
        self.note(number, part::open(self.store(), &self.part_name(number)))
    }

    /// Takes note of what opening part `number` found; says whether it was there.
    fn note(&self, number: u32, opened: Result<Opened>) -> Result<bool> {
        match opened {
            Ok(Opened::Part(part)) => self.lock().add(number, part),
            Ok(Opened::Newer(version)) => {
                let path = self.store().place(&self.part_name(number));
                tracing::warn!(
                    "{}: written in format {version} of diver's cache, which this version cannot read: its rows count \
                     as missing; update diver to use them",
                    path.display()
                );
                self.lock().skip(number);
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => self.give_up(number, error)?,
        }
        Ok(true)
    }

    /// The value under `key`; `None` if there is none, or if every part that has it turns out to be gone or damaged. (A
    /// damaged part is set aside whole, with a warning.)
    ///
    /// # Errors
    /// If the system refuses to read the part, which says nothing about what is in it.
    pub fn get(&self, key: &RowKey) -> Result<Option<A::Value>> {
        for _ in 0..MOST_TRIES {
            // The lock is not held while the part is read.
            let found = self.lock().find(key);
            let Some(location) = found else { return Ok(None) };
            match self.read(key, location) {
                Ok(value) => return Ok(Some(value)),
                Err(error) => self.give_up(location.part, error)?,
            }
        }
        Ok(None)
    }

    fn read(&self, key: &RowKey, location: Location) -> Result<A::Value> {
        let name = self.part_name(location.part);
        let known = self.pages().get(location.part);
        let pages = match known {
            Some(pages) => pages,
            None => {
                let pages = part::rows(self.store(), &name)?;
                self.pages().insert(location.part, pages.clone());
                pages
            }
        };
        part::read::<A>(self.store(), &name, &pages, location.row as usize, key)
    }

    /// Finds out whether rows could be committed, before they are made: the folder of a cache that is only read may be
    /// another user's.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn check_writable(&self) -> Result<()> {
        self.store().check_writable(&self.folder)
    }

    /// Commits `rows` as one part, durable when the call returns, as far as the store can make it so. `class_names` name
    /// the labels. Returns the keys that another process committed first: its rows are the ones that stay.
    ///
    /// # Errors
    /// If the part cannot be written; then nothing of it is left behind.
    pub fn commit(&self, rows: &[A], class_names: &[String]) -> Result<Vec<RowKey>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = part::encode(rows, class_names)?;
        let keys: Vec<RowKey> = rows.iter().map(Artifact::key).collect();
        let number = self.commit_bytes(&bytes, Part { keys: keys.clone(), orders: None })?;
        tracing::debug!(part = number, rows = rows.len(), "committed");
        self.keep_within();
        self.gather_if_due();
        let index = self.lock();
        let is_elsewhere = |key: &RowKey| index.find(key).is_some_and(|location| location.part != number);
        Ok(keys.into_iter().filter(is_elsewhere).collect())
    }

    /// Makes room for what is written, now and then.
    fn keep_within(&self) {
        let Some(Amount(limit)) = self.cache.options.limit else { return };
        if self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS)
            && let Err(error) = upkeep::keep_within(&**self.store(), limit, &self.folder)
        {
            tracing::warn!("{error}; the cache may grow beyond {limit} bytes");
        }
    }

    /// Who is working on what, here and in other processes.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Commits a part, and returns its number, which follows every number ever taken: numbers order parts by commit.
    pub(super) fn commit_bytes(&self, bytes: &[u8], part: Part) -> Result<u32> {
        self.try_refresh();
        // The whole folder may have been deleted.
        self.check_fingerprint()?;
        loop {
            let mut number = self.lock().next();
            while !self.store().put_if_absent(&self.part_name(number), bytes)? {
                // Another process took the number between our look and our claim; what it committed comes first.
                self.try_to_see(self.look_at(number));
                number = self.lock().next().max(number + 1);
            }
            // Where parts were gathered meanwhile, the number may have been one of theirs, which those who knew that part
            // do not look at again: then a higher number is there, and the rows are committed once more.
            if self.gathered().is_ok_and(|gathered| gathered != self.listing().gathered) {
                self.try_to_see(self.list());
                if self.lock().next() > number + 1 {
                    continue;
                }
            }
            self.lock().remove(number);
            self.lock().add(number, part);
            return Ok(number);
        }
    }

    /// Has other processes list the folder, before parts are deleted.
    pub(super) fn tell_gathered(&self) -> Result<()> {
        self.store().put(&self.name(GATHERED), lease::unique().as_bytes())
    }

    /// The name of the last gathering.
    fn gathered(&self) -> Result<Bytes> {
        match self.store().get(&self.name(GATHERED)) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Bytes::new()),
            other => other,
        }
    }

    /// Does without part `number`, if `error` says that it is gone or damaged.
    pub(super) fn give_up(&self, number: u32, error: Error) -> Result<()> {
        self.pages().remove(number);
        if matches!(error, Error::Format { .. }) {
            match part::sound::<A>(self.store(), &self.part_name(number)) {
                Ok(part) => {
                    // It was replaced while it was read: its number was free for a moment, and another part has it now.
                    self.lock().remove(number);
                    self.lock().add(number, part);
                    return self.list();
                }
                // A store that fails says nothing of what is in it; one that is gone is no damage.
                Err(unread @ Error::Io { .. }) => return self.give_up(number, unread),
                Err(_) => {}
            }
        }
        if matches!(part::open(self.store(), &self.part_name(number)), Ok(Opened::Newer(_))) {
            // Not damaged, but for a version that can read it.
            self.lock().skip(number);
            return self.list();
        }
        match &error {
            // Gathered with others into one, or deleted by someone: its rows are elsewhere, or missing.
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                self.lock().remove(number);
                self.list_once()?;
                return self.list();
            }
            // No descriptors left, no permission, a network that is down: the part may be sound.
            Error::Io { .. } => return Err(error),
            _ => {}
        }
        self.lock().remove(number);
        let aside = self.name(&format!("part-{number:08}.corrupt"));
        // Its number stays taken, so that no reader can mistake a later part for it.
        match self.store().rename(&self.part_name(number), &aside) {
            Ok(()) => {
                self.lock().take(number);
                let aside = self.store().place(&aside);
                tracing::warn!("{error}; set aside as {}; its rows will be made again", aside.display());
            }
            Err(refused) => {
                tracing::warn!("{error}; {refused}; its rows will be made again");
                self.lock().skip(number);
            }
        }
        Ok(())
    }

    fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    pub(super) fn part_name(&self, number: u32) -> String {
        self.name(&format!("part-{number:08}.parquet"))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Every update leaves the index whole, so a panic elsewhere does not spoil it.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listing(&self) -> MutexGuard<'_, Listed> {
        // As the index.
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // As the index.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error says that a store is only to be read.
fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. }
        if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
}

/// The last listing of the whole folder.
#[derive(Debug)]
struct Listed {
    /// When it is to be listed again.
    next: Instant,
    /// The last gathering that it showed.
    gathered: Bytes,
}

/// The number in a part's name, and whether the part is in use; `None` of other names.
pub(super) fn number(name: &str) -> Option<(u32, bool)> {
    let (stem, extension) = name.strip_prefix("part-")?.split_once('.')?;
    let number: u32 = stem.parse().ok()?;
    // A file of a user's own, which would not be found again by its number.
    if format!("{number:08}") != stem {
        return None;
    }
    match extension {
        "parquet" => Some((number, true)),
        "corrupt" => Some((number, false)),
        _ => None,
    }
}

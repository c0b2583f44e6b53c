//! One file on its way into the cache: gone on with where it stopped, and checked before it counts as there.

use super::Options;
use super::cache::{Cache, Lock, make_parent};
use super::client::{Client, Fault, Metadata, fault};
use crate::Error;
use indicatif::ProgressBar;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// A file of a commit.
pub(super) struct Wanted<'a> {
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    pub(super) metadata: Metadata,
}

/// Brings a blob into the cache, unless it is there.
pub(super) fn fetch(
    client: &Client<'_>,
    cache: &Cache,
    wanted: &Wanted<'_>,
    options: &Options,
    bar: &ProgressBar,
) -> Result<(), Fault> {
    let Wanted { metadata: Metadata { etag, size }, .. } = wanted;
    let blob = cache.blob(etag);
    // Checked when it came, so that its length is enough to tell.
    let is_there = || fs::metadata(&blob).is_ok_and(|found| size.is_none_or(|size| size == found.len()));
    let position = bar.position();
    let lock = cache.lock(etag, options, is_there).map_err(Fault::Here)?;
    if let Some(lock) = lock
        && !is_there()
    {
        bring(client, &blob, &lock, wanted, options, bar, is_there)?;
    }
    bar.set_position(position + size.unwrap_or_default());
    Ok(())
}

/// Downloads a blob next to its place, and puts it there.
fn bring(
    client: &Client<'_>,
    blob: &Path,
    lock: &Lock,
    wanted: &Wanted<'_>,
    options: &Options,
    bar: &ProgressBar,
    is_there: impl Fn() -> bool,
) -> Result<(), Fault> {
    make_parent(blob).map_err(Fault::Here)?;
    let mut part = if lock.is_exclusive() { Part::open(blob, wanted) } else { Part::open_own(blob, wanted) }?;
    bar.inc(part.length);
    // What was there came at no speed.
    bar.reset_eta();
    part.complete(client, wanted, options, bar)?;
    part.put(blob, is_there)
}

/// A file that is not whole yet, with the hash of what it holds.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Option<Context>,
    /// Whether no other process knows it: then none would go on with it.
    is_own: bool,
}

impl Part {
    /// The one that every process goes on with, as Python does.
    fn open(blob: &Path, wanted: &Wanted<'_>) -> Result<Self, Fault> {
        let path = beside(blob, "incomplete");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|error| Fault::Here(Error::io(&path, "cannot open")(error)))?;
        let mut part = Self { path, file, length: 0, hash: None, is_own: false };
        part.restart(wanted, false)?;
        // What an earlier download left is read once, for the hash.
        let mut buffer = vec![0; CHUNK];
        loop {
            match part.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => part.count(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Here(Error::io(&part.path, "cannot read")(error))),
            }
        }
        if wanted.metadata.size.is_some_and(|size| part.length > size) {
            part.restart(wanted, true)?;
        }
        Ok(part)
    }

    /// An empty one for this download alone: of two that write one file, either could put it in its place while the other
    /// has holes in it.
    fn open_own(blob: &Path, wanted: &Wanted<'_>) -> Result<Self, Fault> {
        loop {
            // Machines that share a cache have processes of the same number, containers above all.
            let random = RandomState::new().hash_one(blob);
            let path = beside(blob, &format!("{}-{random:016x}.incomplete", std::process::id()));
            match File::options().create_new(true).read(true).write(true).open(&path) {
                Ok(file) => {
                    let hash = hash(&wanted.metadata);
                    return Ok(Self { path, file, length: 0, hash, is_own: true });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Fault::Here(Error::io(&path, "cannot open")(error))),
            }
        }
    }

    /// Moves it to its place. Where another process was faster, that is as good.
    fn put(mut self, blob: &Path, is_there: impl Fn() -> bool) -> Result<(), Fault> {
        match fs::rename(&self.path, blob) {
            Ok(()) => self.is_own = false,
            Err(_) if is_there() => {}
            Err(error) => return Err(Fault::Here(Error::io(blob, "cannot rename to")(error))),
        }
        Ok(())
    }

    /// Back to the first byte; with `empty`, what is there goes.
    fn restart(&mut self, wanted: &Wanted<'_>, empty: bool) -> Result<(), Fault> {
        let emptied = if empty { self.file.set_len(0) } else { Ok(()) };
        let started = emptied.and_then(|()| self.file.seek(SeekFrom::Start(0)));
        started.map_err(|error| Fault::Here(Error::io(&self.path, "cannot write")(error)))?;
        self.length = 0;
        self.hash = hash(&wanted.metadata);
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    /// Downloads what is missing, as often as it takes and the options allow, and checks the whole.
    fn complete(
        &mut self,
        client: &Client<'_>,
        wanted: &Wanted<'_>,
        options: &Options,
        bar: &ProgressBar,
    ) -> Result<(), Fault> {
        let mut is_fresh = self.length == 0;
        let mut tries = 0;
        loop {
            let before = self.length;
            let result = if wanted.metadata.size.is_some_and(|size| size == self.length) && self.length > 0 {
                Ok(())
            } else {
                self.go_on(client, wanted, options, bar)
            };
            match result {
                Ok(()) => match self.check(wanted) {
                    Err(Fault::Nonsense(_)) if !is_fresh => {
                        // The part that was there may be to blame, whoever wrote it.
                        is_fresh = true;
                        bar.dec(self.length);
                        self.restart(wanted, true)?;
                    }
                    Err(fault @ Fault::Nonsense(_)) => {
                        // Going on from bytes that are wrong would never succeed.
                        let _ = fs::remove_file(&self.path);
                        return Err(fault);
                    }
                    result => return result,
                },
                // The network was there a moment ago, so that nothing but this machine's own faults is final.
                Err(fault) if fault.may_pass() || matches!(fault, Fault::Unreachable(_)) => {
                    tries = if self.length > before { 1 } else { tries + 1 };
                    if tries > options.retries {
                        return Err(fault);
                    }
                    client.wait(tries, &fault)?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn go_on(
        &mut self,
        client: &Client<'_>,
        wanted: &Wanted<'_>,
        options: &Options,
        bar: &ProgressBar,
    ) -> Result<(), Fault> {
        let (start, body) = match client.bytes(wanted.commit, wanted.file, self.length) {
            // There is nothing after what is there already; the check will tell whether it is right.
            Err(Fault::Refused { status, .. }) if status.as_u16() == 416 && self.length > 0 => return Ok(()),
            answer => answer?,
        };
        if start != self.length {
            bar.dec(self.length);
            self.restart(wanted, true)?;
        }
        let mut reader = body.into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            options.check_cancelled().map_err(Fault::Here)?;
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(fault(error.into())),
            };
            let size = wanted.metadata.size.unwrap_or(u64::MAX);
            if count as u64 > size - self.length {
                let _ = fs::remove_file(&self.path);
                return Err(Fault::Nonsense(format!("more than the {size} bytes that it had announced")));
            }
            self.file.write_all(&buffer[..count]).map_err(|error| self.not_written(error, wanted))?;
            self.count(&buffer[..count]);
            bar.inc(count as u64);
        }
        match wanted.metadata.size {
            Some(size) if self.length < size => {
                Err(Fault::Broken(format!("it ended after {} of {size} bytes", self.length)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the file is what its name in the cache says.
    fn check(&mut self, wanted: &Wanted<'_>) -> Result<(), Fault> {
        let etag = &wanted.metadata.etag;
        if let Some(hash) = self.hash.take() {
            let bytes = hash.finish();
            let found = bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
            if found != *etag {
                return Err(Fault::Nonsense(format!("a file whose hash is {found} instead of {etag}")));
            }
        }
        self.file.sync_data().map_err(|error| self.not_written(error, wanted))
    }

    fn not_written(&self, error: std::io::Error, wanted: &Wanted<'_>) -> Fault {
        Fault::Here(not_written(&self.path, error, wanted, self.length))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_own {
            // What no one goes on with would stay for ever.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn beside(blob: &Path, ending: &str) -> PathBuf {
    let etag = blob.file_name().unwrap_or_default().to_string_lossy();
    blob.with_file_name(format!("{etag}.{ending}"))
}

fn not_written(path: &Path, error: std::io::Error, wanted: &Wanted<'_>, length: u64) -> Error {
    if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return Error::io(path, "cannot write")(error);
    }
    let needed = match wanted.metadata.size {
        Some(size) => format!("{} more MB are needed", (size - length).div_ceil(1_000_000)),
        None => "more room is needed".to_owned(),
    };
    let reason = format!(
        "the disk is full, and {needed} for {}: make room and try again, what the cache holds is not fetched again; or \
         let HF_HOME or HF_HUB_CACHE name a folder on another disk",
        wanted.file
    );
    Error::file(path, reason)
}

/// The hash that an etag of the hub is: SHA-256 of large files, Git's SHA-1 of others. Mirrors may have etags of their
/// own, which say nothing.
fn hash(metadata: &Metadata) -> Option<Context> {
    let is_hex = metadata.etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match (is_hex, metadata.etag.len(), metadata.size) {
        (true, 64, _) => Some(Context::new(&SHA256)),
        (true, 40, Some(size)) => {
            let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            hash.update(format!("blob {size}\0").as_bytes());
            Some(hash)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::sync::{Arc, Barrier};

    fn wanted(etag: &str, size: u64) -> Wanted<'static> {
        let metadata = Metadata { etag: etag.to_owned(), size: Some(size) };
        Wanted { commit: "c", file: "vae/x.safetensors", metadata }
    }

    #[test]
    fn etags_are_the_hashes_that_git_and_sha256sum_give() {
        for (etag, text) in [
            ("95d09f2b10159347eece71399a7e2e907ea3df4f", "hello world"),
            ("b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9", "hello world"),
        ] {
            let mut hash = hash(&wanted(etag, text.len() as u64).metadata).unwrap();
            hash.update(text.as_bytes());
            let found: String = hash.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(found, etag);
        }
        assert!(hash(&wanted("0-abc", 1).metadata).is_none());
    }

    /// A hub that gives one answer, once `together` requests are there.
    fn hub(answer: String, together: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new((answer, Barrier::new(together)));
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    lines.take_while(|line| !line.is_empty()).for_each(drop);
                    shared.1.wait();
                    let _ = stream.write_all(shared.0.as_bytes());
                });
            }
        });
        endpoint
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn where_there_are_no_locks_each_downloads_for_itself() {
        let (etag, text) =
            ("b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9", "hello world");
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join(etag);
        let is_there = || fs::metadata(&blob).is_ok_and(|found| found.len() == text.len() as u64);
        let bring = |endpoint: &str| {
            let mut options = Options::from_variables(|name| match name {
                "HF_HOME" => Some(folder.path().into()),
                "HF_ENDPOINT" => Some(endpoint.into()),
                _ => None,
            })
            .unwrap();
            options.retries = 0;
            let repository = "owner/name".parse().unwrap();
            let client = Client::new(&options, &repository).unwrap();
            let wanted = wanted(etag, text.len() as u64);
            bring(&client, &blob, &Lock::shared(), &wanted, &options, &ProgressBar::hidden(), is_there)
        };
        let answer =
            |text: &str| format!("HTTP/1.1 200 X\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{text}");
        // Of a process that finds locks, or of Python.
        let other = format!("{etag}.incomplete");
        fs::write(folder.path().join(&other), "hello").unwrap();

        let endpoint = hub(answer("hello"), 1);
        assert!(matches!(bring(&endpoint), Err(Fault::Broken(_))));
        assert_eq!(names(folder.path()), [&*other], "what no one goes on with does not stay");
        let endpoint = hub(answer("hullo world"), 1);
        assert!(matches!(bring(&endpoint), Err(Fault::Nonsense(_))));
        assert_eq!(names(folder.path()), [&*other]);

        let endpoint = hub(answer(text), 3);
        std::thread::scope(|scope| {
            for brought in [(); 3].map(|()| scope.spawn(|| bring(&endpoint))) {
                brought.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_to_string(&blob).unwrap(), text);
        assert_eq!(fs::read_to_string(folder.path().join(&other)).unwrap(), "hello");
        assert_eq!(names(folder.path()), [etag, &*other]);
    }

    #[test]
    fn a_blob_that_another_put_in_its_place_is_as_good() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("x");
        for open in [Part::open, Part::open_own] {
            let part = || {
                let part = open(&blob, &wanted("x", 1)).unwrap();
                fs::remove_file(&part.path).unwrap();
                part
            };
            part().put(&blob, || true).unwrap();
            let fault = part().put(&blob, || false).unwrap_err();
            let Fault::Here(error) = fault else { panic!("{fault:?}") };
            assert!(error.to_string().starts_with(&format!("{}: cannot rename to: ", blob.display())));
        }
    }

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        let full = |kind| {
            not_written(Path::new("/hub/x"), std::io::Error::from(kind), &wanted("x", 3_500_000), 1)
                .to_string()
        };
        let text = full(ErrorKind::StorageFull);
        assert!(
            text.starts_with("/hub/x: the disk is full, and 4 more MB are needed for vae/x.safetensors"),
            "{text}"
        );
        assert!(full(ErrorKind::PermissionDenied).starts_with("/hub/x: cannot write: "));
    }
}

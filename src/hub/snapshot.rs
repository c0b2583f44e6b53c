//! A repository becomes a folder: from the cache if that will do, from the hub if not.

use super::blob::{self, Wanted};
use super::cache::Cache;
use super::client::{Client, Fault};
use super::needed::{Needed, missing, needed};
use super::{Options, Part, Repository};
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// For names that may have been meant as paths, too.
const NOWHERE: &str = "is neither a folder here nor in the cache of the Hugging Face hub";

/// A part of a repository on its way into the cache. Weights are gigabytes: what is small comes first, and may be looked
/// at before the rest.
pub(crate) struct Snapshot {
    repository: Repository,
    options: Options,
    folder: PathBuf,
    /// What is to come yet; nothing where the cache serves.
    rest: Option<Rest>,
}

/// A commit of the hub, and its weights that are not in the cache.
struct Rest {
    commit: String,
    files: Vec<String>,
}

impl Snapshot {
    /// Brings the small files into the cache.
    pub(crate) fn open(repository: &Repository, part: Part, options: &Options) -> Result<Self> {
        options.check_cancelled()?;
        let cache = Cache::new(options, repository);
        let new = |folder, rest| {
            Ok(Self { repository: repository.clone(), options: options.clone(), folder, rest })
        };
        if options.offline {
            let folder = cached(repository, part, &cache).map_err(|lacks| {
                let reason = format!(
                    "{lacks}, and HF_HUB_OFFLINE is set: unset it to download it, or let HF_HOME or HF_HUB_CACHE name \
                     the cache that has it"
                );
                hub_error(repository, reason)
            });
            return new(folder?, None);
        }
        // A commit never changes.
        if let Some(folder) = repository.commit().map(|commit| cache.snapshot(commit))
            && missing(&folder, part, true).is_none()
        {
            return new(folder, None);
        }
        let client = Client::new(options, repository)?;
        let in_cache = cached(repository, part, &cache);
        let may_pass = |fault: &Fault| in_cache.is_err() && fault.may_pass();
        match client.retry(|| client.listing(), may_pass) {
            Ok((commit, listing)) => {
                let Needed { small, weights: mut files } =
                    needed(&listing, part).map_err(|reason| hub_error(repository, reason))?;
                download(&client, &cache, &commit, &small)?;
                let folder = cache.snapshot(&commit);
                files.retain(|file| !folder.join(file).exists());
                new(folder, Some(Rest { commit, files }))
            }
            Err(Fault::Here(error)) => Err(error),
            Err(fault) => {
                let reason = client.says(&fault);
                let is_gone = matches!(&fault, Fault::Refused { code, .. } if code == "RevisionNotFound");
                match in_cache {
                    Ok(folder) if !is_gone => {
                        tracing::warn!(
                            "{repository}: {reason}. What is in the cache is used, which may not be the newest: {}",
                            folder.display()
                        );
                        new(folder, None)
                    }
                    Err(lacks) if !matches!(fault, Fault::Refused { .. }) => {
                        Err(hub_error(repository, format!("{lacks}, and {reason}")))
                    }
                    _ => Err(hub_error(repository, reason)),
                }
            }
        }
    }

    /// The repository's folder in the cache.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Brings the weights into the cache, too.
    pub(crate) fn complete(self) -> Result<PathBuf> {
        let Some(Rest { commit, files }) = &self.rest else { return Ok(self.folder) };
        let cache = Cache::new(&self.options, &self.repository);
        download(&Client::new(&self.options, &self.repository)?, &cache, commit, files)?;
        // A part alone does not take the place of an older commit that is all there: offline, that one is looked for.
        let is_whole = |folder: &Path| missing(folder, Part::Backbone, false).is_none();
        let older = cache.commit(&self.repository).map(|commit| cache.snapshot(&commit));
        if !older.is_some_and(|older| is_whole(&older) && !is_whole(&self.folder))
            && let Err(error) = cache.note(&self.repository, commit)
        {
            // A cache that cannot be written serves as well, while the hub can be asked.
            tracing::debug!("{error}");
        }
        Ok(self.folder)
    }

    /// An error about a file of this folder as one of the repository, by whose name the user knows it.
    pub(crate) fn by_name(&self, error: Error) -> Error {
        let (path, reason) = match &error {
            Error::File { path, reason } => (path, reason.as_str()),
            Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                (path, "is not in the repository, and is needed")
            }
            _ => return error,
        };
        match path.strip_prefix(&self.folder) {
            Ok(file) if file == Path::new("") => hub_error(&self.repository, reason.to_owned()),
            Ok(file) => hub_error(&self.repository, format!("{}: {reason}", file.display())),
            Err(_) => error,
        }
    }
}

/// The snapshot that the cache has of the revision, if all of `part` is there; or what is wrong with it, in words.
fn cached(repository: &Repository, part: Part, cache: &Cache) -> Result<PathBuf, String> {
    let commit = cache.commit(repository).ok_or_else(|| NOWHERE.to_owned())?;
    let folder = cache.snapshot(&commit);
    if !folder.is_dir() {
        return Err(NOWHERE.to_owned());
    }
    match missing(&folder, part, false) {
        None => Ok(folder),
        Some(file) => Err(format!("is in the cache without {file}")),
    }
}

/// Brings those of `files` into the cache that are not there.
fn download(client: &Client<'_>, cache: &Cache, commit: &str, files: &[String]) -> Result<()> {
    let (repository, options) = (client.repository(), client.options());
    let folder = cache.snapshot(commit);
    let in_words = |file: &str, fault: Fault| match fault {
        Fault::Here(error) => error,
        fault => hub_error(repository, format!("{file}: {}", client.says(&fault))),
    };
    // First what there is to do, so that the bar knows its end.
    let mut to_do = Vec::new();
    for file in files.iter().filter(|file| !folder.join(file).exists()) {
        let metadata = client.retry(|| client.metadata(commit, file), Fault::may_pass);
        let metadata = metadata.map_err(|fault| in_words(file, fault))?;
        to_do.push(Wanted { commit, file, metadata });
    }
    let bar = bar(options, to_do.iter().filter_map(|wanted| wanted.metadata.size).sum());
    for wanted in &to_do {
        bar.set_message(wanted.file.to_owned());
        let fetched = blob::fetch(client, cache, wanted, options, &bar);
        fetched.map_err(|fault| in_words(wanted.file, fault))?;
        cache.link(commit, wanted.file, &wanted.metadata.etag)?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn hub_error(repository: &Repository, reason: String) -> Error {
    Error::Hub { repository: repository.to_string(), reason }
}

fn bar(options: &Options, bytes: u64) -> ProgressBar {
    // Indicatif draws nothing where standard error is no terminal.
    let target = if options.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    // The template is a constant; if it were wrong, the default style would serve.
    if let Ok(style) = ProgressStyle::with_template(
        "downloading {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left ({msg})",
    ) {
        bar.set_style(style);
    }
    bar
}

//! The name of a repository.

use super::{Options, Part, Snapshot};
use crate::Result;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The branch that is meant where none is given.
const MAIN: &str = "main";

/// A repository of the Hugging Face hub at one revision, written `owner/name` or `owner/name@revision`.
///
/// ```
/// use diver::hub::Repository;
///
/// let repository: Repository = "facebook/DiT-XL-2-256@refs/pr/1".parse().unwrap();
/// assert_eq!((repository.id(), repository.revision()), ("facebook/DiT-XL-2-256", "refs/pr/1"));
/// let repository: Repository = "facebook/DiT-XL-2-256".parse().unwrap();
/// assert_eq!(repository.revision(), "main");
/// assert!("./folder".parse::<Repository>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    id: String,
    revision: String,
}

impl Repository {
    /// `owner/name`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The commit, if the revision is one, written in full.
    pub(super) fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(&*self.revision)
    }

    /// Brings the files of a part into the cache, and returns the repository's folder there. What is there already is
    /// not asked for again.
    ///
    /// ```no_run
    /// use diver::hub::{Options, Part, Repository};
    ///
    /// let vae: Repository = "stabilityai/sd-vae-ft-mse".parse().unwrap();
    /// let folder = vae.snapshot(Part::Autoencoder, &Options::from_env()?)?;
    /// assert!(folder.join("config.json").is_file());
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub) if the hub refuses, does not know it or cannot be reached while the cache
    /// lacks a file, if there is no such part, if a file is not what the hub says it is, or the disk is full;
    /// [`Error::Io`](crate::Error::Io) if the cache cannot be written; [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn snapshot(&self, part: Part, options: &Options) -> Result<PathBuf> {
        Snapshot::open(self, part, options)?.complete()
    }
}

impl FromStr for Repository {
    type Err = NotARepository;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let Some((owner, name)) = id.split_once('/') else { return Err(NotARepository) };
        if !(is_part(owner) && is_part(name) && is_revision(revision)) {
            return Err(NotARepository);
        }
        Ok(Self { id: id.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.revision == MAIN { f.write_str(&self.id) } else { write!(f, "{}@{}", self.id, self.revision) }
    }
}

/// A text is not the name of a repository.
///
/// ```
/// let error = "folder".parse::<diver::hub::Repository>().unwrap_err();
/// assert_eq!(error.to_string(), "a repository is written owner/name or owner/name@revision");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a repository is written owner/name or owner/name@revision")]
pub struct NotARepository;

/// The hub's rules for owners and names. They also keep the name of the folder in the cache unambiguous, and in it.
fn is_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty()
        && part.len() <= 96
        && part.chars().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Git's rules, so far as they matter where a revision names a file in the cache.
fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock") && part.len() <= 200
    };
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "\\~^:?*[".contains(c);
    revision.split('/').all(is_part) && !revision.contains("..") && !revision.contains(forbidden)
}

/// A commit written in full.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_cache_are_none() {
        for text in [
            "a/b/c",
            "/a/b",
            "./a",
            "../a",
            "a/..",
            "a/",
            "/a",
            "a",
            "",
            "a b/c",
            "a--b/c",
            "~/a",
            "a\\b/c",
            "a/b@",
            "a/b@..",
            "a/b@../x",
            "a/b@/x",
            "a/b@x//y",
            "a/b@.x",
            "a/b@x\n",
            "a/b@x y",
            "a/é",
            "a/b@x\\..\\y",
        ] {
            assert_eq!(text.parse::<Repository>(), Err(NotARepository), "{text}");
        }
        for text in ["a/b", "a1/b-c_d.e", "a/b@v1.0", "a/b@refs/pr/12", "a/b@feature/x"] {
            assert_eq!(text.parse::<Repository>().unwrap().to_string(), text);
        }
        assert_eq!("a/b@main".parse::<Repository>().unwrap().to_string(), "a/b");
    }

    #[test]
    fn a_commit_is_told_from_a_branch() {
        let at = |revision: &str| format!("a/b@{revision}").parse::<Repository>().unwrap();
        assert!(at(&"0a".repeat(20)).commit().is_some());
        assert!(at(&"0a".repeat(19)).commit().is_none());
        assert!(at("main").commit().is_none());
    }
}

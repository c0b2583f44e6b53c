//! Backbones by name: what a user writes where a backbone is asked for, and how a repository of the Hugging Face hub
//! becomes a folder.
//!
//! A **path** that exists is taken as it is, file or folder. Anything else that looks like `owner/name` or
//! `owner/name@revision` is a **repository**; the revision is a branch, a tag, a pull request (`refs/pr/1`) or a commit,
//! and `main` unless given. What cannot be either (`./x`, `/x/y`, `a/b/c`, `owner/net.pt`) is a path that is missing.
//!
//! Of a repository, only the [`Part`] that is wanted is fetched: of a backbone `model_index.json` if it has one, the
//! scheduler's and the networks' configurations, their safetensors weights (pickles only where there are none; never
//! half-precision variants), and the tokenizer; of an autoencoder its own configuration and weights. Weights come last:
//! a [`BackboneBuilder`](crate::backbone::BackboneBuilder) looks at everything else before, and refuses what it cannot
//! build.
//!
//! Files lie in the cache that Python's `huggingface_hub` uses, in its layout: what one has downloaded, the other finds.
//! Every file is checked against the hash that the hub gives for it before it counts as there, and a download that was
//! interrupted goes on where it stopped. Processes that want the same file wait for one another. Where the cache's file
//! system knows no locks, each downloads for itself instead, from the first byte.
//!
//! A branch or tag is asked for its current commit, one small request; if the hub cannot be reached, a warning is logged
//! and the copy in the cache serves. A full commit hash whose files are all there, safetensors among them, needs no
//! network at all.
//!
//! These variables count, as they do in Python:
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache; `HF_HOME/hub` unless set |
//! | `HF_HOME` | home of cache and token; `XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` unless set |
//! | `HF_ENDPOINT` | the hub, or a mirror of it; `https://huggingface.co` unless set |
//! | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | if `1`, the network is left alone |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | the access token, or the file that holds it (`HF_HOME/token`) |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | if `1`, no token is sent |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds without a byte after which a connection is given up; 15 unless set |
//! | `HF_HUB_DISABLE_PROGRESS_BARS` | if `1`, no progress bar, on a terminal either |
//! | `https_proxy`, `http_proxy` | the proxy on the way to a hub of that scheme, as `http://proxy.example:3128` or `socks5h://127.0.0.1:1080`; never used for this machine itself |
//! | `all_proxy` | the proxy where the scheme has none of its own |
//! | `no_proxy` | hosts to reach without a proxy, with commas between them: names, which count for all below them too, IPv4 networks as `10.0.0.0/8`, or `*` |
//! | `SSL_CERT_FILE` | certificates (PEM) to trust instead of the usual authorities |
//!
//! Those of proxies count in capitals as well; where both are set, the one in lower case does.
//!
//! The token goes to the hub alone: to no other host that the hub redirects to, and to none without encryption unless
//! `HF_ENDPOINT` itself is such a one.

mod blob;
mod cache;
mod client;
pub(crate) mod needed;
mod options;
mod part;
mod proxies;
mod repository;
mod snapshot;

pub use options::Options;
pub use part::Part;
pub use repository::{NotARepository, Repository};
pub(crate) use snapshot::Snapshot;

use crate::{Error, Result};
use diver_loaders::paths::local;
use std::path::{Path, PathBuf};

/// File names that end so are files, not repositories.
const FILES: [&str; 7] = ["bin", "ckpt", "json", "pt", "pth", "safetensors", "zip"];

/// What the name of a backbone stands for.
///
/// ```
/// use diver::hub::Name;
///
/// assert!(matches!(Name::read("src".as_ref())?, Name::Folder(_)));
/// assert!(matches!(Name::read("Cargo.toml".as_ref())?, Name::File(_)));
/// assert!(matches!(Name::read("facebook/DiT-XL-2-256".as_ref())?, Name::Repository(_)));
/// assert!(Name::read("/no/such/folder".as_ref()).is_err());
/// assert!(Name::read("s3://bucket/DiT".as_ref()).unwrap_err().to_string().contains("local path"));
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A folder that exists.
    Folder(PathBuf),
    /// A file that exists.
    File(PathBuf),
    /// A repository of the hub.
    Repository(Repository),
}

impl Name {
    /// Tells which it is. Asks the file system, never the network.
    ///
    /// # Errors
    /// [`Error::File`] if it is a path, and there is nothing; [`Error::Engine`] if it is the path of an object store.
    pub fn read(what: &Path) -> Result<Self> {
        let what = local("backbone", what)?;
        if what.is_dir() {
            return Ok(Self::Folder(what.to_owned()));
        }
        if what.exists() {
            return Ok(Self::File(what.to_owned()));
        }
        let is_file = what.extension().and_then(|e| e.to_str()).is_some_and(|e| FILES.contains(&e));
        if is_file {
            return Err(Error::file(what, "there is no such file"));
        }
        let repository = what.to_str().and_then(|text| text.parse().ok());
        repository.map(Self::Repository).ok_or_else(|| {
            let reason = "there is no such folder, and a repository of the Hugging Face hub is written owner/name, as in \
                          facebook/DiT-XL-2-256";
            Error::file(what, reason)
        })
    }
}

//! Where the hub and its cache are: read from the environment in one place.

use super::proxies::Proxies;
use crate::{Error, Result};
use diver_loaders::CancelToken;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How repositories are fetched. [`from_env`](Self::from_env) is what Python's `huggingface_hub` would do on this
/// machine; fields may be changed after.
///
/// ```
/// use diver::hub::Options;
///
/// let mut options = Options::from_env()?;
/// options.cache = "/data/hub".into();
/// options.offline = true;
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The cache: the folder in which repositories are `models--owner--name`.
    pub cache: PathBuf,
    /// The hub, without a slash at its end.
    pub endpoint: String,
    /// The access token.
    pub token: Option<String>,
    /// Whether to leave the network alone.
    pub offline: bool,
    /// Whether to draw a progress bar, on standard error, if that is a terminal.
    pub progress: bool,
    /// How long to wait for a connection, for an answer, and for the next bytes.
    pub timeout: Duration,
    /// How often a request is made again after a failure that may pass. Bytes that came in between start the count anew.
    pub retries: u32,
    /// The pause before the first further try; it doubles with each.
    pub pause: Duration,
    /// Certificates (PEM) to trust instead of the usual authorities.
    pub certificates: Option<PathBuf>,
    /// Stops the download, which a later one goes on with.
    pub cancel: CancelToken,
    pub(crate) proxies: Proxies,
}

impl Options {
    /// From the environment; the [module](super) lists the variables.
    ///
    /// # Errors
    /// [`Error::Knob`] names a variable with a value that it cannot have; [`Error::Io`] if the token's file cannot be
    /// read.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// From variables that are looked up with `variable`.
    ///
    /// ```
    /// use diver::hub::Options;
    ///
    /// let options = Options::from_variables(|name| (name == "HF_HOME").then(|| "/data/hf".into()))?;
    /// assert_eq!(options.cache, std::path::Path::new("/data/hf/hub"));
    /// assert_eq!(options.endpoint, "https://huggingface.co");
    /// # Ok::<(), diver::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`from_env`](Self::from_env).
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let proxies = Proxies::read(&variable);
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let is_on = |name: &str| {
            text(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()))
        };
        let user = variable("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        let path = |name: &str| variable(name).map(|value| from_home(PathBuf::from(value), user.as_deref()));

        let home = path("HF_HOME").or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")));
        let home = home.or_else(|| Some(user.as_ref()?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| Some(home.as_ref()?.join("hub"))).ok_or_else(|| {
            Error::knob("HF_HOME", "is not set, and there is no home folder to take instead")
        })?;
        let token = if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else if let Some(token) = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            clean("HF_TOKEN", &token)?
        } else {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
            file.map(|file| read_token(&file)).transpose()?.flatten()
        };
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            Some(text) => match text.trim().parse() {
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => {
                    let reason = format!("`{text}` is not a number of seconds from 1 to 86400");
                    return Err(Error::knob("HF_HUB_DOWNLOAD_TIMEOUT", reason));
                }
            },
            None => Duration::from_secs(15),
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Self {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: is_on(if variable("HF_HUB_OFFLINE").is_some() {
                "HF_HUB_OFFLINE"
            } else {
                "TRANSFORMERS_OFFLINE"
            }),
            progress: !is_on("HF_HUB_DISABLE_PROGRESS_BARS"),
            timeout,
            retries: 4,
            pause: Duration::from_millis(500),
            certificates: path("SSL_CERT_FILE"),
            cancel: CancelToken::new(),
            proxies,
        })
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        self.cancel.check().map_err(|_| Error::Cancelled)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token in a log is a token lost.
        f.debug_struct("Options")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| ".."))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// `~` and what follows, below the user's folder.
fn from_home(path: PathBuf, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path,
    }
}

fn read_token(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => clean("HF_TOKEN_PATH", &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(file, "cannot read the access token")(error)),
    }
}

/// Without the line ends that files and copying leave; never with characters that would end a header.
fn clean(from: &'static str, token: &str) -> Result<Option<String>> {
    let token = token.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::knob(from, "the access token has characters that no token has"));
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Options> {
        Options::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks() {
        let cache = |variables: &[_]| from(&[&[("HOME", "/me")], variables].concat()).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), Path::new("/me/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        let all = [("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")];
        assert_eq!(cache(&all), Path::new("/new"));
    }

    #[test]
    fn the_token_comes_from_variable_or_file_and_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let token = |variables: &[_]| from(&[&[("HF_HOME", path)], variables].concat()).unwrap().token;
        assert_eq!(token(&[]), None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", " hf_variable ")]).as_deref(), Some("hf_variable"));
        assert_eq!(token(&[("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true")]), None);
        let other = home.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]).as_deref(), Some("hf_other"));
        let error = from(&[("HF_HOME", path), ("HF_TOKEN", "a\nb")]).unwrap_err().to_string();
        assert!(error.starts_with("HF_TOKEN: the access token has"), "{error}");
        let options = from(&[("HF_HOME", path), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{options:?}").contains("hf_secret"));
    }

    #[test]
    fn switches_and_the_rest() {
        let options = from(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "https://mirror.example/")]).unwrap();
        assert_eq!(options.endpoint, "https://mirror.example");
        assert!(!options.offline && options.progress);
        for (on, is_on) in [("1", true), ("on", true), ("0", false), ("", false)] {
            assert_eq!(from(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", on)]).unwrap().offline, is_on, "{on}");
        }
        assert!(from(&[("HF_HOME", "/h"), ("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        let timeout = |text| from(&[("HF_HOME", "/h"), ("HF_HUB_DOWNLOAD_TIMEOUT", text)]);
        assert_eq!(timeout("5").unwrap().timeout, Duration::from_secs(5));
        for text in ["0", "-1", "x", "99999999999999999999"] {
            assert!(timeout(text).unwrap_err().to_string().contains("is not a number of seconds"), "{text}");
        }
    }
}

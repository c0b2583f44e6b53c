//! Paths that users name. All of them are on this machine.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Schemes that are known even with one slash, which is what `pathlib` leaves of two. Others are told by two slashes.
const KNOWN: [&str; 28] = [
    "abfs", "abfss", "adl", "az", "azure", "b2", "dbfs", "file", "ftp", "gcs", "gs", "hdfs", "hf", "http",
    "https", "memory", "oci", "oss", "r2", "s3", "s3a", "s3n", "sftp", "ssh", "wasb", "wasbs", "webdav",
    "webhdfs",
];

/// The path, if it is one of this machine, for option `option`.
///
/// ```
/// use diver_loaders::paths::local;
/// use std::path::{Path, PathBuf};
///
/// assert_eq!(local("cache", Path::new("out/cache"))?, Path::new("out/cache"));
/// assert!(local("cache", Path::new("s3://bucket/cache")).unwrap_err().to_string().starts_with("cache: `s3://bucket"));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] if it has a scheme, as in `s3://bucket/set`.
pub fn local<'a>(option: &'static str, path: &'a Path) -> Result<&'a Path> {
    refused(path).map_or(Ok(path), |reason| Err(Error::config(option, reason)))
}

/// The path, with the home folder in place of a leading `~/`.
pub(crate) fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Serializes a path as text; whatever is not text in it is replaced.
pub(crate) fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Why a path is not one of this machine, and what to do; `None` if it is. A drive (`C:\`) is no scheme, and
/// `./s3:/x` is a path in a folder called `s3:`.
#[must_use]
pub fn refused(path: &Path) -> Option<String> {
    // What is not Unicode in it comes after the scheme.
    let text = path.as_os_str().to_string_lossy();
    let (before, after) = text.split_once(":/")?;
    // fsspec writes what it does with a file before the file's scheme: `simplecache::s3://bucket/x`.
    let scheme = before.rsplit("::").next()?.to_ascii_lowercase();
    let letters = scheme.as_bytes();
    let is_scheme = letters.len() > 1
        && letters[0].is_ascii_alphabetic()
        && letters.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    if !is_scheme || !(after.starts_with('/') || KNOWN.contains(&scheme.as_str())) {
        return None;
    }
    if let Some(("huggingface.co", name)) = after.trim_start_matches('/').split_once('/') {
        if let Some(name) = name.strip_prefix("datasets/") {
            return Some(format!(
                "`{text}` is a URL, and diver opens local paths only: download the dataset, as with `hf download \
                 --repo-type dataset {name} --local-dir FOLDER`, and open the folder"
            ));
        }
        return Some(format!(
            "`{text}` is a URL: write a backbone's repository as owner/name, which may be `{name}`, and download a data \
             set, for example with `hf download --repo-type dataset`"
        ));
    }
    let to_local = match scheme.as_str() {
        "file" => {
            let path = after.trim_start_matches('/');
            return Some(format!("`{text}` is a URL: write the path without its scheme, `/{path}`"));
        }
        "http" | "https" | "ftp" => {
            return Some(format!(
                "`{text}` is a URL, and diver opens local paths only: download it, for example with `curl -O`, and give \
                 the local path"
            ));
        }
        "hf" => "`hf download`",
        "s3" | "s3a" | "s3n" => "`aws s3 cp --recursive` or `rclone copy`",
        "gs" | "gcs" => "`gcloud storage cp --recursive` or `rclone copy`",
        "az" | "azure" | "abfs" | "abfss" | "adl" | "wasb" | "wasbs" => {
            "`azcopy copy --recursive` or `rclone copy`"
        }
        "memory" => {
            return Some(format!(
                "`{text}` is in memory, and diver opens local paths only: write it to a local folder, and give its path"
            ));
        }
        _ => "`rclone copy`",
    };
    Some(format!(
        "`{text}` is not a local path, and object stores are not supported yet: copy the files with {to_local}, or mount \
         the store with `rclone mount`, and give the local path. A local folder called `{before}:` is written `./{before}:`"
    ))
}

/// What the caller may have meant with a path where nothing lies.
pub(crate) fn meant(path: &Path) -> Option<String> {
    let text = path.as_os_str().to_string_lossy();
    let is_repository = || {
        let parts: Vec<&str> = text.split('/').collect();
        let is_folder = path.parent().is_some_and(Path::exists);
        matches!(parts[..], [owner, name] if !owner.is_empty() && !name.is_empty() && owner != "." && owner != "..")
            && !is_folder
    };
    Some(match &*text {
        "" => "the path is empty".to_owned(),
        text if text.starts_with('$') => "variables are not expanded: write the path in full".to_owned(),
        text if text.contains(['*', '?']) => "patterns are not expanded: name one file or folder".to_owned(),
        text if is_repository() => format!(
            "if it is a repository of the Hugging Face hub, download it first, as with `hf download --repo-type dataset \
             {text} --local-dir FOLDER`"
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_a_scheme_are_refused() {
        for path in [
            "s3://bucket/x",
            "S3://bucket/x",
            "s3:/bucket/x",
            "gs://bucket",
            "az://container/x",
            "abfss://c@account.dfs.core.windows.net/x",
            "hf://datasets/owner/name",
            "http://host/x.pt",
            "https://host/x.pt",
            "memory://x",
            "r2://bucket/x",
            "simplecache::s3://bucket/x",
            "mystore+v2://x",
        ] {
            let error = local("cache", Path::new(path)).unwrap_err();
            assert!(matches!(error, Error::Config { option: "cache", .. }), "{error:?}");
            let error = error.to_string();
            assert!(error.contains(path) && error.contains("local path"), "{error}");
        }
        let s3 = refused(Path::new("s3://bucket/x")).unwrap();
        assert!(
            s3.contains("aws s3 cp --recursive") && s3.contains("rclone") && s3.contains("./s3:"),
            "{s3}"
        );
        let hub = refused(Path::new("https://huggingface.co/facebook/DiT-XL-2-256")).unwrap();
        assert!(hub.contains("`facebook/DiT-XL-2-256`") && hub.contains("owner/name"), "{hub}");
        let hub = refused(Path::new("https://huggingface.co/datasets/owner/name")).unwrap();
        assert!(hub.contains("--repo-type dataset owner/name") && !hub.contains("backbone"), "{hub}");
        for (path, hint) in
            [("", "empty"), ("$HOME/x", "variables"), ("x/*.png", "patterns"), ("owner/name", "owner/name")]
        {
            assert!(meant(Path::new(path)).unwrap().contains(hint), "{path}");
        }
        assert!(
            ["/a/b", "src/nonsuch", "./b", "set", "a/b/c"]
                .iter()
                .all(|path| meant(Path::new(path)).is_none())
        );
        for path in ["file:///data/set", "file:/data/set", "FILE:///data/set"] {
            assert!(refused(Path::new(path)).unwrap().ends_with("`/data/set`"), "{path}");
        }
    }

    #[test]
    fn local_paths_pass_as_they_are() {
        for path in [
            "",
            "out/cache",
            "/data/set",
            "~/x",
            "./s3:/x",
            "./s3://x",
            "/abs/s3:/x",
            "data/s3:/x",
            "C:\\sets\\x",
            "C:/sets/x",
            "C://sets/x",
            "\\\\?\\C:\\x",
            "s3:",
            "s3:x",
            "run12:/x",
            "a:b/c",
            "2024-01-01T10:/x",
            "://x",
            "1s://x",
        ] {
            assert_eq!(local("source", Path::new(path)).unwrap(), Path::new(path));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_unicode_is_looked_at_all_the_same() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        assert!(refused(Path::new(OsStr::from_bytes(b"s3://bucket/\xff"))).is_some());
        assert!(refused(Path::new(OsStr::from_bytes(b"set\xff/x"))).is_none());
    }
}

//! A store in a bucket: Amazon S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.

use super::{PartStore, Stat};
use crate::{Error, Result};
use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use std::future::Future;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// How many bytes a read fetches at least: what a request costs in time, reading so much costs as well.
const BLOCK: usize = 1 << 18;

/// How many requests are made at a time, where many are to be made.
const PARALLEL: usize = 16;

/// How long a request is repeated that fails for a reason which may pass, and the first one, by which a store is opened:
/// there it rather is an address that is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
const MOST_RETRIES: usize = 1000;

/// A bucket, or a folder of one. Credentials, regions and endpoints are those of the usual environment variables
/// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and their like).
///
/// A file is committed by a put that succeeds only if there is none of its name (S3's `If-None-Match`, GCS's generation
/// 0). Requests that fail for a reason that may pass are repeated for a minute.
pub struct BucketStore {
    /// As the user wrote it, without a slash at its end.
    url: String,
    scheme: Scheme,
    bucket: String,
    prefix: ObjectPath,
    options: Vec<(String, String)>,
    client: Mutex<Option<Arc<Client>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    S3,
    Gcs,
    Azure,
}

/// What is made anew after a fork: its threads and connections are the parent's.
struct Client {
    process: u32,
    runtime: Option<Runtime>,
    store: Box<dyn ObjectStore>,
}

impl Client {
    /// # Errors
    /// As the request; if the client is gone.
    fn wait<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(request),
            None => Err(object_store::Error::NotImplemented {
                operation: "a request".into(),
                implementer: "a client that was dropped".into(),
            }),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Its thread may be waiting for a lock of whoever drops it, as for Python's to write a message.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketStore").field("url", &self.url).finish_non_exhaustive()
    }
}

impl BucketStore {
    /// The store at `url`: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    ///
    /// # Errors
    /// If the scheme is another one or there is no bucket; if credentials are missing; if the bucket is not there or
    /// cannot be listed.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, &[])
    }

    /// As [`open`](Self::open), with `options` by the names of environment variables, in lower case, over what these say:
    /// `aws_endpoint`, `aws_region`, `aws_access_key_id`, ...
    ///
    /// # Errors
    /// As [`open`](Self::open); if there is no such option.
    pub fn open_with(url: &str, options: &[(&str, &str)]) -> Result<Self> {
        let refused = |reason: &str| Err(Error::config("cache", format!("`{url}`: {reason}")));
        let Some((scheme, rest)) = url.split_once("://") else {
            return refused("a URL is expected, as s3://bucket/folder");
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Scheme::S3,
            "gs" | "gcs" => Scheme::Gcs,
            "az" | "azure" | "abfs" | "abfss" => Scheme::Azure,
            _ => return refused("caches can lie in local folders, and at s3://, gs:// and az://"),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return refused("it names no bucket: write s3://bucket/folder");
        }
        let prefix = ObjectPath::parse(prefix.trim_matches('/'))
            .map_err(|e| Error::config("cache", format!("`{url}`: {e}")))?;
        let store = Self {
            url: url.trim_end_matches('/').to_owned(),
            scheme,
            bucket: bucket.to_owned(),
            prefix,
            options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            client: Mutex::default(),
        };
        *store.lock() = Some(store.connect(FIRST_PATIENCE)?);
        store.folders()?;
        *store.lock() = None;
        Ok(store)
    }

    /// This process's client.
    fn client(&self) -> Result<Arc<Client>> {
        let mut client = self.lock();
        match &*client {
            Some(known) if known.process == std::process::id() => return Ok(Arc::clone(known)),
            // Its threads are not in this process: to wait for them would last for ever.
            Some(_) => std::mem::forget(client.take()),
            None => {}
        }
        let made = self.connect(PATIENCE)?;
        *client = Some(Arc::clone(&made));
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        // Every update leaves it whole.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that repeats requests for so long.
    fn connect(&self, patience: Duration) -> Result<Arc<Client>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("diver-store")
            .enable_all()
            .build()
            .map_err(Error::io(&self.place(""), "cannot start a thread"))?;
        let store = self.build(patience).map_err(|e| self.failed("", "cannot open", e))?;
        let made = Arc::new(Client { process: std::process::id(), runtime: Some(runtime), store });
        Ok(made)
    }

    fn build(&self, patience: Duration) -> object_store::Result<Box<dyn ObjectStore>> {
        static TLS: Once = Once::new();
        // Another one that is there already will do.
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let retry =
            RetryConfig { retry_timeout: patience, max_retries: MOST_RETRIES, ..RetryConfig::default() };
        // An endpoint in plain HTTP is a local one, or the user's own choice.
        let is_plain = |endpoint: Option<String>| endpoint.is_some_and(|url| url.starts_with("http://"));
        Ok(match self.scheme {
            Scheme::S3 => {
                // Files are deleted one by one, for which not every server has the other way.
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(&self.bucket)
                    .with_retry(retry)
                    .with_disable_bulk_delete(true);
                for (key, value) in &self.options {
                    builder = builder.with_config(key.parse()?, value);
                }
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                check_endpoint(endpoint.as_deref())?;
                let is_plain = is_plain(endpoint);
                Box::new(builder.with_allow_http(is_plain).build()?)
            }
            Scheme::Gcs => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_bucket_name(&self.bucket).with_retry(retry);
                for (key, value) in &self.options {
                    builder = builder.with_config(key.parse()?, value);
                }
                Box::new(builder.build()?)
            }
            Scheme::Azure => {
                let mut builder =
                    MicrosoftAzureBuilder::from_env().with_container_name(&self.bucket).with_retry(retry);
                for (key, value) in &self.options {
                    builder = builder.with_config(key.parse()?, value);
                }
                let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
                check_endpoint(endpoint.as_deref())?;
                let is_plain = is_plain(endpoint);
                Box::new(builder.with_allow_http(is_plain).build()?)
            }
        })
    }

    /// Runs one request to its end.
    fn wait<T, F>(&self, name: &str, doing: &'static str, request: impl FnOnce(Arc<Client>) -> F) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let client = self.client()?;
        client.wait(request(Arc::clone(&client))).map_err(|e| self.failed(name, doing, e))
    }

    fn object(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn failed(&self, name: &str, doing: &'static str, error: object_store::Error) -> Error {
        use object_store::Error as Refused;
        let kind = match &error {
            Refused::NotFound { .. } => ErrorKind::NotFound,
            Refused::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Refused::PermissionDenied { .. } | Refused::Unauthenticated { .. } => ErrorKind::PermissionDenied,
            _ => ErrorKind::Other,
        };
        let reason = self.said(&error, kind, name.is_empty());
        Error::io(&self.place(name), doing)(std::io::Error::new(kind, reason))
    }

    /// What a store said, in words of ours where it says little.
    fn said(&self, error: &object_store::Error, kind: ErrorKind, is_root: bool) -> String {
        let text = error.to_string();
        let (variables, endpoint) = match self.scheme {
            Scheme::S3 => ("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
            Scheme::Gcs => ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_STORAGE_URL"),
            Scheme::Azure => {
                ("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT")
            }
        };
        // Where there are no credentials, a machine of the provider is asked for its own.
        let asks_machine = ["169.254.169.254", "InstanceCredential", "metadata.google"];
        if asks_machine.iter().any(|part| text.contains(part)) || text.contains("Account must be specified") {
            return format!("no credentials were found: set {variables}");
        }
        if kind == ErrorKind::NotFound && is_root {
            return format!(
                "there is no bucket `{}`, or it cannot be seen with these credentials",
                self.bucket
            );
        }
        if text.contains("error sending request") {
            return format!("the store does not answer: check the network, and the endpoint ({endpoint})");
        }
        match error {
            object_store::Error::Generic { source, .. } => source.to_string(),
            _ => text,
        }
    }

    fn list_folder(&self, folder: &str) -> Result<object_store::ListResult> {
        let path = if folder.is_empty() { self.prefix.clone() } else { self.object(folder) };
        self.wait(folder, "cannot list", |client| async move {
            client.store.list_with_delimiter(Some(&path)).await
        })
    }

    fn get_with(&self, name: &str, range: Option<GetRange>) -> Result<(Bytes, ObjectMeta)> {
        let path = self.object(name);
        self.wait(name, "cannot read", |client| async move {
            let found = client.store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await?;
            let meta = found.meta.clone();
            Ok((found.bytes().await?, meta))
        })
    }

    fn put_with(&self, name: &str, bytes: &[u8], mode: PutMode) -> object_store::Result<()> {
        let client = self
            .client()
            .map_err(|e| object_store::Error::Generic { store: "cache", source: Box::new(e) })?;
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions { mode, ..PutOptions::default() };
        client.wait(client.store.put_opts(&self.object(name), payload, options)).map(drop)
    }
}

/// The crate takes whatever is there, and panics at the first request.
fn check_endpoint(endpoint: Option<&str>) -> object_store::Result<()> {
    match endpoint {
        Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
            let reason = format!("the endpoint `{url}` must begin with http:// or https://");
            Err(object_store::Error::Generic { store: "cache", source: reason.into() })
        }
        _ => Ok(()),
    }
}

impl PartStore for BucketStore {
    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from(if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) })
    }

    fn make_folder(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn folders(&self) -> Result<Vec<String>> {
        let listed = self.list_folder("")?;
        Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.entries(folder)?.into_iter().map(|(name, _)| name).collect())
    }

    fn entries(&self, folder: &str) -> Result<Vec<(String, Stat)>> {
        let listed = self.list_folder(folder)?;
        let entry = |meta: &ObjectMeta| Some((meta.location.filename()?.to_owned(), stat(meta)));
        Ok(listed.objects.iter().filter_map(entry).collect())
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let path = self.object(name);
        let meta = self.wait(name, "cannot read", |client| async move {
            match client.store.head(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                other => other.map(Some),
            }
        })?;
        Ok(meta.map(|meta| stat(&meta)))
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        Ok(self.get_with(name, None)?.0)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        if range.start < range.end {
            match self.get_with(name, Some(GetRange::Bounded(range.clone()))) {
                Ok((bytes, _)) => return Ok(bytes),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::Other => {}
                Err(error) => return Err(error),
            }
        }
        // Nothing is asked for, or what is beyond the end, which stores refuse.
        match self.stat(name)? {
            Some(stat) if range.start < stat.size && range.start < range.end => {
                Ok(self.get_with(name, Some(GetRange::Bounded(range)))?.0)
            }
            Some(_) => Ok(Bytes::new()),
            None => Err(Error::io(&self.place(name), "cannot read")(ErrorKind::NotFound.into())),
        }
    }

    fn tail(&self, name: &str, length: u64) -> Result<(Bytes, u64)> {
        // Not every store knows what "the last bytes" of a file are that is shorter, or empty.
        match self.get_with(name, Some(GetRange::Suffix(length))) {
            Ok((bytes, meta)) => Ok((bytes, meta.size)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::Other => {
                let bytes = self.get(name)?;
                let size = bytes.len() as u64;
                let start = usize::try_from(size.saturating_sub(length)).unwrap_or_default();
                Ok((bytes.slice(start..), size))
            }
            Err(error) => Err(error),
        }
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.put_with(name, bytes, PutMode::Create) {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                // A put whose answer was lost is repeated, and then finds what it has written itself.
                Ok(false)
            }
            Err(error) => Err(self.failed(name, "cannot write", error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put_with(name, bytes, PutMode::Overwrite).map_err(|e| self.failed(name, "cannot write", e))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.object(from), self.object(to));
        self.wait(from, "cannot rename", |client| async move {
            match client.store.copy(&source, &target).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(()),
                other => other?,
            }
            gone(client.store.delete(&source).await)
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.object(name);
        self.wait(name, "cannot delete", |client| async move { gone(client.store.delete(&path).await) })
    }

    fn delete_folder(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn check_writable(&self, folder: &str) -> Result<()> {
        // One name for all: a process that dies here leaves one file at most, and the next one deletes it.
        let name = format!("{folder}/writing");
        self.put(&name, b"")?;
        self.delete(&name)
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn block(&self) -> usize {
        BLOCK
    }
}

/// What is not there is deleted.
fn gone(result: object_store::Result<()>) -> object_store::Result<()> {
    match result {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

fn stat(meta: &ObjectMeta) -> Stat {
    Stat {
        size: meta.size,
        // By the store's clock and ours.
        age: SystemTime::now().duration_since(meta.last_modified.into()).unwrap_or_default(),
        version: meta.e_tag.as_deref().map(Arc::from),
    }
}

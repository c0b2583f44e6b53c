//! Requests to the hub: whom they go to, who gets the token, and what the answers mean.

use super::{Options, Repository};
use crate::{Error, Result};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// More than any hub needs.
const REDIRECTS: usize = 10;
/// A listing of a thousand files is below a megabyte.
const LISTING: u64 = 64 << 20;
/// A hub that asks for more patience than that is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Speaks with one hub.
pub(super) struct Client<'a> {
    agent: Agent,
    options: &'a Options,
    repository: &'a Repository,
    hub: Uri,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no way to the host.
    Unreachable(String),
    /// The connection broke, or went silent.
    Broken(String),
    /// The host says no.
    Refused { status: StatusCode, code: String, message: String, wait: Option<Duration> },
    /// The host says what cannot be.
    Nonsense(String),
    /// Something on this machine.
    Here(Error),
}

/// The hub's answer about a file, before its bytes.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// The name of its blob: the SHA-256 of large files, Git's SHA-1 of others.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a Options, repository: &'a Repository) -> Result<Self> {
        let bad = |reason: &str| Error::knob("HF_ENDPOINT", format!("`{}` {reason}", options.endpoint));
        let hub: Uri = options.endpoint.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(hub.scheme_str(), Some("http" | "https"))
            || hub.host().is_none()
            || hub.query().is_some()
        {
            return Err(bad("is not a URL as https://huggingface.co is"));
        }
        let mut config = Agent::config_builder()
            .user_agent(concat!("diver/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Each request brings its own: ureq would take ALL_PROXY first, and go without where it cannot read it.
            .proxy(None)
            .timeout_resolve(Some(options.timeout))
            .timeout_connect(Some(options.timeout))
            .timeout_recv_response(Some(options.timeout))
            .timeout_per_write(Some(options.timeout))
            .timeout_per_read(Some(options.timeout));
        if let Some(roots) = roots(options)? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { agent: config.build().into(), options, repository, hub })
    }

    pub(super) fn repository(&self) -> &'a Repository {
        self.repository
    }

    pub(super) fn options(&self) -> &'a Options {
        self.options
    }

    /// The current commit of the repository's revision, and the files in it.
    pub(super) fn listing(&self) -> Result<(String, Vec<String>), Fault> {
        #[derive(serde::Deserialize)]
        struct Listing {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(serde::Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let (id, revision) = (self.repository.id(), encoded(self.repository.revision(), false));
        let url = format!("{}/api/models/{id}/revision/{revision}", self.options.endpoint);
        let response = self.follow(Method::GET, &url, None, |_| true)?;
        let text = response.into_body().into_with_config().limit(LISTING).read_to_vec().map_err(fault)?;
        let listing: Listing = serde_json::from_slice(&text)
            .map_err(|error| Fault::Nonsense(format!("a listing that cannot be read ({error})")))?;
        if !super::repository::is_commit(&listing.sha) {
            return Err(Fault::Nonsense("a listing without a commit".to_owned()));
        }
        Ok((listing.sha, listing.siblings.into_iter().map(|s| s.rfilename).collect()))
    }

    /// What the hub says of a file. Large files lie elsewhere; the hub's own answer tells more than that of the place.
    pub(super) fn metadata(&self, commit: &str, file: &str) -> Result<Metadata, Fault> {
        let url = self.url(commit, file);
        let response =
            self.follow(Method::HEAD, &url, None, |headers| !headers.contains_key("x-linked-etag"))?;
        let headers = response.headers();
        let at = text(headers, "x-repo-commit");
        if at.is_some_and(|at| at != commit) {
            return Err(Fault::Nonsense(format!(
                "a file of commit {} instead of {commit}",
                at.unwrap_or_default()
            )));
        }
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let etag = etag.unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        if etag.is_empty()
            || etag.len() > 128
            || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(Fault::Nonsense(format!("an answer without a usable etag (`{etag}`)")));
        }
        let own = text(headers, "content-length").filter(|_| !response.status().is_redirection());
        let size = text(headers, "x-linked-size").or(own);
        Ok(Metadata { etag: etag.to_owned(), size: size.and_then(|size| size.parse().ok()) })
    }

    /// The bytes of a file from `start` on; where the answer does not begin there, it is from the first byte on.
    pub(super) fn bytes(&self, commit: &str, file: &str, start: u64) -> Result<(u64, Body), Fault> {
        let response = self.follow(Method::GET, &self.url(commit, file), Some(start), |_| true)?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = text(response.headers(), "content-range").and_then(|r| r.strip_prefix("bytes "));
            let found: Option<u64> = range.and_then(|r| r.split('-').next()?.trim().parse().ok());
            if found != Some(start) {
                return Err(Fault::Nonsense(format!("bytes from {found:?} on, and not from {start}")));
            }
            start
        } else {
            0
        };
        Ok((start, response.into_body()))
    }

    fn url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.options.endpoint, self.repository.id(), encoded(file, true))
    }

    /// Makes a request and follows redirects for as long as `further` says so of the headers.
    fn follow(
        &self,
        method: Method,
        url: &str,
        start: Option<u64>,
        further: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, Fault> {
        let mut uri: Uri = url.parse().map_err(|_| Fault::Nonsense(format!("no URL: `{url}`")))?;
        for _ in 0..REDIRECTS {
            let response = self.request(&method, &uri, start)?;
            let status = response.status();
            if status.is_success() || (status.is_redirection() && !further(response.headers())) {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(refused(status, response.headers()));
            }
            let location = text(response.headers(), LOCATION.as_str()).and_then(|to| join(&uri, to));
            let next = location.ok_or_else(|| Fault::Nonsense("a redirect to nowhere".to_owned()))?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(Fault::Nonsense("a redirect to a place without encryption".to_owned()));
            }
            uri = next;
        }
        Err(Fault::Nonsense(format!("{REDIRECTS} redirects, one to the other")))
    }

    fn request(&self, method: &Method, uri: &Uri, start: Option<u64>) -> Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.options.token.as_ref().filter(|_| same_origin(uri, &self.hub)) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(start) = start.filter(|&start| start > 0) {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let request = request.body(()).map_err(|error| Fault::Nonsense(error.to_string()))?;
        let proxy = self.options.proxies.find(uri).map_err(Fault::Here)?;
        let mut config = self.agent.configure_request(request).proxy(proxy);
        if start.is_none() {
            // A listing that comes byte by byte would never end; a file's bytes may take hours.
            config = config.timeout_recv_body(Some(self.options.timeout.saturating_mul(10)));
        }
        self.agent.run(config.build()).map_err(fault)
    }

    /// Tries again what may go better the next time, after a pause.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Fault>,
        may_pass: impl Fn(&Fault) -> bool,
    ) -> Result<T, Fault> {
        let mut tries = 0;
        loop {
            self.options.check_cancelled().map_err(Fault::Here)?;
            match attempt() {
                Err(fault) if tries < self.options.retries && may_pass(&fault) => {
                    tries += 1;
                    self.wait(tries, &fault)?;
                }
                result => return result,
            }
        }
    }

    /// The pause before try number `tries`, as long as the hub asks for if it does.
    pub(super) fn wait(&self, tries: u32, fault: &Fault) -> Result<(), Fault> {
        let asked = if let Fault::Refused { wait, .. } = fault { *wait } else { None };
        let own = self.options.pause.saturating_mul(1 << (tries - 1).min(10));
        let mut pause = asked.unwrap_or(own).min(LONGEST_PAUSE);
        tracing::debug!("{}: {}; again in {pause:?}", self.repository, self.says(fault));
        while !pause.is_zero() {
            self.options.check_cancelled().map_err(Fault::Here)?;
            let part = pause.min(Duration::from_millis(100));
            std::thread::sleep(part);
            pause -= part;
        }
        Ok(())
    }

    /// A fault in words, with the way out.
    pub(super) fn says(&self, fault: &Fault) -> String {
        let (endpoint, id) = (&self.options.endpoint, self.repository.id());
        let has_token = self.options.token.is_some();
        match fault {
            Fault::Unreachable(reason) => {
                let certificates = if reason.contains("certificate") { ", and SSL_CERT_FILE" } else { "" };
                format!(
                    "{endpoint} cannot be reached ({reason}): check the network, the proxy, HF_ENDPOINT{certificates}"
                )
            }
            Fault::Broken(reason) => {
                format!(
                    "the connection failed ({reason}): try again, what the cache holds is not fetched again"
                )
            }
            Fault::Nonsense(what) => format!("{endpoint} gave {what}: check HF_ENDPOINT and the proxy"),
            Fault::Here(error) => error.to_string(),
            Fault::Refused { status, code, message, .. } => {
                let said = if message.is_empty() { String::new() } else { format!(" (\"{message}\")") };
                match (status.as_u16(), code.as_str()) {
                    (_, "RevisionNotFound") => {
                        format!("there is no revision `{}` of {id}{said}", self.repository.revision())
                    }
                    (401 | 403, "GatedRepo") => {
                        let token = if has_token {
                            "with the account of the access token in use"
                        } else {
                            "and set HF_TOKEN to an access token of that account"
                        };
                        format!(
                            "access is granted on request only{said}: ask for it at {endpoint}/{id}, {token}"
                        )
                    }
                    (401 | 403 | 404, "RepoNotFound" | "") if !has_token => format!(
                        "{endpoint} knows no such repository, and there is no such folder here{said}; if it is private \
                         or gated, set HF_TOKEN to an access token ({endpoint}/settings/tokens)"
                    ),
                    (404, "RepoNotFound" | "") => format!(
                        "{endpoint} knows no such repository, and there is no such folder here{said}; if it is private, \
                         the access token in use gives no right to it"
                    ),
                    (401 | 403, _) if has_token => format!(
                        "{endpoint} refuses the access token in use{said}: it may have expired, or have no right to \
                         read {id}; set HF_TOKEN to another, or HF_HUB_DISABLE_IMPLICIT_TOKEN=1 for public repositories"
                    ),
                    (401 | 403, _) => {
                        format!("{endpoint} refuses access{said}: set HF_TOKEN to an access token")
                    }
                    (404, _) => format!("is not at {endpoint}{said}, though it was listed: try again"),
                    (429, _) => {
                        format!("{endpoint} gets too many requests{said}: try again later, or set HF_TOKEN")
                    }
                    (status, _) => format!("{endpoint} answered with status {status}{said}: try again later"),
                }
            }
        }
    }
}

impl Fault {
    /// Whether the same request may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 408 | 429 | 500 | 502..=504),
            Self::Unreachable(_) | Self::Nonsense(_) | Self::Here(_) => false,
        }
    }
}

/// Which certificates to trust, if not the usual ones.
fn roots(options: &Options) -> Result<Option<RootCerts>> {
    let Some(path) = &options.certificates else { return Ok(None) };
    let text =
        std::fs::read(path).map_err(Error::io(path, "cannot read the certificates (SSL_CERT_FILE)"))?;
    let items = ureq::tls::parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = items.collect();
    if certificates.is_empty() {
        return Err(Error::file(path, "has no certificates (PEM); SSL_CERT_FILE names it"));
    }
    Ok(Some(certificates.into()))
}

/// What ureq's errors mean here.
pub(super) fn fault(error: ureq::Error) -> Fault {
    use ureq::{Error as Ureq, Timeout};
    let reason = error.to_string();
    match error {
        Ureq::HostNotFound | Ureq::ConnectionFailed | Ureq::ConnectProxyFailed(_) => {
            Fault::Unreachable(reason)
        }
        Ureq::Timeout(Timeout::Resolve | Timeout::Connect) => Fault::Unreachable(reason),
        Ureq::InvalidProxyUrl | Ureq::Tls(_) | Ureq::Rustls(_) | Ureq::Pem(_) => Fault::Unreachable(reason),
        Ureq::Io(io) => match io.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            // A firewall, or a SOCKS proxy that wants another password.
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidData => Fault::Unreachable(reason),
            _ => Fault::Broken(reason),
        },
        Ureq::Timeout(_) => Fault::Broken(reason),
        Ureq::BodyExceedsLimit(_) | Ureq::LargeResponseHeader(..) => {
            Fault::Nonsense("an answer without end".to_owned())
        }
        Ureq::Protocol(_) | Ureq::Http(_) | Ureq::BadUri(_) => {
            Fault::Nonsense(format!("no answer of a hub ({reason})"))
        }
        _ => Fault::Broken(reason),
    }
}

fn refused(status: StatusCode, headers: &HeaderMap) -> Fault {
    let seconds = text(headers, RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    // Words of a server, to be shown on a terminal.
    let message = text(headers, "x-error-message").unwrap_or_default();
    let message = message.chars().filter(|c| !c.is_control()).take(200).collect();
    let code = text(headers, "x-error-code").unwrap_or_default().to_owned();
    Fault::Refused { status, code, message, wait: seconds.map(Duration::from_secs) }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

fn same_origin(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// The port, which a URL may leave to its scheme.
pub(super) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// Where a redirect leads: to a whole URL, another host of the same scheme, or a path of the same host.
fn join(from: &Uri, to: &str) -> Option<Uri> {
    let to = to.split('#').next()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let url = if to.starts_with("http://") || to.starts_with("https://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    url.parse().ok().filter(|uri: &Uri| uri.host().is_some())
}

/// A path for a URL; slashes stay with `slashes`.
fn encoded(path: &str, slashes: bool) -> String {
    path.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hub_itself_is_of_the_same_origin() {
        let same = |a: &str| same_origin(&a.parse().unwrap(), &"https://hub.example".parse().unwrap());
        assert!(same("https://hub.example/a") && same("https://HUB.example:443/a"));
        let others = [
            "http://hub.example/",
            "https://hub.example:8443/",
            "https://cdn.hub.example/",
            "https://hub.example.org/",
            "https://user@evil.example/hub.example",
        ];
        for other in others {
            assert!(!same(other), "{other}");
        }
    }

    #[test]
    fn redirects_lead_where_browsers_would_go() {
        let from: Uri = "https://hub.example/a/b?c".parse().unwrap();
        let to = |location| join(&from, location).map(|uri| uri.to_string()).unwrap_or_default();
        assert_eq!(to("https://cdn.example/x?y=z#w"), "https://cdn.example/x?y=z");
        assert_eq!(to("//cdn.example/x"), "https://cdn.example/x");
        assert_eq!(to("/x/y"), "https://hub.example/x/y");
        assert_eq!(to("x"), "https://hub.example/a/x");
        assert_eq!(to("https://"), "");
    }

    #[test]
    fn names_are_written_for_urls() {
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encoded("tokenizer/a b#é.txt", true), "tokenizer/a%20b%23%C3%A9.txt");
    }
}

//! A Hugging Face hub on the loopback: small files itself, large ones by a redirect to a second server.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use diver::hub::{Options, Part, Repository};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// The files of one commit.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `hub`, or `cdn` where large files lie.
    pub host: &'static str,
    pub method: String,
    pub path: String,
    pub range: Option<u64>,
    pub token: Option<String>,
}

/// How an answer is spoiled.
pub enum Twist {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// This status, with an `x-error-code`.
    Status(u16, &'static str),
    /// As many bytes, but others.
    Damaged,
    /// The whole file, though a part was asked for.
    Whole,
    /// These bytes, and no more.
    Raw(&'static str),
    /// Nothing for that long.
    Silence(Duration),
    /// A redirect there.
    Redirect(String),
}

type Behaviour = dyn Fn(&Asked) -> Option<Twist> + Send + Sync;

struct State {
    commits: Mutex<BTreeMap<String, Files>>,
    refs: Mutex<BTreeMap<String, String>>,
    log: Mutex<Vec<Asked>>,
    behaviour: Mutex<Box<Behaviour>>,
    cdn: String,
}

/// The repository `owner/name` on a hub of its own.
pub struct Hub {
    pub endpoint: String,
    state: Arc<State>,
}

impl Hub {
    /// One commit, the head of `main`.
    pub fn new(files: Files) -> Self {
        let (hub, cdn) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let endpoint = url(&hub);
        let state = Arc::new(State {
            commits: Mutex::default(),
            refs: Mutex::default(),
            log: Mutex::default(),
            behaviour: Mutex::new(Box::new(|_| None)),
            cdn: url(&cdn),
        });
        for (host, listener) in [("hub", hub), ("cdn", cdn)] {
            let state = state.clone();
            // The threads end with the test's process.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(host, &stream));
                }
            });
        }
        let hub = Self { endpoint, state };
        hub.push("main", files);
        hub
    }

    /// A further commit on a branch; returns its hash.
    pub fn push(&self, branch: &str, files: Files) -> String {
        let content: Vec<u8> =
            files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes].concat()).collect();
        let commit = git_sha1(&content);
        self.state.commits.lock().unwrap().insert(commit.clone(), files);
        self.state.refs.lock().unwrap().insert(branch.to_owned(), commit.clone());
        commit
    }

    pub fn head(&self) -> String {
        self.state.refs.lock().unwrap()["main"].clone()
    }

    /// From now on, requests are answered so.
    pub fn behave(&self, behaviour: impl Fn(&Asked) -> Option<Twist> + Send + Sync + 'static) {
        *self.state.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    /// What was asked since the last call.
    pub fn log(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.state.log.lock().unwrap())
    }
}

impl State {
    fn serve(&self, host: &'static str, stream: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut asked = Asked { host, method, path, range: None, token: None };
        for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ")?;
            match name.to_lowercase().as_str() {
                "range" => asked.range = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
                "authorization" => asked.token = Some(value.to_owned()),
                _ => {}
            }
        }
        self.log.lock().unwrap().push(asked.clone());
        let twist = self.behaviour.lock().unwrap()(&asked);
        let answer = self.answer(&asked, twist.as_ref());
        let mut stream = stream;
        let _ = stream.write_all(&answer);
        Some(())
    }

    fn answer(&self, asked: &Asked, twist: Option<&Twist>) -> Vec<u8> {
        match twist {
            Some(Twist::Status(status, code)) => {
                let headers = format!("x-error-code: {code}\r\nx-error-message: told by the hub\r\n");
                return respond(asked, *status, &headers, b"");
            }
            Some(Twist::Raw(text)) => return text.as_bytes().to_vec(),
            Some(Twist::Redirect(to)) => return respond(asked, 307, &format!("location: {to}\r\n"), b""),
            Some(Twist::Silence(time)) => std::thread::sleep(*time),
            _ => {}
        }
        let path: Vec<&str> = asked.path.trim_start_matches('/').split(['/', '?']).collect();
        let commits = self.commits.lock().unwrap();
        let not_found = |code: &str| respond(asked, 404, &format!("x-error-code: {code}\r\n"), b"");
        match path[..] {
            ["api", "models", "owner", "name", kind, revision, ..] => {
                let revision = revision.replace("%2F", "/");
                let commit = self.refs.lock().unwrap().get(&revision).cloned().unwrap_or(revision);
                let Some(files) = commits.get(&commit) else { return not_found("RevisionNotFound") };
                let json = if kind == "tree" {
                    files.iter().map(|(name, bytes)| tree_entry(name, bytes)).collect()
                } else {
                    let siblings: Vec<_> =
                        files.keys().map(|f| serde_json::json!({"rfilename": f})).collect();
                    serde_json::json!({"id": "owner/name", "sha": commit, "siblings": siblings})
                };
                respond(asked, 200, "content-type: application/json\r\n", json.to_string().as_bytes())
            }
            ["owner", "name", "resolve", commit, ..] => {
                let Some(files) = commits.get(commit) else { return not_found("RevisionNotFound") };
                let file = asked.path.splitn(6, '/').nth(5).unwrap().replace("%20", " ");
                let Some(bytes) = files.get(&file) else { return not_found("EntryNotFound") };
                if is_large(&file) {
                    let (hash, size) = (sha256(bytes), bytes.len());
                    let headers = format!(
                        "x-repo-commit: {commit}\r\nx-linked-etag: \"{hash}\"\r\nx-linked-size: {size}\r\n\
                         location: {}/blobs/{hash}?signature=secret\r\n",
                        self.cdn
                    );
                    return respond(asked, 302, &headers, b"");
                }
                let headers = format!("x-repo-commit: {commit}\r\netag: \"{}\"\r\n", git_sha1(bytes));
                send(asked, &headers, bytes, twist)
            }
            ["blobs", hash, "signature=secret"] if asked.host == "cdn" => {
                let bytes = commits.values().flat_map(BTreeMap::values).find(|b| sha256(b) == hash).unwrap();
                send(asked, "etag: \"another\"\r\n", bytes, twist)
            }
            _ => not_found("RepoNotFound"),
        }
    }
}

/// A file, or what is left of it from the byte that was asked for on.
fn send(asked: &Asked, headers: &str, bytes: &[u8], twist: Option<&Twist>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(Twist::Damaged) = twist {
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let size = bytes.len();
    let mut answer = match asked.range.filter(|_| !matches!(twist, Some(Twist::Whole))) {
        Some(start) if start as usize >= size => respond(asked, 416, headers, b""),
        Some(start) => {
            let headers = format!("{headers}content-range: bytes {start}-{}/{size}\r\n", size - 1);
            respond(asked, 206, &headers, &bytes[start as usize..])
        }
        None => respond(asked, 200, headers, &bytes),
    };
    if let (Some(Twist::Cut(count)), "GET") = (twist, asked.method.as_str()) {
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        answer.truncate(body + count);
    }
    answer
}

fn respond(asked: &Asked, status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    let body = if asked.method == "HEAD" { b"" } else { body };
    [head.as_bytes(), body].concat()
}

fn tree_entry(name: &str, bytes: &[u8]) -> serde_json::Value {
    let mut entry =
        serde_json::json!({"type": "file", "path": name, "size": bytes.len(), "oid": git_sha1(bytes)});
    if is_large(name) {
        entry["lfs"] = serde_json::json!({"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 100});
    }
    entry
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub fn git_sha1(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A diffusion transformer as repositories have it, with what nobody needs beside it.
pub fn files() -> Files {
    let weights: Vec<u8> =
        (0..300_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let classes = r#"{"_class_name": "DiTPipeline", "transformer": ["diffusers", "T"], "vae": ["diffusers", "V"],
                      "scheduler": ["diffusers", "S"]}"#;
    let text = |text: &str| text.as_bytes().to_vec();
    [
        ("README.md", text("a model")),
        ("model_index.json", text(classes)),
        ("scheduler/scheduler_config.json", text("{}")),
        ("transformer/config.json", text(r#"{"of": "transformer"}"#)),
        (WEIGHTS, weights),
        ("transformer/diffusion_pytorch_model.bin", text("a pickle")),
        ("transformer/diffusion_pytorch_model.fp16.safetensors", text("half of it")),
        ("vae/config.json", text(r#"{"of": "vae"}"#)),
        ("vae/diffusion_pytorch_model.safetensors", text("the vae")),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .collect()
}

pub const NEEDED: [&str; 6] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    WEIGHTS,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// A hub, and a home for what comes from it.
pub struct Place {
    pub hub: Hub,
    pub home: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { hub: Hub::new(files()), home: tempfile::tempdir().unwrap() }
    }

    pub fn options(&self) -> Options {
        self.options_with(&[])
    }

    /// With further variables, which count before the usual ones.
    pub fn options_with(&self, variables: &[(&str, &str)]) -> Options {
        let given = |name: &str| variables.iter().find(|(known, _)| *known == name);
        let mut options = Options::from_variables(|name| match (name, given(name)) {
            (_, Some((_, value))) => Some(value.into()),
            ("HF_HOME", _) => Some(self.home.path().into()),
            ("HF_ENDPOINT", _) => Some(self.hub.endpoint.clone().into()),
            _ => None,
        })
        .unwrap();
        options.progress = false;
        options.pause = Duration::from_millis(1);
        options.timeout = Duration::from_secs(20);
        options
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--name")
    }

    pub fn fetch(&self) -> PathBuf {
        snapshot("owner/name", &self.options()).unwrap()
    }

    pub fn fault(&self) -> String {
        snapshot("owner/name", &self.options()).unwrap_err().to_string()
    }

    /// No one listens at the hub's address.
    pub fn unreachable(&self) -> Options {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = self.options();
        options.endpoint = format!("http://{}", listener.local_addr().unwrap());
        options
    }
}

pub fn snapshot(name: &str, options: &Options) -> diver::Result<PathBuf> {
    name.parse::<Repository>().unwrap().snapshot(Part::Backbone, options)
}

pub fn autoencoder(name: &str, options: &Options) -> diver::Result<PathBuf> {
    name.parse::<Repository>().unwrap().snapshot(Part::Autoencoder, options)
}

pub fn is_weights(asked: &Asked) -> bool {
    static HASH: LazyLock<String> = LazyLock::new(|| sha256(&files()[WEIGHTS]));
    asked.host == "cdn" && asked.path.contains(&*HASH)
}

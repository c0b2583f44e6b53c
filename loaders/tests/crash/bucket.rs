//! A bucket on an S3-compatible server of this machine, PyPI's `localbucket`. Needs `make setup`.

use diver_loaders::cache::BucketStore;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Has the server send its answers at once: otherwise each of them waits 40 ms for the client's acknowledgement.
const SERVE: &str = "import socketserver; socketserver.StreamRequestHandler.disable_nagle_algorithm = True; \
                     import localbucket; localbucket.main()";

/// A server, and the folder in which it keeps what is in the bucket.
pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let port = free_port();
        let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
        let process = Command::new(python)
            .args(["-c", SERVE, "--port", &port.to_string()])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make setup` makes .venv");
        let server = Self { process, port, folder };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("localbucket does not answer: `make setup` installs it");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The store at `url`, through a port of the server or of what stands before it.
    pub(crate) fn store(&self, port: u16, url: &str) -> diver_loaders::Result<BucketStore> {
        let endpoint = format!("http://127.0.0.1:{port}");
        BucketStore::open_with(
            url,
            &[
                ("aws_endpoint", &endpoint),
                ("aws_region", "us-east-1"),
                ("aws_access_key_id", "id"),
                ("aws_secret_access_key", "secret"),
            ],
        )
    }

    /// What tells another process of the server.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

//! A cache in a bucket, on an S3-compatible server of this machine: PyPI's `localbucket`, which `make setup` installs, or
//! the one whose command `DIVER_BUCKET_SERVER` is, with `PORT` for the port (`make test-peers` tries moto's).
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{BucketStore, PartStore, conformance};
use diver_loaders::refine::Silent;
use diver_loaders::{Cache, CancelToken, Identity, MemorySource, Refine as _, Refinery};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A server with one bucket, `bucket`.
struct Server {
    process: Child,
    port: u16,
    /// The folder that it serves, if it is `localbucket`.
    folder: Option<tempfile::TempDir>,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (command, folder) = match std::env::var("DIVER_BUCKET_SERVER") {
            Ok(command) => (command.replace("PORT", &port.to_string()), None),
            Err(_) => {
                let folder = tempfile::tempdir().unwrap();
                std::fs::create_dir(folder.path().join("bucket")).unwrap();
                let served = folder.path().display();
                (format!(".venv/bin/python -m localbucket --port {port} {served}"), Some(folder))
            }
        };
        let mut words = command.split_whitespace();
        let process = Command::new(words.next().expect("a command"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("`{command}` (`make setup` makes .venv): {error}"));
        let server = Self { process, port, folder };
        let mut connection = (0..400).find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        if server.folder.is_none() {
            make_bucket(connection.as_mut().expect("the server answers"));
        }
        server
    }

    fn store(&self, url: &str) -> diver_loaders::Result<BucketStore> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
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
}

/// Makes the bucket on a server that asks for no signature.
fn make_bucket(connection: &mut TcpStream) {
    let request = "PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn set() -> MemorySource {
    let values = (0..24 * 12).map(|at| (at % 97) as f32 / 97.0).collect();
    MemorySource::unit(24, [3, 2, 2], values, (0..24).map(|at| at % 2).collect()).unwrap()
}

#[test]
fn a_bucket_is_a_store() {
    let server = Server::start();
    let store: Arc<dyn PartStore> = Arc::new(server.store("s3://bucket/a/prefix/").unwrap());
    conformance::check(&store);
    assert_eq!(store.place("x/y").to_str(), Some("s3://bucket/a/prefix/x/y"));
}

#[test]
fn processes_share_the_work_in_a_bucket() {
    let server = Server::start();
    let refined: usize = std::thread::scope(|scope| {
        let refine = || {
            let cache = Cache::on(server.store("s3://bucket/cache").unwrap());
            let mut refinery = Refinery::new(set(), Identity, Some(&cache)).unwrap();
            refinery.run(0..24, &CancelToken::new(), &Silent).unwrap().refined
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(refine)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(refined, 24, "each sample once");
    let cache = Cache::on(server.store("s3://bucket/cache").unwrap());
    let images = cache.images(&Identity.fingerprint().unwrap()).unwrap();
    assert_eq!(images.len(), 24);
    images.compact(&CancelToken::new()).unwrap();
    assert_eq!(cache.verify(&CancelToken::new(), &|_, _| ()).unwrap().rows, 24);
    // The files are those of a folder.
    if let Some(folder) = &server.folder {
        let local = Cache::open(folder.path().join("bucket/cache")).unwrap();
        assert_eq!(local.images(&Identity.fingerprint().unwrap()).unwrap().len(), 24);
    }
}

#[test]
fn what_is_not_there_is_told() {
    let server = Server::start();
    let error = server.store("s3://nothing/cache").unwrap_err().to_string();
    assert!(error.contains("s3://nothing/cache"), "{error}");
}

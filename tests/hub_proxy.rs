//! A hub behind proxies on the loopback: which of them is taken, and what is said of those that cannot be.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/hub.rs"]
mod server;

use server::{NEEDED, Place, files, snapshot};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// How a proxy is asked for a host; returns that, once the way is free.
type Speech = fn(&mut TcpStream) -> Option<String>;

/// A proxy that leads to one place, whatever it is asked for.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn new(place: &Place, speech: Speech) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap().to_string(), asked: Arc::default() };
        let (asked, to) = (proxy.asked.clone(), place.hub.endpoint.replace("http://", ""));
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let (asked, to) = (asked.clone(), to.clone());
                std::thread::spawn(move || {
                    let host = speech(&mut client)?;
                    asked.lock().unwrap().push(host);
                    let server = TcpStream::connect(to).ok()?;
                    let (from, back) = (client.try_clone().ok()?, server.try_clone().ok()?);
                    std::thread::spawn(move || pass_on(from, back));
                    pass_on(server, client);
                    Some(())
                });
            }
        });
        proxy
    }

    /// What it was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn read<const COUNT: usize>(client: &mut TcpStream) -> Option<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    client.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn http(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read::<1>(client)?);
    }
    let head = String::from_utf8(head).ok()?;
    let host = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    client.write_all(b"HTTP/1.1 200 X\r\n\r\n").ok()?;
    Some(host)
}

fn socks(client: &mut TcpStream) -> Option<String> {
    let [5, methods] = read(client)? else { return None };
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered).ok()?;
    client.write_all(&[5, 0]).ok()?;
    // The name itself, which it is the proxy's task to look up.
    let [5, 1, 0, 3, length] = read(client)? else { return None };
    let mut name = vec![0; length.into()];
    client.read_exact(&mut name).ok()?;
    let port = u16::from_be_bytes(read(client)?);
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(format!("{}:{port}", String::from_utf8(name).ok()?))
}

fn assert_whole(folder: &Path) {
    for file in NEEDED {
        assert!(fs::read(folder.join(file)).unwrap() == files()[file], "{file}");
    }
}

/// A hub that no name server knows.
const HUB: (&str, &str) = ("HF_ENDPOINT", "http://hub.invalid");

#[test]
fn the_proxy_of_the_scheme_is_taken_and_no_other() {
    let place = Place::new();
    let [own, all, other] = [http, socks, http].map(|speech: Speech| Proxy::new(&place, speech));
    let all_proxy = format!("socks5h://{}", all.address);
    let own_proxy = format!("http://{}", own.address);
    let variables = [
        HUB,
        ("http_proxy", &own_proxy),
        ("all_proxy", &all_proxy),
        ("HTTP_PROXY", &other.address),
        ("https_proxy", &other.address),
    ];
    assert_whole(&snapshot("owner/name", &place.options_with(&variables)).unwrap());
    let asked = own.asked();
    assert!(!asked.is_empty() && asked.iter().all(|host| host == "hub.invalid:80"), "{asked:?}");
    // Large files lie on this machine itself, which no proxy leads to.
    assert!(place.hub.log().iter().any(|asked| asked.host == "cdn"));
    assert!(all.asked().is_empty() && other.asked().is_empty());
}

#[test]
fn a_hub_with_encryption_is_behind_its_own_proxy() {
    let place = Place::new();
    let [own, all] = [http, socks].map(|speech: Speech| Proxy::new(&place, speech));
    for prefix in ["socks5", "socks5h"] {
        let all_proxy = format!("{prefix}://{}", all.address);
        let variables = [
            ("HF_ENDPOINT", "https://hub.invalid"),
            ("https_proxy", &own.address),
            ("all_proxy", &all_proxy),
        ];
        let mut options = place.options_with(&variables);
        options.retries = 0;
        // The hub behind it speaks without encryption.
        let error = snapshot("owner/name", &options).unwrap_err().to_string();
        assert!(error.starts_with("owner/name: is neither a folder here nor in the cache"), "{error}");
        assert_eq!(own.asked(), ["hub.invalid:443"]);
        assert!(all.asked().is_empty());
    }
}

#[test]
fn a_socks_proxy_looks_the_hub_up_and_leads_to_it() {
    let place = Place::new();
    let proxy = Proxy::new(&place, socks);
    let url = format!("socks5h://{}", proxy.address);
    assert_whole(&snapshot("owner/name", &place.options_with(&[HUB, ("ALL_PROXY", &url)])).unwrap());
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|host| host == "hub.invalid:80"), "{asked:?}");
}

#[test]
fn a_hub_in_no_proxy_is_reached_without_one() {
    let place = Place::new();
    let [first, second] = [http, socks].map(|speech: Speech| Proxy::new(&place, speech));
    let urls = [format!("http://{}", first.address), format!("socks5h://{}", second.address)];
    for url in &urls {
        for without in ["hub.invalid", "other.example, .invalid", "*"] {
            let variables = [HUB, ("http_proxy", url), ("no_proxy", without)];
            let mut options = place.options_with(&variables);
            options.retries = 0;
            let error = snapshot("owner/name", &options).unwrap_err().to_string();
            assert!(error.contains("is neither a folder here nor in the cache"), "{without}: {error}");
        }
    }
    assert!(first.asked().is_empty() && second.asked().is_empty());
}

#[test]
fn a_proxy_that_is_none_or_refuses_is_named() {
    let place = Place::new();
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let variables = [HUB, (name, "ftp://me:secret@proxy.example")];
        let error = snapshot("owner/name", &place.options_with(&variables)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: is not the URL of a proxy")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    // Where it is not needed, it does no harm.
    assert_whole(&snapshot("owner/name", &place.options_with(&[("http_proxy", "ftp://x")])).unwrap());
    let mut offline = place.options_with(&[HUB, ("http_proxy", "ftp://x")]);
    offline.offline = true;
    assert_whole(&snapshot("owner/name", &offline).unwrap());

    let place = Place::new();
    let proxy = Proxy::new(&place, |client| {
        let _ = client.write_all(b"HTTP/1.1 403 X\r\ncontent-length: 0\r\n\r\n");
        None
    });
    let options = place.options_with(&[HUB, ("http_proxy", &proxy.address)]);
    let error = snapshot("owner/name", &options).unwrap_err().to_string();
    assert!(error.contains("cannot be reached (") && error.contains("403"), "{error}");
}

#[test]
fn the_command_takes_them_from_its_environment() {
    let place = Place::new();
    let [own, all] = [http, socks].map(|speech: Speech| Proxy::new(&place, speech));
    let output = Command::new(env!("CARGO_BIN_EXE_diver"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["refine", "examples/digits/dm_ipc1", "--device", "cpu", "--backbone", "owner/name", "--cache"])
        .arg(place.home.path().join("refined"))
        .env("HF_HOME", place.home.path())
        .env(HUB.0, HUB.1)
        .env("http_proxy", format!("http://{}", own.address))
        .env("all_proxy", format!("socks5h://{}", all.address))
        .envs(["no_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"].map(|name| (name, "")))
        .env("HF_HUB_OFFLINE", "0")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap();
    // What came is no network's.
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("owner/name: transformer/config.json"), "{said}");
    assert!(!own.asked().is_empty() && all.asked().is_empty());
}

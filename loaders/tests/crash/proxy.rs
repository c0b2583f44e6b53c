//! Stands before a server, and answers 503 in its place while it is told to.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[derive(Default)]
struct State {
    is_down: AtomicBool,
    refused: AtomicUsize,
    /// What is open to the server: torn when it goes down.
    open: Mutex<Vec<TcpStream>>,
}

pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Stands before the server at a port of this machine, for as long as the process lives.
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, state) = (listener.local_addr().unwrap().port(), Arc::<State>::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A connection that is torn ends its thread.
                std::thread::spawn(move || drop(serve(client, server, &state)));
            }
        });
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many requests were answered with 503.
    pub(crate) fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, server: u16, state: &State) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    if state.is_down.load(Ordering::SeqCst) {
        return refuse(&mut client, state);
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", server))?;
    upstream.set_nodelay(true)?;
    state.open.lock().unwrap().extend([client.try_clone()?, upstream.try_clone()?]);
    let (mut from_server, mut to_client) = (upstream.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut upstream);
    let _ = upstream.shutdown(Shutdown::Both);
    answers.join().map_err(|_| ErrorKind::Other.into())
}

/// Answers one request, once its head is there.
fn refuse(client: &mut TcpStream, state: &State) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    state.refused.fetch_add(1, Ordering::SeqCst);
    client.write_all(ANSWER)?;
    client.shutdown(Shutdown::Write)?;
    // What else the client sends is read, so that it gets the answer and no reset.
    let _ = client.read_to_end(&mut head);
    Ok(())
}

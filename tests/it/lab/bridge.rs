//! A Unix domain socket in front of a backend, so that every backend of the lab can be reached through one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A socket that forwards connections to a TCP port. Dropping it closes the socket and leaves its file.
pub struct Bridge {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Bridge {
    /// Listens at a path, or at an abstract name that begins with `@`.
    pub fn start(at: &str, port: u16) -> Self {
        let address = match at.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
            None => SocketAddr::from_pathname(at).unwrap(),
        };
        let listener = UnixListener::bind_addr(&address).unwrap();
        let bridge = Self { address, closed: Arc::default(), connections: Arc::default() };
        let (closed, connections) = (Arc::clone(&bridge.closed), Arc::clone(&bridge.connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                join(stream, TcpStream::connect(("127.0.0.1", port)).unwrap());
            }
        });
        bridge
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        UnixStream::connect_addr(&self.address).ok();
        // The thread has closed the socket once a connection is refused.
        while UnixStream::connect_addr(&self.address).is_ok() {
            std::thread::yield_now();
        }
    }
}

/// Copies in both directions, each until its end.
fn join(unix: UnixStream, tcp: TcpStream) {
    let (from, to) = (unix.try_clone().unwrap(), tcp.try_clone().unwrap());
    std::thread::spawn(move || {
        copy(&from, &to);
        to.shutdown(Shutdown::Write).ok();
    });
    std::thread::spawn(move || {
        copy(&tcp, &unix);
        unix.shutdown(Shutdown::Both).ok();
    });
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

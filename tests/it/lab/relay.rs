//! Relays in front of a server, over TCP and UDP, whose port can be closed or blocked, as by a firewall.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::free_port;

/// How often a change of the port is noticed.
const POLL: Duration = Duration::from_millis(5);
/// How long a server has to answer over UDP.
const ANSWER: Duration = Duration::from_secs(1);

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const BLOCKED: u8 = 2;
const ENDED: u8 = 3;

/// The state of a port, which a test changes. Dropping it ends the relay.
#[derive(Default)]
pub struct Port(Arc<AtomicU8>);

impl Port {
    /// Nothing listens any more, and connections are reset.
    pub fn close(&self) {
        self.0.store(CLOSED, Ordering::SeqCst);
    }

    /// Packets of new and old connections are dropped.
    pub fn block(&self) {
        self.0.store(BLOCKED, Ordering::SeqCst);
    }

    /// The server can be reached again.
    pub fn open(&self) {
        self.0.store(OPEN, Ordering::SeqCst);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.0.store(ENDED, Ordering::SeqCst);
    }
}

/// Starts a relay over TCP to a port of 127.0.0.1. Returns its own port.
pub fn tcp(to: u16) -> (u16, Port) {
    let (own, port) = (free_port(), Port::default());
    let (mut listener, state) = (Some(listen(own)), Arc::clone(&port.0));
    std::thread::spawn(move || {
        let mut fillers = Vec::new();
        loop {
            match (state.load(Ordering::SeqCst), &listener) {
                (ENDED, _) => return,
                (CLOSED, _) => listener = None,
                (_, None) => listener = Some(listen(own)),
                (BLOCKED, Some(listener)) if fillers.is_empty() => {
                    // The kernel drops requests for connections if the queue of the listener is full.
                    SockRef::from(listener).listen(0).unwrap();
                    fillers.extend((0..4).map(|_| start_to_connect(own)));
                }
                (BLOCKED, Some(_)) => {}
                (_, Some(listener)) => {
                    if !fillers.is_empty() {
                        fillers.clear();
                        SockRef::from(listener).listen(128).unwrap();
                    }
                    if let Ok((client, _)) = listener.accept() {
                        relay(&client, to, &state);
                        continue;
                    }
                }
            }
            std::thread::sleep(POLL);
        }
    });
    (own, port)
}

fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn start_to_connect(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).ok();
    socket
}

fn relay(client: &TcpStream, to: u16, state: &Arc<AtomicU8>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
    for stream in [client, &server] {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(POLL)).unwrap();
        // Closing resets the connection.
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    for (from, into) in [(client, &server), (&server, client)] {
        let (from, into, state) = (from.try_clone().unwrap(), into.try_clone().unwrap(), Arc::clone(state));
        std::thread::spawn(move || forward(from, into, &state));
    }
}

/// Forwards bytes while the port is open.
fn forward(mut from: TcpStream, mut into: TcpStream, state: &AtomicU8) {
    let mut buffer = [0; 4096];
    loop {
        match state.load(Ordering::SeqCst) {
            OPEN => match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) if into.write_all(&buffer[..bytes]).is_ok() => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => break,
            },
            BLOCKED => std::thread::sleep(POLL),
            _ => return,
        }
    }
    into.shutdown(std::net::Shutdown::Both).ok();
}

/// Starts a relay over UDP to a port of 127.0.0.1. Returns its own port.
pub fn udp(to: u16) -> (u16, Port) {
    let (own, port) = (free_port(), Port::default());
    let (mut socket, state) = (Some(bind(own)), Arc::clone(&port.0));
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match (state.load(Ordering::SeqCst), &socket) {
                (ENDED, _) => return,
                (CLOSED, _) => {
                    socket = None;
                    std::thread::sleep(POLL);
                }
                (_, None) => socket = Some(bind(own)),
                (state, Some(socket)) => {
                    let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                    if state == OPEN {
                        let (question, socket) = (buffer[..length].to_vec(), socket.try_clone().unwrap());
                        std::thread::spawn(move || answer(&socket, client, &question, to));
                    }
                }
            }
        }
    });
    (own, port)
}

fn bind(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(POLL)).unwrap();
    socket
}

/// Asks the server, and sends its answer to the client.
fn answer(socket: &UdpSocket, client: SocketAddr, question: &[u8], to: u16) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(ANSWER)).unwrap();
    server.connect(("127.0.0.1", to)).unwrap();
    let mut buffer = [0; 4096];
    if server.send(question).is_ok()
        && let Ok(length) = server.recv(&mut buffer)
    {
        socket.send_to(&buffer[..length], client).ok();
    }
}

//! A backend inside the test that follows a script: it records every byte that
//! the proxy sent, and answers with odd bytes, resets or silence.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::framing::{Extent, find, request_extent};
use super::ports::{free_port, loopback};

/// A listening scripted backend. Dropping it stops it and ends its connections.
pub struct Scripted {
    address: SocketAddr,
    record: Arc<Record>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Record {
    connections: Mutex<Vec<Connection>>,
    changed: Condvar,
    stopped: AtomicBool,
}

struct Connection {
    received: Vec<u8>,
    // Weak, so that the socket really closes where the script drops its wire.
    stream: Weak<TcpStream>,
}

/// One connection in the hands of the script. What the script reads from it is
/// recorded; dropping it closes the connection.
pub struct Wire {
    stream: Arc<TcpStream>,
    number: usize,
    record: Arc<Record>,
    pending: Vec<u8>,
}

impl Scripted {
    /// Listens on a free port and runs the script, on a thread of its own, for
    /// each connection; it is told the connection's number, from 0.
    pub fn new(script: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        Self::new_on(free_port(), script)
    }

    /// Like [`Scripted::new`], on this port.
    pub fn new_on(port: u16, script: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        let script = Arc::new(script);
        let acceptor = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let wire = Wire::new(stream, number, &shared);
                let script = Arc::clone(&script);
                thread::spawn(move || script(wire, number));
            }
        });
        Self {
            address: loopback(port),
            record,
            acceptor: Some(acceptor),
        }
    }

    /// Answers every request, on kept-alive connections, with these bytes.
    pub fn answering(answer: &[u8]) -> Self {
        let answer = answer.to_vec();
        Self::new(move |mut wire, _| {
            while wire.read_request().is_some() && wire.send(&answer) {}
        })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.record.lock().len()
    }

    /// The bytes that the script has read from this connection, from 0.
    pub fn received(&self, number: usize) -> Vec<u8> {
        let connections = self.record.lock();
        connections
            .get(number)
            .map(|connection| connection.received.clone())
            .unwrap_or_default()
    }

    /// Like [`Scripted::received`], as text.
    pub fn received_text(&self, number: usize) -> String {
        String::from_utf8_lossy(&self.received(number)).into_owned()
    }

    /// Waits until so many connections have been made.
    ///
    /// # Panics
    ///
    /// When they have not in time.
    pub fn wait_for_connections(&self, count: usize, within: Duration) {
        let done = self.wait(within, |connections| connections.len() >= count);
        let seen = self.connections();
        assert!(done, "{seen} of {count} connections within {within:?}");
    }

    /// Waits until the bytes read from this connection contain the pattern.
    ///
    /// # Panics
    ///
    /// When they do not in time; the message holds what came.
    pub fn wait_for_bytes(&self, number: usize, pattern: &[u8], within: Duration) {
        let done = self.wait(within, |connections| {
            let connection = connections.get(number);
            connection.is_some_and(|connection| find(&connection.received, pattern).is_some())
        });
        assert!(
            done,
            "connection {number} did not send {:?} within {within:?}, but:\n{}",
            String::from_utf8_lossy(pattern),
            self.received_text(number)
        );
    }

    fn wait(&self, within: Duration, condition: impl Fn(&[Connection]) -> bool) -> bool {
        let connections = self.record.lock();
        let waited = self.record.changed.wait_timeout_while(
            connections,
            within,
            |connections| !condition(connections),
        );
        let (_guard, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.record.stopped.store(true, Ordering::SeqCst);
        // Only a connection wakes the acceptor out of its wait.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        // Scripts that wait for the peer see its end and return.
        for connection in self.record.lock().iter() {
            if let Some(stream) = connection.stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Record {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn new(stream: TcpStream, number: usize, record: &Arc<Record>) -> Self {
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let connection = Connection {
            received: Vec::new(),
            stream: Arc::downgrade(&stream),
        };
        let mut connections = record.lock();
        // Failed accepts leave holes in the numbers, but none on the loopback.
        assert_eq!(connections.len(), number, "connections are numbered in order");
        connections.push(connection);
        drop(connections);
        record.changed.notify_all();
        Self {
            stream,
            number,
            record: Arc::clone(record),
            pending: Vec::new(),
        }
    }

    /// The socket itself; what is read from it directly is not recorded.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads up to the end of the next head and returns it with its empty line;
    /// nothing when the peer closes before. A body stays to be read.
    pub fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.pending, b"\r\n\r\n") {
                let head: Vec<u8> = self.pending.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.more()?;
        }
    }

    /// Reads the next request whole; nothing when the peer closes before, or
    /// sends no HTTP.
    pub fn read_request(&mut self) -> Option<Vec<u8>> {
        loop {
            match request_extent(&self.pending) {
                Extent::Whole(length) => return Some(self.pending.drain(..length).collect()),
                Extent::Malformed(_) => return None,
                Extent::Partial | Extent::UntilClose => self.more()?,
            }
        }
    }

    /// Sends the bytes; tells whether the peer was there to take them.
    pub fn send(&self, bytes: &[u8]) -> bool {
        (&*self.stream).write_all(bytes).is_ok()
    }

    /// Says nothing and reads on until the peer, or the test, ends the connection.
    pub fn hang(&mut self) {
        while self.more().is_some() {}
    }

    /// Breaks the connection off with a reset instead of a close in order.
    pub fn reset(self) {
        // To linger for zero seconds is how a socket is told to reset at close.
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&*self.stream, sockopt::Linger, &at_once).expect("an open socket");
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = vec![0; 64 * 1024];
        let length = self.read_recorded(&mut piece).ok().filter(|length| *length > 0)?;
        self.pending.extend_from_slice(&piece[..length]);
        Some(())
    }

    fn read_recorded(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (&*self.stream).read(buffer)?;
        let mut connections = self.record.lock();
        connections[self.number].received.extend_from_slice(&buffer[..length]);
        drop(connections);
        self.record.changed.notify_all();
        Ok(length)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pending.is_empty() {
            return self.read_recorded(buffer);
        }
        let length = self.pending.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.pending[..length]);
        self.pending.drain(..length);
        Ok(length)
    }
}

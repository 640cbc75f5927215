//! Lines to a syslog receiver (RFC 5424): over UDP (RFC 5426), over TCP with octet counting (RFC 6587 §3.4.1), and
//! over a Unix socket: datagrams, or a stream with line ends (RFC 6587 §3.4.2).
//!
//! While a receiver is down or slow, the caller keeps the lines that were not sent. Only UDP loses them: there is no
//! confirmation to wait for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::message::Header;
pub use super::message::{Config, Spec, Transport};

/// How long a connection may take, for each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one write may take before the caller is asked whether to continue.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// After this time without progress, a connection is replaced.
const STALLED: Duration = Duration::from_secs(30);

/// A refused UDP receiver is looked up again after this time, because its name may have another address.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Bytes of messages that one write may have.
const BATCH: usize = 64 << 10;

/// Linux: the socket at the path has another type; the message is too long.
const EPROTOTYPE: i32 = 91;
const EMSGSIZE: i32 = 90;

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

/// What became of lines.
pub(super) struct Sent {
    /// The bytes of the lines that need no further attempt.
    pub(super) taken: usize,
    /// How many of these lines are lost.
    pub(super) lost: u64,
    /// Why the rest was not sent, or why lines are lost.
    pub(super) error: Option<io::Error>,
}

/// The messages of a stream that are being written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// For each message: its end in `bytes`, and the end of its line in the lines of the caller.
    ends: Vec<(usize, usize)>,
    written: usize,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.written = 0;
    }

    /// Removes the messages that are complete; returns the end of their lines.
    fn take_complete(&mut self) -> usize {
        let complete = self.ends.iter().take_while(|(end, _)| *end <= self.written).count();
        let Some((bytes, lines)) = complete.checked_sub(1).and_then(|last| self.ends.get(last)).copied() else {
            return 0;
        };
        self.ends.drain(..complete);
        self.bytes.drain(..bytes);
        self.written -= bytes;
        self.ends.iter_mut().for_each(|(end, line)| (*end, *line) = (*end - bytes, *line - lines));
        lines
    }
}

/// A syslog receiver.
pub(super) struct Syslog {
    spec: Spec,
    header: Header,
    socket: Option<Socket>,
    batch: Batch,
    progress: Instant,
}

impl Syslog {
    pub(super) fn new(spec: Spec, now: Instant) -> Self {
        let header = Header::new(&spec);
        Self { spec, header, socket: None, batch: Batch::default(), progress: now }
    }

    /// Where it is, for messages.
    pub(super) fn place(&self) -> String {
        self.spec.transport.to_string()
    }

    /// Forgets the connection; the next line makes another one.
    pub(super) fn disconnect(&mut self) {
        self.socket = None;
        self.batch.clear();
    }

    /// Sends complete lines. The next call must start with the rest of `lines`.
    pub(super) fn send(&mut self, lines: &str, now: Instant) -> Sent {
        if self.batch.ends.is_empty() && self.socket.as_mut().is_some_and(is_closed) {
            self.disconnect();
        }
        if self.socket.is_none() {
            match connect(&self.spec.transport) {
                Ok(socket) => (self.socket, self.progress) = (Some(socket), now),
                Err(e) => return self.failed(lines, e),
            }
        }
        match &self.socket {
            Some(Socket::Tcp(_) | Socket::Stream(_)) => self.send_stream(lines, now),
            _ => {
                let sent = self.send_datagrams(lines);
                // For UDP, `progress` is the time of the look-up.
                if sent.lost > 0 && now.saturating_duration_since(self.progress) >= LOOK_UP {
                    self.disconnect();
                }
                sent
            }
        }
    }

    /// UDP loses lines if the name of the receiver is unknown; other transports wait.
    fn failed(&self, lines: &str, e: io::Error) -> Sent {
        match self.spec.transport {
            Transport::Udp(_) => Sent { taken: lines.len(), lost: lines.lines().count() as u64, error: Some(e) },
            _ => Sent { taken: 0, lost: 0, error: Some(e) },
        }
    }

    fn send_datagrams(&mut self, lines: &str) -> Sent {
        let mut sent = Sent { taken: 0, lost: 0, error: None };
        let mut message = Vec::with_capacity(1024);
        for line in lines.split_inclusive('\n') {
            message.clear();
            self.header.push_message(line.trim_end_matches('\n'), &mut message);
            let result = match &self.socket {
                Some(Socket::Udp(socket)) => send_udp(socket, &message),
                Some(Socket::Datagram(socket)) => socket.send(&message).map(|_| 0),
                _ => Err(ErrorKind::NotConnected.into()),
            };
            match result {
                Ok(lost) => sent.lost += lost,
                Err(e) if matches!(self.socket, Some(Socket::Udp(_))) || e.raw_os_error() == Some(EMSGSIZE) => {
                    sent.lost += 1;
                    sent.error = Some(e);
                }
                Err(e) => {
                    if e.kind() != ErrorKind::WouldBlock {
                        self.socket = None;
                    }
                    sent.error = Some(e);
                    return sent;
                }
            }
            sent.taken += line.len();
        }
        if sent.lost > 0 && sent.error.is_none() {
            sent.error = Some(ErrorKind::ConnectionRefused.into());
        }
        sent
    }

    fn send_stream(&mut self, lines: &str, now: Instant) -> Sent {
        let mut taken = 0;
        loop {
            if self.batch.ends.is_empty() {
                let rest = lines.get(taken..).unwrap_or_default();
                if rest.is_empty() {
                    return Sent { taken, lost: 0, error: None };
                }
                self.fill(rest);
            }
            let unwritten = self.batch.bytes.get(self.batch.written..).unwrap_or_default();
            let result = match &mut self.socket {
                Some(Socket::Tcp(stream)) => stream.write(unwritten),
                Some(Socket::Stream(stream)) => stream.write(unwritten),
                _ => Err(ErrorKind::NotConnected.into()),
            };
            let error = match result {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(written) => {
                    self.batch.written += written;
                    self.progress = now;
                    taken += self.batch.take_complete();
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            let slow = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            if !slow || now.saturating_duration_since(self.progress) > STALLED {
                // What was written of a message is void: the receiver cannot know its end.
                self.disconnect();
            }
            let error = if slow { io::Error::new(ErrorKind::TimedOut, "the receiver does not read") } else { error };
            return Sent { taken, lost: 0, error: Some(error) };
        }
    }

    /// Makes the next messages.
    fn fill(&mut self, lines: &str) {
        self.batch.clear();
        let counts_octets = matches!(self.socket, Some(Socket::Tcp(_)));
        let (mut message, mut line_end) = (Vec::with_capacity(1024), 0);
        for line in lines.split_inclusive('\n') {
            message.clear();
            self.header.push_message(line.trim_end_matches('\n'), &mut message);
            if counts_octets {
                self.batch.bytes.extend_from_slice(itoa::Buffer::new().format(message.len()).as_bytes());
                self.batch.bytes.push(b' ');
            } else {
                message.push(b'\n');
            }
            self.batch.bytes.extend_from_slice(&message);
            line_end += line.len();
            self.batch.ends.push((self.batch.bytes.len(), line_end));
            if self.batch.bytes.len() >= BATCH {
                break;
            }
        }
    }
}

/// Sends a datagram. An error about an earlier one, which the receiver has refused, is returned by the next call: then
/// that one is lost, and this one is sent. Returns how many are lost.
fn send_udp(socket: &UdpSocket, message: &[u8]) -> io::Result<u64> {
    match socket.send(message) {
        Ok(_) => Ok(0),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => socket.send(message).map(|_| 1),
        Err(e) => Err(e),
    }
}

/// Whether the receiver has closed a stream. A write would only notice it afterwards, and lose what it wrote.
fn is_closed(socket: &mut Socket) -> bool {
    fn ended(stream: &mut impl Read) -> bool {
        let mut ignored = [0; 256];
        loop {
            match stream.read(&mut ignored) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
    }
    match socket {
        Socket::Tcp(stream) => {
            stream.set_nonblocking(true).is_err() || ended(stream) || stream.set_nonblocking(false).is_err()
        }
        Socket::Stream(stream) => {
            stream.set_nonblocking(true).is_err() || ended(stream) || stream.set_nonblocking(false).is_err()
        }
        Socket::Udp(_) | Socket::Datagram(_) => false,
    }
}

fn connect(transport: &Transport) -> io::Result<Socket> {
    match transport {
        Transport::Udp(receiver) => {
            let address = resolve(receiver)?.next().ok_or(ErrorKind::NotFound)?;
            let any = if address.is_ipv4() {
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
            } else {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            Ok(Socket::Udp(socket))
        }
        Transport::Tcp(receiver) => {
            let mut error = io::Error::from(ErrorKind::NotFound);
            for address in resolve(receiver)? {
                match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                    Ok(stream) => {
                        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                        return Ok(Socket::Tcp(stream));
                    }
                    Err(e) => error = e,
                }
            }
            Err(error)
        }
        Transport::Unix(path) => connect_unix(path),
    }
}

fn connect_unix(path: &PathBuf) -> io::Result<Socket> {
    let socket = UnixDatagram::unbound()?;
    match socket.connect(path) {
        Ok(()) => {
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            Ok(Socket::Datagram(socket))
        }
        Err(e) if e.raw_os_error() == Some(EPROTOTYPE) => {
            let stream = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            // It applies to the connection, too: without it, a full queue of the receiver would block the thread.
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            stream.connect(&socket2::SockAddr::unix(path)?)?;
            Ok(Socket::Stream(OwnedFd::from(stream).into()))
        }
        Err(e) => Err(e),
    }
}

fn resolve(receiver: &str) -> io::Result<impl Iterator<Item = SocketAddr>> {
    receiver.to_socket_addrs()
}

#[cfg(test)]
mod tests {
    use super::super::message::push_time;
    use super::*;
    use crate::base::fault::{Faults, Place};

    fn to(address: String, now: Instant) -> Syslog {
        let config = Config { address: Some(address), ..Config::default() };
        Syslog::new(config.check(&Place::root(), &mut Faults::default()).unwrap(), now)
    }

    /// A line with the time that precedes it.
    fn line() -> String {
        let mut line = String::new();
        push_time(&mut line, std::time::SystemTime::UNIX_EPOCH);
        line + "one\n"
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the epoch of the test")]
    fn stream_receiver_that_does_not_accept_connections_does_not_block_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        // It takes the only place in the queue.
        let _waiting = UnixStream::connect(&path).unwrap();
        let now = Instant::now();
        let (mut syslog, line) = (to(format!("unix:{}", path.display()), now), line());
        let sent = syslog.send(&line, now);
        assert_eq!((sent.taken, sent.lost), (0, 0));
        assert!(sent.error.is_some());
        drop(listener.accept().unwrap());
        assert_eq!(syslog.send(&line, now).taken, line.len());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the epoch of the test")]
    fn refused_udp_receiver_is_looked_up_again() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let now = Instant::now();
        let (mut syslog, line) = (to(format!("udp:127.0.0.1:{port}"), now), line());
        for _ in 0..2 {
            syslog.send(&line, now);
            assert!(syslog.socket.is_some());
        }
        let sent = syslog.send(&line, now + LOOK_UP);
        assert_eq!((sent.taken, sent.lost), (line.len(), 1));
        assert!(syslog.socket.is_none(), "the next line resolves the name");
    }

    #[test]
    fn messages_that_were_written_completely_are_not_sent_again() {
        let mut batch = Batch { bytes: b"aaabbcccc".to_vec(), ends: vec![(3, 10), (5, 17), (9, 30)], written: 2 };
        assert_eq!(batch.take_complete(), 0, "no message is complete");
        batch.written = 6;
        assert_eq!(batch.take_complete(), 17, "two lines are done");
        assert_eq!((batch.bytes.as_slice(), batch.ends.as_slice(), batch.written), (&b"cccc"[..], &[(4, 13)][..], 1));
        batch.written = 4;
        assert_eq!(batch.take_complete(), 13);
        assert!(batch.bytes.is_empty() && batch.ends.is_empty() && batch.written == 0);
    }
}

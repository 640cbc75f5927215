//! Ready HTTP clients for each protocol, and raw exchanges of bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};

use super::framing::{Extent, answer_extent};
use super::tls;

/// How long any exchange may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 over TLS.
    Http1Tls,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    /// HTTP/2 over TLS.
    Http2Tls,
}

impl Protocol {
    /// Its name in the ALPN of TLS.
    pub fn alpn(self) -> &'static str {
        match self {
            Self::Http1 | Self::Http1Tls => "http/1.1",
            Self::Http2 | Self::Http2Tls => "h2",
        }
    }

    /// Whether it goes through TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::Http2Tls)
    }
}

/// A client for this protocol, to be tuned further. It trusts any certificate,
/// uses no proxy, follows no redirect and times out after ten seconds.
///
/// Its connection pool silently repeats a request whose reused connection turns
/// out dead; a test that must see every failure uses [`super::load`] or [`raw`].
pub fn builder(protocol: Protocol) -> ClientBuilder {
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .tls_backend_preconfigured(tls::trusting(&[protocol.alpn()]));
    match protocol {
        Protocol::Http1 | Protocol::Http1Tls => builder.http1_only(),
        Protocol::Http2 | Protocol::Http2Tls => builder.http2_prior_knowledge(),
    }
}

/// A client for this protocol.
pub fn client(protocol: Protocol) -> Client {
    builder(protocol).build().expect("a client")
}

/// A client for this protocol that finds these hosts on the loopback, at the
/// port that the URL names.
pub fn client_for(protocol: Protocol, hosts: &[&str]) -> Client {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    hosts
        .iter()
        .fold(builder(protocol), |builder, host| builder.resolve(host, loopback))
        .build()
        .expect("a client")
}

/// A client for HTTP/1.1 without TLS.
pub fn http1() -> Client {
    client(Protocol::Http1)
}

/// A client for HTTP/1.1 over TLS.
pub fn http1_tls() -> Client {
    client(Protocol::Http1Tls)
}

/// A client for HTTP/2 without TLS, by prior knowledge.
pub fn http2() -> Client {
    client(Protocol::Http2)
}

/// A client for HTTP/2 over TLS.
pub fn http2_tls() -> Client {
    client(Protocol::Http2Tls)
}

/// How a raw exchange came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A complete answer is there; the connection may still be open.
    Complete,
    /// The peer closed the connection.
    Closed,
    /// The peer reset the connection, or could not be written to and read from.
    Reset,
    /// Nothing more came in time.
    TimedOut,
}

/// What came back in a raw exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// All the bytes.
    pub received: Vec<u8>,
    /// Why there are no more.
    pub ending: Ending,
}

impl Exchange {
    /// The bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// Sends the bytes and returns what comes back: one complete answer, or all up
/// to the close, a reset or the time limit.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange(address, bytes, TIMEOUT, true).received
}

/// Like [`raw`], as text.
pub fn raw_text(address: SocketAddr, bytes: &[u8]) -> String {
    exchange(address, bytes, TIMEOUT, true).text()
}

/// Like [`raw`], but reads on behind a complete answer, until the connection
/// ends or the time is over: for pipelined requests, and to see that or how the
/// peer closes.
pub fn raw_until_close(address: SocketAddr, bytes: &[u8], within: Duration) -> Exchange {
    exchange(address, bytes, within, false)
}

/// Sends the bytes and collects what comes back within the time; with
/// `one_answer` it stops at the end of the first final answer.
pub fn exchange(
    address: SocketAddr,
    bytes: &[u8],
    within: Duration,
    one_answer: bool,
) -> Exchange {
    let mut stream = connect(address);
    // A peer may refuse and close before it has read all; its answer counts.
    let _ = stream.write_all(bytes);
    collect(&mut stream, within, method_of(bytes), one_answer, |stream| stream)
}

/// Like [`exchange`] up to one answer, over TLS with HTTP/1.1, asking for this
/// host by SNI.
pub fn raw_tls(address: SocketAddr, host: &str, bytes: &[u8]) -> Exchange {
    let mut stream = connect_tls(address, host, &["http/1.1"]);
    let _ = stream.write_all(bytes);
    collect(&mut stream, TIMEOUT, method_of(bytes), true, |stream| &stream.sock)
}

/// The certificate (DER) that the server shows for this host.
///
/// # Panics
///
/// When the handshake fails.
pub fn shown_certificate(address: SocketAddr, host: &str) -> Vec<u8> {
    let mut stream = connect_tls(address, host, &[]);
    while stream.conn.is_handshaking() {
        let handshake = stream.conn.complete_io(&mut stream.sock);
        handshake.unwrap_or_else(|error| panic!("TLS handshake for {host}: {error}"));
    }
    let shown = stream.conn.peer_certificates();
    let first = shown.and_then(<[CertificateDer<'_>]>::first);
    first.expect("a server shows a certificate").to_vec()
}

/// Connects, with the harness's time limit on reads and writes.
///
/// # Panics
///
/// When nobody listens there.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_nodelay(true).expect("an open socket");
    stream.set_read_timeout(Some(TIMEOUT)).expect("not zero");
    stream.set_write_timeout(Some(TIMEOUT)).expect("not zero");
    stream
}

/// Connects for TLS, trusting any certificate; the handshake comes with the
/// first read or write.
pub fn connect_tls(
    address: SocketAddr,
    host: &str,
    protocols: &[&str],
) -> StreamOwned<ClientConnection, TcpStream> {
    let config = Arc::new(tls::trusting(protocols));
    let session = ClientConnection::new(config, tls::server_name(host)).expect("a TLS client");
    StreamOwned::new(session, connect(address))
}

fn method_of(request: &[u8]) -> &str {
    let word = request.split(|byte| *byte == b' ').next();
    word.and_then(|word| std::str::from_utf8(word).ok())
        .unwrap_or_default()
}

fn collect<S: Read>(
    stream: &mut S,
    within: Duration,
    method: &str,
    one_answer: bool,
    socket: impl Fn(&S) -> &TcpStream,
) -> Exchange {
    let deadline = Instant::now() + within;
    let mut received = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let ending = loop {
        if one_answer && matches!(answer_extent(&received, method).0, Extent::Whole(_)) {
            break Ending::Complete;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Ending::TimedOut;
        }
        let limited = socket(stream).set_read_timeout(Some(left));
        limited.expect("not zero");
        match stream.read(&mut piece) {
            Ok(0) => break Ending::Closed,
            Ok(length) => received.extend_from_slice(&piece[..length]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => break Ending::TimedOut,
                _ => break Ending::Reset,
            },
        }
    };
    Exchange { received, ending }
}

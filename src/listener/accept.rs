//! From a socket to HTTP: accepts a connection, reads the PROXY protocol header, does the TLS handshake, and
//! detects the HTTP version.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest, Stream};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::connection_counts::{LimitReached, Slot};
use super::drain::OpenConnection;
use super::engine::Engine;
use super::sockets::AsyncListener;
use super::stream::ClientStream;
use super::worker_context::WorkerContext;
use super::{http1, http2};
use crate::base::accept_errors::AcceptErrors;
use crate::base::cause::Cause;
use crate::http::client_address::{TrustedProxies, canonical};
use crate::http::proxy_protocol;
use crate::listener::connection::{Connection, Policy};
use crate::observe::metrics::CountedConnection;
use crate::tls::Terminator;

/// The pause of the accept loop when the process has no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The time without a new connection after which the accept queue counts as empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// The longest time for emptying the accept queue.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);

/// The settings with which a listener accepts connections.
pub struct AcceptorSettings {
    /// TLS, if the listener uses it.
    pub tls: Option<Arc<Terminator>>,
    /// The peers that must start with a PROXY protocol header; others must not.
    pub proxy_protocol: TrustedProxies,
    /// The settings for every request on its connections.
    pub policy: Arc<Policy>,
}

/// Accepts connections until draining starts, and then those that are still in the kernel's accept queue:
/// closing the socket would reset them.
pub(super) async fn accept<E: Engine>(
    worker: Arc<WorkerContext<E>>,
    listener: AsyncListener,
    settings: Arc<AcceptorSettings>,
) {
    let (mut draining, _accept_loop) = (worker.drain.started(), worker.drain.accept_loop());
    loop {
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => break,
            () = accept_one(&worker, &listener, &settings) => {}
        }
    }
    let rest = async { while timeout(QUEUE_PAUSE, accept_one(&worker, &listener, &settings)).await.is_ok() {} };
    // Under load new connections always arrive, so the time is limited.
    timeout(QUEUE_LIMIT, rest).await.ok();
}

/// Accepts one connection and starts serving it.
async fn accept_one<E: Engine>(
    worker: &Arc<WorkerContext<E>>,
    listener: &AsyncListener,
    settings: &Arc<AcceptorSettings>,
) {
    // At the connection limit clients wait in the kernel's accept queue.
    worker.connections.wait_for_slot().await;
    match listener.accept().await {
        Ok((io, peer)) => {
            let peer = peer.map_or(UNIX_CLIENT, |peer| SocketAddr::new(canonical(peer.ip()), peer.port()));
            let open = worker.drain.connection(io.as_raw_fd());
            let accepted = AcceptedSocket { io, peer, settings: Arc::clone(settings) };
            tokio::spawn(serve(Arc::clone(worker), accepted, open));
        }
        Err(e) => pause_after(&e, &worker.accept_errors).await,
    }
}

/// A connection before its first byte was read.
struct AcceptedSocket {
    io: L4Stream,
    peer: SocketAddr,
    settings: Arc<AcceptorSettings>,
}

/// The address used for clients of a Unix-domain socket, which have none.
const UNIX_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An accept error of a single connection is ignored. After an error of the process the loop pauses, because
/// the next accept would fail immediately as well.
async fn pause_after(e: &io::Error, errors: &AcceptErrors) {
    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    errors.report(e, Instant::now().into_std());
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}

/// Why a connection was closed before HTTP.
struct Closed {
    cause: Cause,
    detail: String,
}

impl Closed {
    fn because(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

/// Serves one connection to its end.
async fn serve<E: Engine>(worker: Arc<WorkerContext<E>>, accepted: AcceptedSocket, open: OpenConnection) {
    let peer = accepted.peer;
    let counted = worker.observers.metrics.connection(&accepted.settings.policy.listener);
    // Boxed, so that the memory of the handshake is not kept for the life of the connection.
    let establishing: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(establish(&worker, accepted, &counted));
    match timeout(worker.timeouts().handshake, establishing).await {
        // Boxed, so that an HTTP/1 connection does not need the memory of an HTTP/2 one.
        Ok(Ok((stream, _slot, true))) => Box::pin(http2::serve(&worker, stream, open)).await,
        Ok(Ok((stream, _slot, false))) => http1::serve(&worker, stream).await,
        Ok(Err(Closed { cause, detail })) => {
            counted.rejected(cause);
            log::debug!("connection from {peer}: {detail}");
        }
        Err(_) => {
            counted.rejected(Cause::HandshakeTimeout);
            log::debug!("connection from {peer}: handshake timeout");
        }
    }
}

/// Does everything before HTTP. Returns whether the client uses HTTP/2.
async fn establish<E: Engine>(
    worker: &WorkerContext<E>,
    accepted: AcceptedSocket,
    counted: &CountedConnection,
) -> Result<(ClientStream, Slot, bool), Closed> {
    let opened = Instant::now().into_std();
    let AcceptedSocket { mut io, peer, settings } = accepted;
    let local = io.get_socket_digest().and_then(|digest| digest.local_addr()?.as_inet().copied());
    let (mut peer, mut local) = (peer, local);
    if settings.proxy_protocol.contains(peer.ip()) {
        let header = read_proxy_header(&mut io).await.map_err(|e| Closed::because(Cause::ProxyProtocol, e))?;
        peer = header.source.map_or(peer, |source| SocketAddr::new(canonical(source.ip()), source.port()));
        local = header.destination.or(local);
    }
    if !worker.may_connect(&settings.policy.listener, peer) {
        return Err(Closed::because(Cause::AccessDenied, "the rules of the listener deny the peer"));
    }
    let slot = loop {
        match worker.admit(peer) {
            // Another worker has used the last free slot meanwhile.
            Err(LimitReached::Total) => worker.connections.wait_for_slot().await,
            admitted => break admitted.map_err(|e| Closed::because(Cause::ConnectionLimit, e.to_string()))?,
        }
    };
    let timeouts = worker.timeouts();
    let connection =
        |handshake| Arc::new(Connection::new((peer, local), opened, handshake, Arc::clone(&settings.policy)));
    if let Some(tls) = &settings.tls {
        let (stream, result) = tls.handshake(io).await.map_err(|e| Closed::because(Cause::TlsHandshake, e))?;
        counted.handshake(result.version, result.resumed);
        let (h2, connection) = (stream.is_http2(), connection(Some(result)));
        let stream: Stream = Box::new(stream);
        return Ok((ClientStream::new(stream, connection, timeouts, BytesMut::new()), slot, h2));
    }
    let mut stream: Stream = Box::new(io);
    let mut unread = BytesMut::new();
    let h2 =
        detect_http2(&mut stream, &mut unread).await.map_err(|e| Closed::because(Cause::ClosedEarly, e.to_string()))?;
    Ok((ClientStream::new(stream, connection(None), timeouts, unread), slot, h2))
}

/// Reads the PROXY protocol header of a trusted proxy, and no byte after it.
async fn read_proxy_header(io: &mut L4Stream) -> Result<proxy_protocol::Header, String> {
    let mut read = Vec::new();
    loop {
        match proxy_protocol::parse(&read) {
            Ok(Some((header, length))) => {
                io.rewind(read.get(length..).unwrap_or_default());
                return Ok(header);
            }
            Ok(None) => {}
            Err(malformed) => return Err(format!("PROXY protocol: {malformed}")),
        }
        let mut space = [0; 512];
        match io.read(&mut space).await.map_err(|e| e.to_string())? {
            0 => return Err("PROXY protocol: the connection was closed".to_owned()),
            bytes => read.extend_from_slice(space.get(..bytes).unwrap_or_default()),
        }
    }
}

/// The first bytes of the HTTP/2 connection preface (RFC 9113 §3.4). No HTTP/1 request starts with them: the
/// method `PRI` is reserved.
const PREFACE: &[u8; 4] = b"PRI ";

/// Reads the first bytes of a connection without TLS, which distinguish HTTP/2 from HTTP/1.
async fn detect_http2(stream: &mut Stream, read: &mut BytesMut) -> io::Result<bool> {
    loop {
        if !PREFACE.starts_with(read) {
            return Ok(read.starts_with(PREFACE));
        }
        if read.len() == PREFACE.len() {
            return Ok(true);
        }
        let mut space = [0; 512];
        match stream.read(&mut space).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => read.extend_from_slice(space.get(..bytes).unwrap_or_default()),
        }
    }
}

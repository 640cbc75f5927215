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
use pingora_core::protocols::{ALPN, GetSocketDigest, Stream};
use pingora_proxy::ProxyHttp;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::caps::{Refused, Slot};
use super::drain::Open;
use super::service::Service;
use super::sockets::Incoming;
use super::stream::ClientStream;
use super::{http1, http2};
use crate::http::client_address::{TrustedProxies, canonical};
use crate::http::proxy_protocol;
use crate::listener::connection::{Connection, Policy};
use crate::tls::Terminator;

/// The pause of the accept loop when the process has no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The time without a new connection after which the accept queue counts as empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// The longest time for emptying the accept queue.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);

/// The settings of one listener for its connections.
pub struct Entrance {
    /// TLS, if the listener uses it.
    pub tls: Option<Arc<Terminator>>,
    /// The peers that must start with a PROXY protocol header; others must not.
    pub proxy_protocol: TrustedProxies,
    /// The settings for every request.
    pub policy: Arc<Policy>,
}

/// Accepts connections until draining starts, and then those that are still in the kernel's accept queue:
/// closing the socket would reset them.
pub(super) async fn accept<P>(service: Arc<Service<P>>, incoming: Incoming, entrance: Arc<Entrance>)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let (mut begun, _door) = (service.drain.begun(), service.drain.door());
    loop {
        tokio::select! {
            biased;
            _ = begun.wait_for(|begun| *begun) => break,
            () = admit(&service, &incoming, &entrance) => {}
        }
    }
    let rest = async { while timeout(QUEUE_PAUSE, admit(&service, &incoming, &entrance)).await.is_ok() {} };
    // Under load new connections always arrive, so the time is limited.
    timeout(QUEUE_LIMIT, rest).await.ok();
}

/// Accepts one connection and starts serving it.
async fn admit<P>(service: &Arc<Service<P>>, incoming: &Incoming, entrance: &Arc<Entrance>)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // At the connection limit clients wait in the kernel's accept queue.
    service.caps.wait_for_place().await;
    match incoming.accept().await {
        Ok((io, peer)) => {
            let peer = peer.map_or(NO_ADDRESS, |peer| SocketAddr::new(canonical(peer.ip()), peer.port()));
            let open = service.drain.connection(io.as_raw_fd());
            let arrival = Arrival { io, peer, entrance: Arc::clone(entrance) };
            tokio::spawn(serve(Arc::clone(service), arrival, open));
        }
        Err(e) => pause_after(&e).await,
    }
}

/// A connection before its first byte was read.
struct Arrival {
    io: L4Stream,
    peer: SocketAddr,
    entrance: Arc<Entrance>,
}

/// The address used for clients of a Unix-domain socket, which have none.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An accept error of a single connection is ignored. After an error of the process the loop pauses, because
/// the next accept would fail immediately as well.
async fn pause_after(e: &io::Error) {
    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    log::error!("cannot accept a connection: {e}");
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}

/// Serves one connection to its end.
async fn serve<P>(service: Arc<Service<P>>, arrival: Arrival, open: Open)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let peer = arrival.peer;
    // Boxed, so that the memory of the handshake is not kept for the life of the connection.
    let arriving: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(arrive(&service, arrival));
    match timeout(service.timeouts().handshake, arriving).await {
        Ok(Ok((stream, _slot, true))) => http2::serve(&service, stream, open).await,
        Ok(Ok((stream, _slot, false))) => http1::serve(&service, stream).await,
        Ok(Err(e)) => log::debug!("connection from {peer}: {e}"),
        Err(_) => log::debug!("connection from {peer}: handshake timeout"),
    }
}

/// Does everything before HTTP. Returns whether the client uses HTTP/2.
async fn arrive<P>(service: &Service<P>, arrival: Arrival) -> Result<(ClientStream, Slot, bool), String> {
    let Arrival { mut io, peer, entrance } = arrival;
    let local = io.get_socket_digest().and_then(|digest| digest.local_addr()?.as_inet().copied());
    let (mut peer, mut local) = (peer, local);
    if entrance.proxy_protocol.contains(peer.ip()) {
        let header = introduction(&mut io).await?;
        peer = header.source.map_or(peer, |source| SocketAddr::new(canonical(source.ip()), source.port()));
        local = header.destination.or(local);
    }
    let slot = loop {
        match service.admit(peer) {
            // Another worker has used the last free slot meanwhile.
            Err(Refused::Total) => service.caps.wait_for_place().await,
            admitted => break admitted.map_err(|e| e.to_string())?,
        }
    };
    let timeouts = service.timeouts();
    let connection = Arc::new(Connection::new(peer, local, entrance.tls.is_some(), Arc::clone(&entrance.policy)));
    if let Some(tls) = &entrance.tls {
        let stream: Stream = Box::new(tls.handshake(io).await?);
        let h2 = stream.selected_alpn_proto() == Some(ALPN::H2);
        return Ok((ClientStream::new(stream, connection, timeouts, BytesMut::new()), slot, h2));
    }
    let mut stream: Stream = Box::new(io);
    let mut unread = BytesMut::new();
    let h2 = speaks_h2(&mut stream, &mut unread).await.map_err(|e| e.to_string())?;
    Ok((ClientStream::new(stream, connection, timeouts, unread), slot, h2))
}

/// Reads the PROXY protocol header of a trusted proxy, and no byte after it.
async fn introduction(io: &mut L4Stream) -> Result<proxy_protocol::Header, String> {
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
async fn speaks_h2(stream: &mut Stream, read: &mut BytesMut) -> io::Result<bool> {
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

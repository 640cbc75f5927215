//! From a socket to a connection that speaks HTTP: accept, PROXY protocol, TLS, and which HTTP.

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

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long nobody may come until the queue of a socket counts as empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// How long a queue is emptied at most.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);

/// What happens to connections of one listener.
pub struct Entrance {
    /// TLS, where the listener speaks it.
    pub tls: Option<Arc<Terminator>>,
    /// Peers that begin with a PROXY protocol header; others must not.
    pub proxy_protocol: TrustedProxies,
    /// What is done to every request.
    pub policy: Arc<Policy>,
}

/// Accepts until draining begins, and whoever stands in the kernel's queue by then: closing the
/// socket would turn them away with their requests.
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
    // Under load somebody always comes; that others are still let in must end.
    timeout(QUEUE_LIMIT, rest).await.ok();
}

/// Accepts one connection and has it served.
async fn admit<P>(service: &Arc<Service<P>>, incoming: &Incoming, entrance: &Arc<Entrance>)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // With all places taken, clients wait in the kernel's queue until somebody leaves.
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

/// A connection of which nothing was read yet.
struct Arrival {
    io: L4Stream,
    peer: SocketAddr,
    entrance: Arc<Entrance>,
}

/// The address that stands for clients of a Unix-domain socket, which have none.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An accept error that concerns one connection is passed over; one that concerns the process is
/// waited out, since the next accept would fail the same way at once.
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
    // Boxed, so that the memory for a handshake is not kept as long as the connection.
    let arriving: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(arrive(&service, arrival));
    match timeout(service.timeouts().handshake, arriving).await {
        Ok(Ok((stream, _slot, true))) => http2::serve(&service, stream, open).await,
        Ok(Ok((stream, _slot, false))) => http1::serve(&service, stream).await,
        Ok(Err(e)) => log::debug!("connection from {peer}: {e}"),
        Err(_) => log::debug!("connection from {peer}: nothing came in time"),
    }
}

/// Does what comes before HTTP. Returns whether HTTP/2 is spoken.
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
            // Another worker gave the last place away since ours saw it.
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

/// Reads the PROXY protocol header with which a trusted proxy begins, and nothing behind it.
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
            0 => return Err("PROXY protocol: the connection ended".to_owned()),
            bytes => read.extend_from_slice(space.get(..bytes).unwrap_or_default()),
        }
    }
}

/// The first bytes of HTTP/2's connection preface (RFC 9113 §3.4). No HTTP/1 request begins so:
/// `PRI` is reserved for this very purpose.
const PREFACE: &[u8; 4] = b"PRI ";

/// Reads the first bytes of a plain connection, which tell HTTP/2 from HTTP/1.
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

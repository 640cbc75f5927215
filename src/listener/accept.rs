//! From a socket to a connection that speaks HTTP: accept, PROXY protocol, TLS, and which HTTP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{ALPN, GetSocketDigest, SocketDigest, Stream};
use pingora_proxy::ProxyHttp;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::drain::Open;
use super::service::Service;
use super::stream::ClientStream;
use super::{http1, http2};
use crate::connection::{Connection, Policy};
use crate::net::canonical;
use crate::tls::Terminator;

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What happens to connections of one listener.
pub struct Entrance {
    /// TLS, where the listener speaks it.
    pub tls: Option<Arc<Terminator>>,
    /// What is done to every request.
    pub policy: Arc<Policy>,
}

/// Accepts until draining begins.
pub(super) async fn accept<P>(service: Arc<Service<P>>, listener: TcpListener, entrance: Arc<Entrance>)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut begun = service.drain.begun();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = begun.wait_for(|begun| *begun) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let open = service.drain.connection();
                tokio::spawn(serve(Arc::clone(&service), tcp, peer, Arc::clone(&entrance), open));
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

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
async fn serve<P>(service: Arc<Service<P>>, tcp: TcpStream, peer: SocketAddr, entrance: Arc<Entrance>, _open: Open)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // Boxed, so that the memory for a handshake is not kept as long as the connection.
    let arriving: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(arrive(&service, tcp, peer, &entrance));
    match timeout(service.timeouts.handshake, arriving).await {
        Ok(Ok((stream, true))) => http2::serve(&service, stream).await,
        Ok(Ok((stream, false))) => http1::serve(&service, stream).await,
        Ok(Err(e)) => log::debug!("connection from {peer}: {e}"),
        Err(_) => log::debug!("connection from {peer}: nothing came in time"),
    }
}

/// Does what comes before HTTP. Returns whether HTTP/2 is spoken.
async fn arrive<P>(
    service: &Service<P>,
    tcp: TcpStream,
    peer: SocketAddr,
    entrance: &Entrance,
) -> Result<(ClientStream, bool), String> {
    let local = tcp.local_addr().ok();
    let connection = |tls| {
        let peer = SocketAddr::new(canonical(peer.ip()), peer.port());
        Arc::new(Connection::new(peer, local, tls, Arc::clone(&entrance.policy)))
    };
    let plain = prepare(tcp, peer).map_err(|e| e.to_string())?;
    let timeouts = Arc::clone(&service.timeouts);
    match &entrance.tls {
        Some(tls) => {
            let stream: Stream = Box::new(tls.handshake(plain).await?);
            let h2 = stream.selected_alpn_proto() == Some(ALPN::H2);
            Ok((ClientStream::new(stream, connection(true), timeouts, BytesMut::new()), h2))
        }
        None => {
            let mut stream: Stream = Box::new(plain);
            let mut unread = BytesMut::new();
            let h2 = speaks_h2(&mut stream, &mut unread).await.map_err(|e| e.to_string())?;
            Ok((ClientStream::new(stream, connection(false), timeouts, unread), h2))
        }
    }
}

fn prepare(tcp: TcpStream, peer: SocketAddr) -> io::Result<L4Stream> {
    tcp.set_nodelay(true)?;
    let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
    // A new cell is empty, so this sets it.
    digest.peer_addr.set(Some(peer.into())).ok();
    let mut stream: L4Stream = tcp.into();
    stream.set_socket_digest(digest);
    Ok(stream)
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

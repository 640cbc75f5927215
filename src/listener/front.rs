//! The service that accepts connections and hands them to the proxy.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::buffered::Buffered;
use super::drain::{Connection, Drain};
use super::sockets::Socket;
use crate::tls::Terminator;

/// How long a TLS handshake, or the first byte of a plain connection, may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection may stay without a stream.
const H2_IDLE: Duration = Duration::from_secs(75);
/// How many requests a connection may carry; then the client connects anew, which spreads load.
const REQUESTS_MAX: u32 = 10_000;
/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket with what it needs to answer.
pub struct Door {
    /// The socket.
    pub socket: Socket,
    /// TLS, where the listener speaks it.
    pub tls: Option<Arc<Terminator>>,
}

/// What the service needs once it runs; made late, because a daemon has no threads before it forked.
pub type MakeProxy<P> = Box<dyn FnOnce() -> Result<HttpProxy<P>, String> + Send + Sync>;

/// The service of all listeners.
pub struct Front<P> {
    start: Mutex<Option<Start<P>>>,
    drain: Drain,
    settled: watch::Receiver<bool>,
}

struct Start<P> {
    doors: Vec<Door>,
    make_proxy: MakeProxy<P>,
    on_ready: Box<dyn FnOnce() + Send + Sync>,
}

impl<P> Front<P> {
    /// A front of `doors`. It accepts once `settled` is true and then calls `on_ready`.
    pub fn new(
        doors: Vec<Door>,
        make_proxy: MakeProxy<P>,
        on_ready: impl FnOnce() + Send + Sync + 'static,
        drain: Drain,
        settled: watch::Receiver<bool>,
    ) -> Self {
        let start = Start { doors, make_proxy, on_ready: Box::new(on_ready) };
        Self { start: Mutex::new(Some(start)), drain, settled }
    }
}

/// The options of both kinds of connection. CONNECT is let through to be refused, and logged, by
/// the proxy itself.
fn options(h2c: bool) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    options.allow_connect_method_proxying = true;
    options.h2_idle_timeout = Some(H2_IDLE);
    options.keepalive_request_limit = Some(REQUESTS_MAX);
    options
}

/// The same proxy, for connections that were seen to speak HTTP/2 without TLS.
struct H2c<P> {
    proxy: Arc<HttpProxy<P>>,
    options: HttpServerOptions,
}

#[async_trait]
impl<P> HttpServerApp for H2c<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

#[async_trait]
impl<P> Service for Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn start_service(&mut self, _fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _per_fd: usize) {
        let Some(start) = self.start.lock().take() else {
            return;
        };
        // The sockets listen already, so clients that come early wait and are not refused.
        self.settled.wait_for(|settled| *settled).await.ok();
        let server = match (start.make_proxy)() {
            Ok(mut proxy) => {
                proxy.server_options = Some(options(false));
                let proxy = Arc::new(proxy);
                let h2c = Arc::new(H2c { proxy: Arc::clone(&proxy), options: options(true) });
                Server { proxy, h2c, drain: self.drain.clone() }
            }
            Err(e) => {
                log::error!("{e}");
                std::process::exit(1);
            }
        };
        let mut loops = JoinSet::new();
        for door in start.doors {
            match TcpListener::from_std(door.socket.listener) {
                Ok(listener) => drop(loops.spawn(server.clone().accept(listener, door.tls))),
                Err(e) => {
                    log::error!("cannot accept at {}: {e}", door.socket.name);
                    std::process::exit(1);
                }
            }
        }
        (start.on_ready)();
        let mut silent = self.drain.silent();
        tokio::select! {
            _ = silent.wait_for(|silent| *silent) => {}
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
        server.proxy.http_cleanup().await;
        shutdown.wait_for(|shutdown| *shutdown).await.ok();
    }

    fn name(&self) -> &'static str {
        "front"
    }
}

struct Server<P> {
    proxy: Arc<HttpProxy<P>>,
    h2c: Arc<H2c<P>>,
    drain: Drain,
}

impl<P> Clone for Server<P> {
    fn clone(&self) -> Self {
        Self { proxy: Arc::clone(&self.proxy), h2c: Arc::clone(&self.h2c), drain: self.drain.clone() }
    }
}

impl<P> Server<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Accepts until draining begins.
    async fn accept(self, listener: TcpListener, tls: Option<Arc<Terminator>>) {
        let mut begun = self.drain.begun();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = begun.wait_for(|begun| *begun) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    let connection = self.drain.connection();
                    tokio::spawn(self.clone().serve(tcp, peer, tls.clone(), connection));
                }
                Err(e) => pause_after(&e).await,
            }
        }
    }

    /// Serves one connection to its end.
    async fn serve(self, tcp: TcpStream, peer: SocketAddr, tls: Option<Arc<Terminator>>, _connection: Connection) {
        let begun = self.drain.begun();
        let served = async {
            match tls {
                Some(tls) => {
                    let stream = within_limit(handshake(tcp, peer, &tls)).await?;
                    self.proxy.process_new(stream, &begun).await;
                }
                None if within_limit(speaks_h2(&tcp)).await? => {
                    self.h2c.process_new(Box::new(plain(tcp, peer)?), &begun).await;
                }
                None => {
                    self.proxy.process_new(Box::new(plain(tcp, peer)?), &begun).await;
                }
            }
            Ok::<(), String>(())
        };
        if let Err(e) = served.await {
            log::debug!("connection from {peer}: {e}");
        }
    }
}

async fn within_limit<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(HANDSHAKE_LIMIT, step).await {
        Ok(done) => done,
        Err(_) => Err(format!("nothing within {HANDSHAKE_LIMIT:?}")),
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

fn plain(tcp: TcpStream, peer: SocketAddr) -> Result<Buffered, String> {
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
    // A new cell is empty, so this sets it.
    digest.peer_addr.set(Some(peer.into())).ok();
    let mut stream: L4Stream = tcp.into();
    stream.set_socket_digest(digest);
    Ok(Buffered::new(stream))
}

async fn handshake(tcp: TcpStream, peer: SocketAddr, tls: &Terminator) -> Result<Stream, String> {
    Ok(Box::new(tls.handshake(plain(tcp, peer)?).await?))
}

/// The first bytes of HTTP/2's connection preface (RFC 9113 §3.4). No HTTP/1 request begins so:
/// `PRI` is reserved for this very purpose.
const PREFACE: &[u8; 4] = b"PRI ";

/// Looks at the first bytes of a plain connection without taking them. Pingora's own look waits
/// for 24 bytes without limit, which a short HTTP/1 request never sends.
async fn speaks_h2(tcp: &TcpStream) -> Result<bool, String> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let bytes = tcp.peek(&mut seen).await.map_err(|e| e.to_string())?;
        let seen = seen.get(..bytes).unwrap_or_default();
        if !PREFACE.starts_with(seen) || seen.is_empty() {
            return Ok(false);
        }
        if seen.len() == PREFACE.len() {
            return Ok(true);
        }
        // A part of the preface: peek would return the same part at once, so give the rest time.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

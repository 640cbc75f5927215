//! The background service at TCP addresses: connections and their bounds.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use pingora_core::protocols::IO;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::super::context::Api;
use super::super::endpoints::router;
use super::gate::{Connection, Gate};
use crate::base::accept_errors::AcceptErrors;
use crate::base::event::Event;
use crate::base::lifecycle::{Lifecycle, Phase};
use crate::control::access::ActiveAccess;
use crate::http::client_address::ClientKey;
use crate::listener::Socket;
use crate::listener::connection_counts::ConnectionCounts;
use crate::tls::Terminator;

/// The most connections.
const CONNECTIONS_MAX: usize = 256;
/// The most connections of one client: an IPv4 address or an IPv6 /64.
const CONNECTIONS_PER_CLIENT: usize = 64;
/// The timeout of a handshake, and of a request header, also on an idle connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may exist before a request on it has authenticated.
const UNAUTHENTICATED_MAX: Duration = Duration::from_secs(30);
/// How long a connection may exist; then it ends after its current requests.
const AGE_MAX: Duration = Duration::from_secs(600);
/// How long the current requests of a connection may take when it ends.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection without a request stays open after another process has taken over.
const LINGER: Duration = Duration::from_millis(400);
/// The largest request header in bytes.
const HEADER_MAX: u16 = 16 << 10;
/// The most concurrent requests on an HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
/// The pause after a failed accept, which would fail again immediately.
const PAUSE: Duration = Duration::from_millis(500);
/// The interval at which token files are checked for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The bound sockets, and their TLS.
pub struct AdminListener {
    /// The sockets, one for each address.
    pub sockets: Vec<Socket>,
    /// TLS; `None` for plain HTTP.
    pub terminator: Option<Arc<Terminator>>,
}

/// The service, from the time when the process is ready until another process serves.
pub struct AdminService {
    sockets: Mutex<Vec<Socket>>,
    shared: Arc<Shared>,
}

struct Shared {
    terminator: Option<Arc<Terminator>>,
    gate: Gate,
    access: ActiveAccess,
    counts: ConnectionCounts,
    lifecycle: Lifecycle,
}

impl AdminService {
    /// A service of `api` at the sockets.
    #[must_use]
    pub fn new(listener: AdminListener, api: Api) -> Self {
        let (access, lifecycle) = (api.live.access.clone(), api.live.lifecycle.clone());
        let gate = Gate::new(router(api), access.clone());
        let counts = ConnectionCounts::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT);
        let shared = Shared { terminator: listener.terminator, gate, access, counts, lifecycle };
        Self { sockets: Mutex::new(listener.sockets), shared: Arc::new(shared) }
    }
}

#[async_trait]
impl BackgroundService for AdminService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let sockets = std::mem::take(&mut *self.sockets.lock());
        self.shared.lifecycle.started().await;
        let accepting: Vec<_> =
            sockets.into_iter().map(|socket| tokio::spawn(accept(socket, Arc::clone(&self.shared), serve))).collect();
        tokio::select! {
            () = watch_tokens(&self.shared.access) => {}
            () = self.shared.lifecycle.replaced() => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
        // Calls in progress continue; the process ends later.
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Reads changed token files again.
async fn watch_tokens(access: &ActiveAccess) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        let access = access.clone();
        // Disks and network file systems may be slow.
        match tokio::task::spawn_blocking(move || access.reread()).await {
            Ok(events) => events.into_iter().for_each(Event::announce),
            Err(e) => log::error!("cannot check token files for changes: {e}"),
        }
    }
}

/// Accepts connections at a socket, and serves each in a task of its own.
pub(in crate::control::api) async fn accept<S, F>(
    socket: Socket,
    shared: Arc<S>,
    serve: impl Fn(Stream, SocketAddr, Arc<S>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let address = socket.address();
    let listener = match socket.into_async() {
        Ok(listener) => listener,
        Err(e) => return log::error!("cannot accept a connection at {address}: {e}"),
    };
    let errors = AcceptErrors::default();
    loop {
        match listener.accept().await {
            Ok((stream, Some(peer))) => drop(tokio::spawn(serve(stream, peer, Arc::clone(&shared)))),
            Ok((_, None)) => {}
            Err(e) => {
                errors.report(&e, Instant::now().into_std());
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a connection, within the bounds.
async fn serve(stream: Stream, peer: SocketAddr, shared: Arc<Shared>) {
    let slot = match shared.counts.admit(Some(ClientKey::from(peer.ip().to_canonical()))) {
        Ok(slot) => slot,
        Err(reached) => return log::debug!("admin: closed a connection of {peer}: {reached}"),
    };
    let authenticated = AtomicBool::new(false);
    match &shared.terminator {
        None => {
            let connection = Connection { peer, tls: None, names: Vec::new(), authenticated };
            requests(stream, connection, false, &shared).await;
        }
        Some(terminator) => match timeout(TIMEOUT, terminator.handshake(stream)).await {
            Ok(Ok((stream, result))) => {
                let (names, is_http2) = (stream.client_names(), stream.is_http2());
                let connection = Connection { peer, tls: Some(result), names, authenticated };
                requests(stream, connection, is_http2, &shared).await;
            }
            Ok(Err(e)) => log::debug!("admin: {peer}: {e}"),
            Err(_) => log::debug!("admin: {peer}: the handshake has timed out"),
        },
    }
    drop(slot);
}

/// Serves the requests of a connection.
async fn requests<S>(stream: S, connection: Connection, is_http2: bool, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + IO + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let respond = |request| {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        async move {
            let mut response = shared.gate.respond(request, &connection).await;
            if !is_http2 && shared.lifecycle.phase() > Phase::Ready {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    };
    let builder = builder(is_http2);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service_fn(respond)));
    let is_known = tokio::select! {
        served = serving.as_mut() => return end(connection.peer, served),
        is_known = expiry(&connection) => is_known,
        () = replaced(&shared.lifecycle, is_http2) => true,
    };
    if is_known {
        serving.as_mut().graceful_shutdown();
        if let Ok(served) = timeout(END_TIMEOUT, serving).await {
            end(connection.peer, served);
        }
    }
}

/// Waits until another process serves, and over HTTP/1.1 until a request that was on its way has arrived. HTTP/2 announces
/// the end to the client.
pub(in crate::control::api) async fn replaced(lifecycle: &Lifecycle, is_http2: bool) {
    lifecycle.replaced().await;
    if !is_http2 {
        sleep(LINGER).await;
    }
}

fn end<E: std::fmt::Display>(peer: SocketAddr, served: Result<(), E>) {
    if let Err(e) = served {
        // The client may have disconnected.
        log::debug!("admin: {peer}: {e}");
    }
}

/// Waits until the connection must end; returns whether a request on it has authenticated.
async fn expiry(connection: &Connection) -> bool {
    sleep(UNAUTHENTICATED_MAX).await;
    let is_known = connection.authenticated.load(Ordering::Relaxed);
    if is_known {
        sleep(AGE_MAX - UNAUTHENTICATED_MAX).await;
    }
    is_known
}

/// One protocol only: detecting it would wait for the first bytes without a timeout.
pub(in crate::control::api) fn builder(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .max_buf_size(usize::from(HEADER_MAX))
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::from(HEADER_MAX))
        .keep_alive_interval(Some(TIMEOUT))
        .keep_alive_timeout(TIMEOUT);
    builder
}

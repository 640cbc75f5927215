//! HTTP/2 on one connection: passes streams to Pingora and enforces the limits of the connection.
//!
//! The loop is that of Pingora with additions: limits on age and requests, GOAWAY before an idle connection is
//! closed, a limit of malformed requests per connection, an access log line for each of them, and GOAWAY on a
//! flood (see [`super::flood`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::Reason;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, Ssl, Stream};
use pingora_proxy::ProxyHttp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::drain::Open;
use super::flood::{FrameMeter, Limits};
use super::lent::Lent;
use super::service::Service;
use super::stream::ClientStream;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_id::RequestId;
use crate::listener::connection::Connection as ClientConnection;
use crate::observe::Record;

/// Malformed requests after which the connection is closed.
const MALFORMED_MAX: usize = 32;
/// The time for sending GOAWAY before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);
/// The flow-control windows of a stream and of the connection, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

type Connection = h2::server::Connection<Stream, Bytes>;

/// The number of active requests, and a notification when there are none.
struct Active {
    count: AtomicUsize,
    none: Notify,
    /// The connection counts as open until its last request has ended.
    _open: Open,
}

/// One active request. Dropping it ends the count.
struct Streaming(Arc<Active>);

impl Streaming {
    fn new(active: &Arc<Active>) -> Self {
        active.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}

impl Active {
    /// Ready when there was no active request for `limit`. Created again for every request.
    async fn idle(&self, limit: Duration) {
        while self.count.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        tokio::time::sleep(limit).await;
    }
}

fn options<P>(service: &Service<P>) -> H2Options {
    let mut options = default_h2_options();
    let header_size = service.request_limits().header_size;
    options
        .max_concurrent_streams(service.limits().streams)
        .max_header_list_size(u32::try_from(header_size).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    options
}

fn meter<P>(service: &Service<P>) -> FrameMeter {
    let default = Limits::default();
    let header_size = u32::try_from(service.request_limits().header_size).unwrap_or(u32::MAX);
    let limits = Limits { header_block: default.header_block.max(header_size), ..default };
    FrameMeter::new(limits, Instant::now().into_std())
}

/// Ready when the meter has detected a flood. It is polled together with the connection that reads, so it needs
/// no waker.
fn flooded(client: &ClientConnection) -> impl Future<Output = DetailedRejection> {
    std::future::poll_fn(|_| client.fault().map_or(Poll::Pending, Poll::Ready))
}

/// Serves the connection to its end.
pub(super) async fn serve<P>(service: &Arc<Service<P>>, mut stream: ClientStream, open: Open)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    stream.speak_http2(meter(service));
    let client = Arc::clone(stream.connection());
    let stream = Lent::new(stream);
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: Vec::new(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let handshake = options(service).handshake(Box::new(stream) as Stream);
    let mut connection = match timeout(service.timeouts().handshake, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => {
            log::debug!("no HTTP/2 with {}: {e}", client.peer);
            return log_refused(service, &client, DetailedRejection::bad_request("malformed HTTP/2"));
        }
        Err(_) => return log::debug!("no HTTP/2 with {} in time", client.peer),
    };
    let active = Arc::new(Active { count: AtomicUsize::new(0), none: Notify::new(), _open: open });
    let ended = accept(service, &mut connection, &digest, &client, &active).await;
    if let Ended::Abruptly = ended {
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }
    // GOAWAY still has to be sent; the client may ignore it.
    timeout(FAREWELL, std::future::poll_fn(|cx| connection.poll_closed(cx))).await.ok();
}

/// How the connection ended.
enum Ended {
    /// The client or the network closed it, or it was idle.
    InOrder,
    /// The client violated a limit.
    Abruptly,
}

async fn accept<P>(
    service: &Arc<Service<P>>,
    connection: &mut Connection,
    digest: &Arc<Digest>,
    client: &ClientConnection,
    active: &Arc<Active>,
) -> Ended
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let retire = Instant::now() + service.limits().age;
    let mut begun = service.drain.begun();
    let (mut requests, mut malformed, mut leaving) = (0, 0, false);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = begun.wait_for(|begun| *begun), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(connection, Arc::clone(digest)) => accepted,
            refusal = flooded(client) => {
                log_refused(service, client, refusal);
                return Ended::Abruptly;
            }
            () = active.idle(service.timeouts().keepalive) => {
                // The connection is idle: send GOAWAY and close.
                connection.graceful_shutdown();
                return Ended::InOrder;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                requests += 1;
                if !leaving && (requests >= service.limits().requests || Instant::now() >= retire) {
                    connection.graceful_shutdown();
                    leaving = true;
                }
                pass(service, session, Streaming::new(active));
            }
            Ok(Some(H2Accept::Rejected)) => {
                let refusal = DetailedRejection { rejection: Rejection::BadRequest, detail: "malformed HTTP/2 request" };
                log_refused(service, client, refusal);
                malformed += 1;
                if malformed >= MALFORMED_MAX {
                    return Ended::Abruptly;
                }
            }
            Ok(None) => return Ended::InOrder,
            Err(e) => {
                log::debug!("HTTP/2 connection: {e}");
                if let Some(refusal) = e.cause.as_ref().and_then(|e| e.downcast_ref()).and_then(broken) {
                    log_refused(service, client, refusal);
                }
                return Ended::InOrder;
            }
        }
    }
}

/// The fault, if l7lb closes the whole connection because of it.
fn broken(e: &h2::Error) -> Option<DetailedRejection> {
    let flood = DetailedRejection { rejection: Rejection::Flood, detail: "a limit of the HTTP/2 library is exceeded" };
    let calm = e.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    (e.is_library() && e.is_go_away()).then_some(if calm { flood } else { DetailedRejection::bad_request("malformed HTTP/2") })
}

/// Passes one request to Pingora, next to the others.
fn pass<P>(service: &Arc<Service<P>>, session: HttpSession, streaming: Streaming)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let _streaming = streaming;
        service.proxy.process_new_http(ServerSession::new_http2(session), &service.begun).await;
    });
}

/// The access log line of a malformed request. Its method and target are not known.
fn log_refused<P>(service: &Service<P>, client: &ClientConnection, refusal: DetailedRejection) {
    service.access_log.write(&Record {
        time: SystemTime::now(),
        client: client.peer_text(),
        method: "",
        host: "",
        path: "",
        protocol: "HTTP/2",
        status: refusal.rejection.status(),
        bytes: 0,
        latency: Duration::ZERO,
        upstream: None,
        upstream_latency: None,
        attempts: 0,
        route: None,
        pool: None,
        request_id: RequestId::random().as_str(),
        cause: refusal.rejection.cause(),
        detail: refusal.detail,
    });
}

//! HTTP/2 on one connection: passes streams to the engine and enforces the limits of the connection.
//!
//! The loop is that of Pingora with additions: limits on age and requests, GOAWAY before an idle connection is
//! closed, a limit of malformed requests per connection, an access log line for each of them, and GOAWAY on a
//! flood (see [`super::flood`]).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::Reason;
use h2::ext::Protocol;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::{Error, ErrorType};
use pingora_core::protocols::http::authority::validate_request_authority;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, Stream};
use pingora_http::RequestHeader;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::drain::OpenConnection;
use super::engine::{Engine, Http2Stream};
use super::flood::{FrameMeter, Limits};
use super::stream::ClientStream;
use super::stream_handle::StreamHandle;
use super::worker_context::WorkerContext;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_id::RequestId;
use crate::listener::connection::Connection as ClientConnection;
use crate::observe::Record;

/// Malformed requests after which the connection is closed.
const MALFORMED_MAX: usize = 32;
/// The time for sending GOAWAY before the connection is closed.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// The flow-control windows of a stream and of the connection, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of a response that are buffered for a stream whose client does not read. The library's default is 400 KiB, which
/// a client with a hundred streams and a huge window turns into 40 MiB.
const SEND_BUFFER: usize = 32 << 10;

type Connection = h2::server::Connection<Stream, Bytes>;

/// The number of active requests, and a notification when there are none.
struct ActiveRequests {
    count: AtomicUsize,
    none: Notify,
    /// The connection counts as open until its last request has ended.
    _open: OpenConnection,
}

/// One active request. Dropping it ends the count.
struct ActiveRequest(Arc<ActiveRequests>);

impl ActiveRequest {
    fn new(active: &Arc<ActiveRequests>) -> Self {
        active.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}

impl ActiveRequests {
    /// Ready when there was no active request for `limit`. Created again for every request.
    async fn idle(&self, limit: Duration) {
        while self.count.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        tokio::time::sleep(limit).await;
    }
}

fn options<E: Engine>(worker: &WorkerContext<E>) -> H2Options {
    let mut options = default_h2_options();
    let header_size = worker.request_limits().header_size;
    options
        .max_concurrent_streams(worker.limits().streams)
        .max_header_list_size(u32::try_from(header_size).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    if !worker.engine.uses_sessions() {
        // WebSocket over HTTP/2 (RFC 8441); Pingora's loop has none.
        options.enable_connect_protocol();
    }
    options
}

fn frame_meter<E: Engine>(worker: &WorkerContext<E>) -> FrameMeter {
    let default = Limits::default();
    let header_size = u32::try_from(worker.request_limits().header_size).unwrap_or(u32::MAX);
    let limits = Limits { header_block: default.header_block.max(header_size), ..default };
    FrameMeter::new(limits, Instant::now().into_std())
}

/// Ready when the meter has detected a flood. It is polled together with the connection that reads, so it needs
/// no waker.
fn flood_detected(client: &ClientConnection) -> impl Future<Output = DetailedRejection> {
    std::future::poll_fn(|_| client.fault().map_or(Poll::Pending, Poll::Ready))
}

/// Serves the connection to its end.
pub(super) async fn serve<E: Engine>(worker: &Arc<WorkerContext<E>>, mut stream: ClientStream, open: OpenConnection) {
    stream.switch_to_http2(frame_meter(worker));
    let client = Arc::clone(stream.connection());
    let stream = StreamHandle::new(stream);
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: Vec::new(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let handshake = options(worker).handshake(Box::new(stream) as Stream);
    let mut connection = match timeout(worker.timeouts().handshake, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => {
            log::debug!("no HTTP/2 with {}: {e}", client.peer);
            return log_rejection(worker, &client, DetailedRejection::bad_request("malformed HTTP/2"));
        }
        Err(_) => return log::debug!("no HTTP/2 with {} in time", client.peer),
    };
    let active = Arc::new(ActiveRequests { count: AtomicUsize::new(0), none: Notify::new(), _open: open });
    let end = accept(worker, &mut connection, &digest, &client, &active).await;
    if let ConnectionEnd::LimitViolated = end {
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }
    // GOAWAY still has to be sent; the client may ignore it.
    timeout(GOAWAY_TIMEOUT, std::future::poll_fn(|cx| connection.poll_closed(cx))).await.ok();
}

/// An accepted stream.
enum Accepted {
    /// It has a request.
    Request(Box<Request>),
    /// It was rejected.
    Malformed,
}

/// The request of a stream, in the form that the engine wants.
enum Request {
    Stream(Http2Stream),
    Session(HttpSession),
}

/// Waits for the next stream; `None` at the end of the connection.
async fn next<E: Engine>(
    worker: &WorkerContext<E>,
    connection: &mut Connection,
    digest: &Arc<Digest>,
    client: &Arc<ClientConnection>,
) -> Result<Option<Accepted>, h2::Error> {
    if worker.engine.uses_sessions() {
        return match HttpSession::from_h2_conn(connection, Arc::clone(digest)).await {
            Ok(None) => Ok(None),
            Ok(Some(H2Accept::Session(session))) => Ok(Some(Accepted::Request(Box::new(Request::Session(session))))),
            Ok(Some(H2Accept::Rejected)) => Ok(Some(Accepted::Malformed)),
            Err(e) => Err(e.cause.and_then(|e| e.downcast().ok()).map_or(Reason::INTERNAL_ERROR.into(), |e| *e)),
        };
    }
    let Some((request, mut respond)) = connection.accept().await.transpose()? else { return Ok(None) };
    let (parts, body) = request.into_parts();
    let request = RequestHeader::from(parts);
    if !request.headers.values().all(is_trimmed) {
        log::debug!("malformed request of {}: whitespace around a header value", client.peer);
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(Some(Accepted::Malformed));
    }
    if let Err(e) = check(&request) {
        log::debug!("malformed request of {}: {e}", client.peer);
        // An error here means that the client has already closed the stream.
        respond.send_response(bad_request(), true).ok();
        return Ok(Some(Accepted::Malformed));
    }
    let stream = Http2Stream { connection: Arc::clone(client), request, body, respond };
    Ok(Some(Accepted::Request(Box::new(Request::Stream(stream)))))
}

/// Whether a value has no whitespace at its ends; otherwise the request is malformed (RFC 9113 §8.2.1).
fn is_trimmed(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.as_bytes().first()) && !is_space(value.as_bytes().last())
}

/// Checks what the h2 crate does not check: that the request has one host, and an unambiguous target.
fn check(request: &RequestHeader) -> pingora::Result<()> {
    if request.uri.authority().is_none() && !request.headers.contains_key(header::HOST) {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "no authority");
    }
    let is_number = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    if !request.headers.get_all(header::CONTENT_LENGTH).iter().all(is_number) {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "a Content-Length that is not a number");
    }
    // The proxy rejects CONNECT without a protocol.
    if request.method == Method::CONNECT && request.extensions.get::<Protocol>().is_none() {
        Ok(())
    } else {
        validate_request_authority(request)
    }
}

fn bad_request() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// How the connection ended.
enum ConnectionEnd {
    /// The client or the network closed it, or it was idle.
    Normal,
    /// The client violated a limit.
    LimitViolated,
}

async fn accept<E: Engine>(
    worker: &Arc<WorkerContext<E>>,
    connection: &mut Connection,
    digest: &Arc<Digest>,
    client: &Arc<ClientConnection>,
    active: &Arc<ActiveRequests>,
) -> ConnectionEnd {
    let expires_at = Instant::now() + worker.limits().age;
    let mut started = worker.drain.started();
    // `wait_for` fails once the sender is dropped at process end; then the connection must close too. One future for
    // all requests: another one for each request costs more than the rest of this loop.
    let mut drain_started = pin!(async move { drop(started.wait_for(|started| *started).await) });
    let (mut requests, mut malformed, mut draining) = (0, 0, false);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drain_started, if !draining => {
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
            accepted = next(worker, connection, digest, client) => accepted,
            detailed = flood_detected(client) => {
                log_rejection(worker, client, detailed);
                return ConnectionEnd::LimitViolated;
            }
            () = active.idle(worker.timeouts().keepalive) => {
                // The connection is idle: send GOAWAY and close.
                connection.graceful_shutdown();
                return ConnectionEnd::Normal;
            }
        };
        match accepted {
            Ok(Some(Accepted::Request(request))) => {
                requests += 1;
                if !draining && (requests >= worker.limits().requests || Instant::now() >= expires_at) {
                    connection.graceful_shutdown();
                    draining = true;
                }
                pass(worker, request, ActiveRequest::new(active));
            }
            Ok(Some(Accepted::Malformed)) => {
                let detailed =
                    DetailedRejection { rejection: Rejection::BadRequest, detail: "malformed HTTP/2 request" };
                log_rejection(worker, client, detailed);
                malformed += 1;
                if malformed >= MALFORMED_MAX {
                    return ConnectionEnd::LimitViolated;
                }
            }
            Ok(None) => return ConnectionEnd::Normal,
            Err(e) => {
                log::debug!("HTTP/2 connection: {e}");
                if let Some(detailed) = connection_fault(&e) {
                    log_rejection(worker, client, detailed);
                }
                return ConnectionEnd::Normal;
            }
        }
    }
}

/// The fault, if l7lb closes the whole connection because of it.
fn connection_fault(e: &h2::Error) -> Option<DetailedRejection> {
    let flood = DetailedRejection { rejection: Rejection::Flood, detail: "a limit of the HTTP/2 library is exceeded" };
    let is_flood = e.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    (e.is_library() && e.is_go_away()).then_some(if is_flood {
        flood
    } else {
        DetailedRejection::bad_request("malformed HTTP/2")
    })
}

/// Passes one request to the engine, next to the others.
fn pass<E: Engine>(worker: &Arc<WorkerContext<E>>, request: Box<Request>, active: ActiveRequest) {
    let worker = Arc::clone(worker);
    // Boxed: tokio copies a task several times, and this one is large.
    tokio::spawn(Box::pin(async move {
        let _active = active;
        match *request {
            Request::Stream(stream) => worker.engine.serve_http2(stream).await,
            Request::Session(session) => worker.engine.serve_session(session, &worker.draining).await,
        }
    }));
}

/// The access log line of a malformed request. Its method and target are not known.
fn log_rejection<E: Engine>(worker: &WorkerContext<E>, client: &ClientConnection, detailed: DetailedRejection) {
    worker.observers.rejected(
        &client.policy.listener,
        &Record {
            time: SystemTime::now(),
            client: client.peer_text(),
            method: "",
            host: "",
            path: "",
            protocol: "HTTP/2",
            status: detailed.rejection.status(),
            bytes: 0,
            latency: Duration::ZERO,
            upstream: None,
            upstream_latency: None,
            attempts: 0,
            route: None,
            pool: None,
            cache: "",
            request_id: RequestId::random().as_str(),
            cause: Some(detailed.rejection.cause()),
            failed_attempts: &[],
            query: None,
            request_headers: None,
            response_headers: &[],
            detail: detailed.detail,
        },
    );
}

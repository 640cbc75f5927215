//! The engine: what happens between the listener and the backends.
//!
//! It calls the same phases as Pingora's loop, in one task per request and without channels: the head of a request
//! and of a response is parsed once, and bodies are passed on as they were read. Connections to backends and
//! TLS are Pingora's. With `server.engine: pingora` Pingora's loop serves all requests.
//!
//! - [`client`]: what the engine needs from the client side; [`http1_client`], [`http2_client`]: the client sides.
//! - [`backend`]: what it needs from a connection to a backend; [`http1_backend`], [`http2_backend`]: the connections;
//!   [`connectors`]: where they come from; [`idle`]: those that are kept; [`request_head`]: the head of a request to a backend.
//! - [`cached`]: requests on routes with a cache. [`buffering`]: request bodies that arrive before a backend is chosen.
//! - [`subrequest`]: requests of filters. [`mirror`]: copies of requests.
//! - [`transfer`]: one attempt on a connection; [`websocket`]: its form in both versions of HTTP.
//! - [`framing`], [`chunked`]: the end of a message; [`replay`]: the request body, for a retry.

mod backend;
mod buffering;
mod cached;
mod chunked;
mod client;
mod connectors;
mod framing;
mod http1_backend;
mod http1_client;
mod http2_backend;
mod http2_client;
mod idle;
mod mirror;
mod replay;
mod request_head;
mod subrequest;
mod transfer;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use pingora::{Error, ErrorType, RetryType};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use client::Client;
use connectors::{Connected, Connectors, ReuseKey};
use http1_backend::Http1Backend;
use http1_client::Http1Client;
use http2_backend::{Http2Backend, Limits};
use http2_client::Http2Client;
use request_head::RequestKind;
use transfer::Transfer;

use super::exchange::Exchange;
use super::state::Proxy;
use super::{failover, phases, respond};
use crate::base::timeouts::Timeouts;
use crate::http::h1::parse_request;
use crate::listener::engine::{Engine as ListenerEngine, Http1Request, Http2Stream};
use crate::listener::stream_handle::StreamHandle;

/// The most attempts of a request. The retry policy allows fewer.
const ATTEMPTS_MAX: usize = 16;

/// The engine of a worker.
pub struct Engine {
    own: Arc<OwnEngine>,
    pingora: Arc<HttpProxy<Proxy>>,
    uses_own: bool,
}

/// What moves requests without Pingora's loop.
struct OwnEngine {
    proxy: Proxy,
    connectors: Connectors,
}

/// The form of a request.
enum Form {
    /// As it was received.
    Received(RequestKind),
    /// For HTTP/1.1 backends.
    Http1(RequestKind),
}

impl Form {
    fn kind(&self) -> RequestKind {
        let (Self::Received(kind) | Self::Http1(kind)) = *self;
        kind
    }

    /// Turns the request into the form for HTTP/1.1 backends, once.
    fn make_http1(&mut self, request: &mut RequestHeader) -> pingora::Result<RequestKind> {
        match *self {
            Self::Http1(kind) => Ok(kind),
            Self::Received(kind) => {
                request_head::prepare_for_http1(request, kind)?;
                *self = Self::Http1(kind);
                Ok(kind)
            }
        }
    }
}

impl Engine {
    /// An engine that serves requests itself if `own`, otherwise with Pingora's loop only.
    #[must_use]
    pub fn new(proxy: Proxy, pingora: HttpProxy<Proxy>, conf: &ServerConf, uses_own: bool) -> Self {
        let own = OwnEngine { proxy, connectors: Connectors::new(conf) };
        Self { own: Arc::new(own), pingora: Arc::new(pingora), uses_own }
    }

    /// Serves a request of an HTTP/1 client with Pingora's loop.
    async fn with_pingora(&self, stream: &StreamHandle, head: BytesMut, last: bool, draining: &watch::Receiver<bool>) {
        let mut session = ServerSession::new_http1(Box::new(stream.clone()));
        session.set_pipelined_prefix(head);
        if last {
            session.set_keepalive_reuses_remaining(Some(0));
        }
        // The stream that Pingora may return is not needed: the connection records whether the response allows
        // keep-alive.
        drop(self.pingora.process_new_http(session, draining).await);
    }
}

impl OwnEngine {
    /// Serves a request that arrived at `began`, with its access log line.
    async fn serve(self: &Arc<Self>, client: &mut impl Client, began: Instant) {
        let mut exchange = Exchange::begin(self.proxy.live.load_full(), began);
        phases::begin(client, &mut exchange);
        let mut result = match self.proxy.admit(client, &mut exchange, Some(&**self)).await {
            Ok(false) => {
                if exchange.filtered.is_some() {
                    self.mirror(client, &mut exchange);
                }
                match exchange.route_cache() {
                    None => self.forward(client, &mut exchange).await,
                    // Boxed: it must not enlarge the memory of other requests.
                    Some(cache) => Box::pin(self.serve_cached(client, &mut exchange, cache)).await,
                }
            }
            Ok(true) => Ok(()),
            Err(e) => Err(e),
        };
        if result.is_ok() && client.is_half_closed() {
            exchange.mark_end();
            result = client.confirm_delivery().await;
        }
        if let Err(e) = &result {
            log::debug!("request failed: {e}");
            respond::failure(client, &mut exchange, e).await;
        }
        self.proxy.finish(client, result.as_ref().err().map(AsRef::as_ref), &mut exchange);
        if exchange.mirroring.is_some() {
            Self::compare_copies(client, &mut exchange);
        }
    }

    /// Forwards an admitted request.
    async fn forward(&self, client: &mut impl Client, exchange: &mut Exchange) -> pingora::Result<()> {
        let has_body = !client.is_request_complete();
        if has_body && let Some(size) = exchange.buffer_size() {
            // Boxed: it must not enlarge the memory of other requests.
            Box::pin(buffering::receive(client, exchange, size)).await?;
        }
        if !self.proxy.reserve(client, exchange).await? {
            return Ok(());
        }
        let mut form = Form::Received(RequestKind::of(client.request(), has_body));
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(client, exchange, &mut form).await {
                Ok(()) => return Ok(()),
                Err(e) if e.retry() => log::debug!("attempt failed: {e}"),
                Err(e) => return Err(e),
            }
        }
        Error::e_explain(ErrorType::InternalError, "too many attempts")
    }

    /// One attempt.
    async fn attempt(&self, client: &mut impl Client, exchange: &mut Exchange, form: &mut Form) -> pingora::Result<()> {
        let peer = phases::next_peer(exchange).await?;
        let key = ReuseKey::of(&peer);
        let now = exchange.selected_at.unwrap_or(exchange.began());
        let (connected, idle) = match self.connectors.connect(&peer, key, now).await {
            Ok(connected) => connected,
            Err(mut e) => {
                e.as_up();
                return Err(failover::after_connect(client, exchange, e).into_up());
            }
        };
        if idle.is_none() {
            exchange.connection_established();
        }
        let idle_http1 = idle.filter(|_| matches!(connected, Connected::Http1(_)));
        let result = match connected {
            Connected::Http1(stream) => self.over_http1(client, exchange, form, (&peer, key, stream)).await,
            // Boxed: it is rare, and must not enlarge the memory of every request.
            Connected::Http2(session) => {
                Box::pin(self.over_http2(client, exchange, form.kind(), (&peer, *session))).await
            }
        };
        result.map_err(|e| {
            if let (Some(idle), RetryType::ReusedOnly) = (idle_http1, &e.retry) {
                observe_close(exchange, idle);
            }
            failover::after_broken_connection(client, exchange, e, idle.is_some())
        })
    }

    /// An attempt on an HTTP/1.1 connection.
    async fn over_http1(
        &self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        form: &mut Form,
        (peer, key, stream): (&HttpPeer, ReuseKey, Stream),
    ) -> pingora::Result<()> {
        let local = stream.get_socket_digest().and_then(|digest| digest.local_addr()?.as_inet().copied());
        exchange.await_response(client, Some(&self.proxy.deadlines), (stream.id(), local));
        let kind = form.make_http1(client.request_mut())?;
        let to_head_request = client.request().method == Method::HEAD;
        let head = request_head::to_bytes(client.request());
        let backend = Http1Backend::new(stream, head, kind, to_head_request);
        let mut transfer = Transfer::new(client, exchange, backend);
        std::future::poll_fn(|cx| transfer.poll(cx)).await?;
        if let (backend, true) = transfer.into_backend()
            && let Some(stream) = backend.into_reusable()
        {
            let now = exchange.mark_end();
            if let Some(endpoint) = exchange.attempted.last() {
                self.connectors.release_http1((stream, key), peer, endpoint, now);
            }
        }
        Ok(())
    }

    /// An attempt on an HTTP/2 connection.
    async fn over_http2(
        &self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        kind: RequestKind,
        (peer, session): (&HttpPeer, Http2Session),
    ) -> pingora::Result<()> {
        exchange.await_response(client, None, (session.fd(), None));
        let websocket = kind == RequestKind::Upgrade && websocket::is_requested(client.request());
        let request = match request_head::for_http2(client.request(), websocket, peer.is_tls()) {
            Ok(request) => request,
            Err(e) => {
                self.connectors.release_http2(session, peer);
                return Err(e);
            }
        };
        let complete = client.is_request_complete() && client.replay().is_none() && client.request_trailers().is_none();
        let (mut backend, started) =
            Http2Backend::start(session, request, complete && !websocket, http2_limits(exchange));
        if websocket {
            backend.expect_tunnel(websocket::accept(client.request()));
        }
        let mut transfer = Transfer::new(client, exchange, backend);
        let mut result = started;
        if result.is_ok() {
            result = std::future::poll_fn(|cx| transfer.poll(cx)).await;
        }
        self.connectors.release_http2(transfer.into_backend().0.into_session(), peer);
        result.map_err(|e| self.connectors.downgrade(e, peer))
    }
}

/// Records that the backend closed a connection that had been idle for `idle`, so that the request on it was lost.
#[expect(clippy::disallowed_methods, reason = "the connection was closed now")]
fn observe_close(exchange: &Exchange, idle: Duration) {
    if let Some(endpoint) = exchange.attempted.last() {
        endpoint.idle_limit().observe_close(idle, Instant::now());
    }
}

/// The timeouts of an attempt on an HTTP/2 connection.
fn http2_limits(exchange: &Exchange) -> Limits {
    let timeouts = exchange.target().map_or_else(Timeouts::default, |target| Timeouts {
        first_byte: exchange.first_byte_timeout(target),
        ..exchange.timeouts(target)
    });
    Limits { timeouts, end: exchange.attempt_deadline.map(|end| end.at.into()) }
}

impl ListenerEngine for Engine {
    async fn serve_http1(&self, request: Http1Request<'_>, draining: &watch::Receiver<bool>) {
        let Http1Request { stream, head, bytes, arrived, last } = request;
        if !self.uses_own {
            return self.with_pingora(stream, bytes, last, draining).await;
        }
        let bytes = bytes.freeze();
        let Ok(parsed) = parse_request(&bytes, &head) else {
            // Pingora rejects it as well, with a response.
            return self.with_pingora(stream, bytes.into(), last, draining).await;
        };
        let keepalive = !last && !*draining.borrow();
        self.own.serve(&mut Http1Client::new(stream, parsed, head.body, keepalive), arrived).await;
    }

    fn uses_sessions(&self) -> bool {
        !self.uses_own
    }

    #[expect(clippy::disallowed_methods, reason = "the request's own clock starts here")]
    async fn serve_http2(&self, stream: Http2Stream) {
        self.own.serve(&mut Http2Client::new(stream), Instant::now()).await;
    }

    async fn serve_session(&self, session: HttpSession, draining: &watch::Receiver<bool>) {
        self.pingora.process_new_http(ServerSession::new_http2(session), draining).await;
    }

    async fn clean_up(&self) {
        self.pingora.http_cleanup().await;
    }
}

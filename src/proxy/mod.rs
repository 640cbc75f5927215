//! The proxy: the life of a request, phase by phase.
//!
//! Each hook of Pingora's [`ProxyHttp`] is documented with what happens there. A hook only calls its phase, which
//! [`engine`] calls too.
//!
//! - [`client_side`]: the request and the client side, as the phases see them; [`phases`]: the phases;
//!   [`state`]: what they need of a worker.
//! - [`exchange`]: the state of a request and its response (Pingora's `CTX`).
//! - [`admission`]: sizes, limits and the route.
//! - [`affinity`]: session affinity.
//! - [`attempts`]: the attempts at backends.
//! - [`body_filters`]: pass response bodies through their filters.
//! - [`cache_effects`]: what responses mean for stored ones.
//! - [`filters`], [`response_filters`]: apply what filters decide; [`origin`]: where a request comes from;
//!   [`requested_target`]: what the client requested.
//! - [`subrequests`]: requests that filters make to pools.
//! - [`mirroring`]: copies of a request while its body arrives.
//! - [`framing`]: adapts the response head to the client's version.
//! - [`headers`]: adds, replaces and removes headers in both directions; [`forwarding`]: the forwarding headers.
//! - [`failover`]: failures, and whether another backend is attempted.
//! - [`timeouts`]: deadlines of a request and its attempts; [`deadlines`]: timeouts of HTTP/1 backends.
//! - [`respond`]: error responses. [`access_line`]: the end of a request; [`timeline`]: what the recorder keeps.

mod access_line;
mod admission;
mod client_side;
mod deadlines;
pub mod engine;
mod exchange;
mod failover;
mod filters;
mod origin;
mod requested_target;
mod response_filters;
mod forwarding;
mod framing;
mod headers;
mod mirroring;
mod phases;
mod respond;
mod state;
mod subrequests;
mod affinity;
mod timeline;
mod timeouts;
mod attempts;
mod body_filters;
mod cache_effects;
mod trial;

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::Error;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

pub use exchange::Exchange;
pub use state::Proxy;

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    /// A request keeps the snapshot that is active at its start.
    #[expect(clippy::disallowed_methods, reason = "the request's own clock starts here")]
    fn new_ctx(&self) -> Exchange {
        Exchange::begin(self.live.load_full(), Instant::now())
    }

    /// The filter `compress` compresses, so Pingora's module is not installed: it costs an allocation per request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Determines the client address and the request id.
    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<()> {
        phases::begin(session, exchange);
        Ok(())
    }

    /// Health checks of the balancer, limits and routing. A rejection is sent here; otherwise the request is
    /// prepared for backends.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<bool> {
        self.admit(session, exchange, None).await
    }

    /// Chooses a pool of the route and reserves a backend. Without a backend the rejection is sent here.
    async fn proxy_upstream_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<bool> {
        self.reserve(session, exchange).await
    }

    /// The peer of the reserved backend. Called again for each retry, with another backend.
    async fn upstream_peer(&self, _session: &mut Session, exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        phases::next_peer(exchange).await
    }

    /// The connection failed: nothing was sent, so any request may be retried.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        e: Box<Error>,
    ) -> Box<Error> {
        failover::after_connect(session, exchange, e)
    }

    /// The connection is established; the request can be sent.
    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        fd: RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        if !reused {
            exchange.connection_established();
        }
        let local = digest.and_then(|digest| digest.socket_digest.as_ref()?.local_addr()?.as_inet()).copied();
        let deadlines = exchange.enforces_timeouts().then_some(&self.deadlines);
        exchange.await_response(session, deadlines, (fd, local));
        Ok(())
    }

    /// Counts the request body, with or without Content-Length. The end of the request starts the wait for the
    /// response.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        last: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        phases::request_body(session, body.as_ref().map_or(0, Bytes::len), last, exchange)
    }

    /// The response header has arrived; the request may be retried instead.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        phases::response_received(session, response, exchange)
    }

    /// A part of the response body from the backend.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Duration>> {
        phases::response_body_received(exchange)?;
        Ok(None)
    }

    /// The outcome of a gRPC call is in its trailers.
    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        phases::trailers_received(trailers, exchange);
        Ok(())
    }

    /// The end of a transformed body, instead of the trailers: Pingora's loop sends one of the two.
    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        _trailers: &mut HeaderMap,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Bytes>> {
        if exchange.body_filters.is_none() {
            return Ok(None);
        }
        body_filters::transform(exchange, Bytes::new(), true).map(Some)
    }

    /// Adds response headers for the client.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        phases::response_to_client(session, response, exchange)
    }

    /// A part of the response body for the client; the previous part has been sent. The end of the response
    /// ends an unfinished request.
    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Duration>> {
        phases::response_body_to_client(session, end, exchange);
        if exchange.body_filters.is_some() {
            let data = body_filters::transform(exchange, body.take().unwrap_or_default(), end)?;
            *body = (!data.is_empty()).then_some(data);
        }
        Ok(None)
    }

    /// The connection broke: the request may be retried.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        failover::after_broken_connection(session, exchange, e, reused)
    }

    /// No retry is left: sends the error response if the client is still connected.
    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, exchange: &mut Exchange) -> FailToProxy {
        let error_code = respond::failure(session, exchange, e).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Writes the access log line, and keeps the client's connection if the response promised keep-alive.
    async fn logging(&self, session: &mut Session, e: Option<&Error>, exchange: &mut Exchange) {
        self.finish(session, e, exchange);
    }

    /// Suppresses Pingora's error line: the access log has the cause.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, e: &Error) -> bool {
        log::debug!("request failed: {e}");
        true
    }

    /// Suppresses Pingora's line for a failed attempt: the access log has the number of attempts.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        e: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        log::debug!("attempt failed: {e}");
        true
    }
}

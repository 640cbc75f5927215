//! The phases of a request, which both engines call: Pingora's loop through the hooks of
//! [`ProxyHttp`](pingora_proxy::ProxyHttp), [`super::engine`] directly.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use pingora::{Error, ErrorType};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::requested_target::as_requested;
use super::state::Proxy;
use super::subrequests::Forwarder;
use super::{body_filters, cache_effects, failover, filters, framing, headers, respond};
use crate::http::grpc_status::GrpcStatus;
use crate::http::upgrade;
use crate::pool::passive_health::Outcome;

impl Proxy {
    /// Health checks of the balancer, limits and routing. Returns whether a response was sent; otherwise the
    /// request is prepared for backends.
    pub(super) async fn admit(
        &self,
        client: &mut impl ClientSide,
        exchange: &mut Exchange,
        forwarder: Option<&dyn Forwarder>,
    ) -> pingora::Result<bool> {
        if respond::balancer_health(client, exchange, &self.lifecycle).await? {
            return Ok(true);
        }
        match exchange.admit(client, &self.recorder) {
            Ok(()) if filters::respond(client, exchange, &self.recorder, forwarder).await? => Ok(true),
            Ok(()) if respond::last_recipient(client, exchange).await? => Ok(true),
            Ok(()) => {
                headers::to_backend(client, exchange);
                Ok(false)
            }
            Err(rejection) => {
                respond::reject(client, exchange, rejection).await?;
                Ok(true)
            }
        }
    }

    /// Chooses a pool of the route and reserves a backend. Returns whether there is one; otherwise the rejection
    /// was sent.
    pub(super) async fn reserve(&self, client: &mut impl ClientSide, exchange: &mut Exchange) -> pingora::Result<bool> {
        exchange.bind(client);
        if !exchange.is_fork && exchange.cache.is_empty() {
            exchange.note(client, &self.recorder);
        }
        filters::rewrite(client, exchange);
        match exchange.reserve(client).await {
            Ok(()) => {
                if exchange.may_use_http2() {
                    framing::continue_ourselves(client).await?;
                    // Sending it may have taken time.
                    exchange.reserved_at = None;
                }
                Ok(true)
            }
            Err(rejection) => {
                respond::reject(client, exchange, rejection).await?;
                Ok(false)
            }
        }
    }

    /// Writes the access log line, and keeps the client's connection if the response promised keep-alive.
    pub(super) fn finish(&self, client: &mut impl ClientSide, e: Option<&Error>, exchange: &mut Exchange) {
        exchange.finish(client, e, &self.observers, &self.lifecycle);
        if e.is_none() {
            exchange.keep_connection(client);
        }
    }
}

/// Determines the client address and the request id.
pub(super) fn begin(client: &mut impl ClientSide, exchange: &mut Exchange) {
    if client.is_http2() {
        // For HTTP/1 the listener's stream enforces the timeout.
        client.set_timeouts(&exchange.snapshot.client_timeouts);
    }
    framing::prepare(client);
    exchange.identify(client);
}

/// The peer of the reserved backend, after the pause before a retry.
pub(super) async fn next_peer(exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
    let pause = std::mem::take(&mut exchange.backoff);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    exchange.next_peer()
}

/// Counts a part of the request body; `last` marks its end, which starts the wait for the response.
pub(super) fn request_body(
    client: &mut impl ClientSide,
    bytes: usize,
    last: bool,
    exchange: &mut Exchange,
) -> pingora::Result<()> {
    let received = exchange.count_body(client, bytes, last);
    if received.is_err() {
        client.disable_keepalive();
    }
    received
}

/// The response header has arrived.
///
/// # Errors
/// If the request is retried instead, if the backend switches to a protocol that was not requested, or if its framing is
/// ambiguous.
pub(super) fn response_received(
    client: &mut impl ClientSide,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> pingora::Result<()> {
    let found = framing::check(response).map_err(Error::into_up)?;
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches {
        complete_switch(client, response, exchange).map_err(Error::into_up)?;
    }
    if let Some(route) = &exchange.affects_cache {
        let request = as_requested(client.request(), exchange.requested.as_deref());
        cache_effects::apply(route, &request, response, exchange.time);
    }
    let (status, verdict) = (response.status, failover::verdict(response, found.grpc));
    failover::after_header(client, exchange, status, verdict)?;
    exchange.response_started(status, verdict);
    if (found.hop_by_hop || switches)
        && let (Some(value), Some(backend)) = (headers::from_backend(response), exchange.attempted.last())
    {
        backend.idle_limit().announce(value.as_bytes());
    }
    Ok(())
}

/// Completes the header of a 101 response, which must be for the requested protocol: some servers omit `Connection`, or
/// `Upgrade`.
fn complete_switch(
    client: &impl ClientSide,
    response: &mut ResponseHeader,
    exchange: &Exchange,
) -> pingora::Result<()> {
    let requested = client.request().headers.get(header::UPGRADE).filter(|_| exchange.upgrade);
    match requested.filter(|requested| upgrade::is_switch_to(requested, &response.headers)) {
        Some(requested) => {
            response.insert_header(header::UPGRADE, requested)?;
            response.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        }
        None => Error::e_explain(ErrorType::InvalidHTTPHeader, "a protocol switch that was not requested"),
    }
}

/// A part of the response body has arrived.
///
/// # Errors
/// If the response takes too long.
pub(super) fn response_body_received(exchange: &mut Exchange) -> pingora::Result<()> {
    exchange.end_in_time()?;
    exchange.progress();
    Ok(())
}

/// The trailers of the response have arrived; the outcome of a gRPC call is in them.
pub(super) fn trailers_received(trailers: &HeaderMap, exchange: &mut Exchange) {
    if let Some(status) = GrpcStatus::of(trailers) {
        exchange.response_failed(Outcome::of_status(status.http()));
    }
}

/// Adapts the response header to the client, and adds headers.
pub(super) fn response_to_client(
    client: &mut impl ClientSide,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> pingora::Result<()> {
    framing::adapt(client, response);
    if framing::is_interim(response) {
        return Ok(());
    }
    headers::to_client(client, response, exchange)?;
    body_filters::reframe(client, response, exchange)?;
    if !client.is_request_complete() && framing::is_without_body(response) {
        exchange.response_complete(client);
    }
    exchange.give_cookie(client, response)?;
    exchange.note_response(&response.headers);
    Ok(())
}

/// A part of the response body is sent to the client; the previous part has been sent. The end of the response
/// ends an unfinished request.
pub(super) fn response_body_to_client(client: &mut impl ClientSide, end: bool, exchange: &mut Exchange) {
    exchange.progress();
    if end {
        exchange.response_complete(client);
    }
}

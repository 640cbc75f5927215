//! Runs the response halves of filters.

use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::origin::origin;
use super::requested_target::RequestedTarget;
use crate::decision::host;
use crate::filter::Response;
use crate::filter::body::BodyFilters;
use crate::filter::response::Source;

/// Runs the response halves of the filters.
pub(super) fn change_response(client: &impl ClientSide, response: &mut ResponseHeader, exchange: &mut Exchange) {
    let listener = exchange.policy().map_or("", |policy| &policy.listener);
    let Some(chains) = exchange.snapshot.chains(listener, exchange.route.as_ref()) else { return };
    let who = (exchange.client, exchange.trusted);
    let origin = origin(exchange.connection.as_deref(), who, exchange.request_id.as_str());
    let request = client.request();
    let requested = exchange.requested.as_deref();
    let host = requested.map_or_else(|| host(request), RequestedTarget::host).unwrap_or_default();
    let uri = requested.map_or(&request.uri, |requested| &requested.uri);
    let facts = origin.facts(&exchange.snapshot, request, host, exchange.route.as_ref());
    // Pingora's header keeps names in their original case in a second map, which would no longer fit.
    let reason = response.get_reason_phrase().map(str::to_owned);
    let nothing = http::Response::new(()).into_parts().0.into();
    let mut parts: http::response::Parts = std::mem::replace(response, nothing).into();
    let mut body = BodyFilters::default();
    let source = match (exchange.rejection, exchange.own_cause) {
        (Some(rejection), _) => Source::Rejection(rejection.cause()),
        (None, None) => Source::Backend,
        (None, Some(cause)) => Source::Filter(cause),
    };
    chains.change_response(&mut Response {
        status: &mut parts.status,
        headers: &mut parts.headers,
        body: &mut body,
        request,
        accepted: exchange.accepted.as_deref().unwrap_or(&request.headers),
        path_and_query: uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        facts: &facts,
        source,
        upstream: exchange.attempted.last().map_or("", |endpoint| endpoint.address_text()),
        pool: exchange.target().map_or("", |target| target.pool.name().as_str()),
    });
    let canonical = parts.status.canonical_reason();
    *response = parts.into();
    if reason.as_deref() != canonical {
        // It was legal before.
        response.set_reason_phrase(reason.as_deref()).ok();
    }
    exchange.body_filters = (!body.is_empty()).then(|| Box::new(body));
}

//! Header fields: removes headers that clients must not set, removes hop-by-hop headers, and adds headers.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::{forwarding, response_filters};
use crate::cache::cache_status::CACHE_STATUS;
use crate::decision::form::{CLIENT_CERTIFICATE, X_REQUEST_ID};
use crate::filter::limits::Quota;
use crate::http::proxy_status::{PROXY_STATUS, ProxyStatus};
use crate::limit::Verdict;

/// Headers that only a proxy may set; they are removed unless the peer is trusted.
fn is_for_proxies_only(name: &str) -> bool {
    matches!(
        name,
        "forwarded" | "x-real-ip" | "x-forwarded-port" | "x-forwarded-prefix" | "x-forwarded-server"
        // Client certificate headers of other proxies (RFC 9440 §2.2, and Envoy).
        | "client-cert" | "client-cert-chain" | "x-forwarded-client-cert"
    )
}

/// Announces for how long a backend keeps an idle connection.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Hop-by-hop headers (RFC 9110 §7.6.1). Pingora handles `Transfer-Encoding` and `Connection`.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "keep-alive" | "proxy-authenticate" | "proxy-connection" | "trailer")
}

/// Whether [`from_backend`] may have to do something about a field.
pub(super) fn may_be_hop_by_hop(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name == header::CONNECTION {
        // They name no field.
        return value != "keep-alive" && value != "close";
    }
    *name == header::UPGRADE || is_hop_by_hop(name.as_str())
}

/// Turns the client's request into the request for backends. Done once, for all attempts.
pub(super) fn to_backend(side: &mut impl ClientSide, exchange: &mut Exchange) {
    let Some(connection) = exchange.connection.clone() else { return };
    // Pingora's header keeps the original case of names in a second map, which doubles the cost of every
    // change. Names are case-insensitive, so that map is dropped.
    let nothing = http::Request::new(()).into_parts().0.into();
    let mut request: Parts = std::mem::replace(side.request_mut(), nothing).into();
    remove_forbidden(&mut request.headers, exchange.trusted);
    forwarding::add(&mut request, exchange, &connection);
    let headers = &mut request.headers;
    if exchange.http2 {
        join_cookies(headers);
    }
    headers.insert(X_REQUEST_ID, exchange.request_id.to_value());
    client_certificate(side, headers);
    if let Some(filtered) = &mut exchange.filtered {
        if filtered.changes.fields.iter().any(|change| NEGOTIATION.contains(change.name())) {
            exchange.accepted = Some(Box::new(negotiation(headers)));
        }
        filtered.changes.apply_fields(headers);
    }
    *side.request_mut() = request.into();
}

/// What the client accepts; the filters of responses need it.
const NEGOTIATION: [HeaderName; 2] = [header::ACCEPT, header::ACCEPT_ENCODING];

/// The fields of [`NEGOTIATION`].
fn negotiation(headers: &HeaderMap) -> HeaderMap {
    let is_one = |(name, _): &(&HeaderName, &HeaderValue)| NEGOTIATION.contains(name);
    headers.iter().filter(is_one).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Removes headers that the client must not set; usually there are none.
fn remove_forbidden(headers: &mut HeaderMap, trusted: bool) {
    let forbidden = |name: &&HeaderName| {
        // Many servers read `x_real_ip` as `x-real-ip`, so a name with an underscore would bypass the rules.
        let name = name.as_str();
        name.contains('_') || name.starts_with(CLIENT_CERTIFICATE) || (!trusted && is_for_proxies_only(name))
    };
    let names: Vec<HeaderName> = headers.keys().filter(forbidden).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Joins the fields into which HTTP/2 clients split `Cookie` (RFC 9113 §8.2.3): applications read only one.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Legal values joined by a semicolon are a legal value.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(parts.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Adds headers about the client certificate of the TLS handshake.
fn client_certificate(side: &impl ClientSide, headers: &mut HeaderMap) {
    let Some(client) = side.handshake().and_then(|handshake| handshake.client.as_ref()) else {
        return;
    };
    headers.insert("x-client-cert-subject", client.subject.clone());
    headers.insert("x-client-cert-fingerprint", client.fingerprint.clone());
    headers.insert("x-client-cert-serial", client.serial.clone());
    headers.insert("x-client-cert-verified", HeaderValue::from_static("true"));
}

/// Removes hop-by-hop headers from a response. Returns the value of `Keep-Alive`, if there is one.
pub(super) fn from_backend(response: &mut ResponseHeader) -> Option<HeaderValue> {
    let keep_alive = |headers: &HeaderMap| headers.get(KEEP_ALIVE).cloned();
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return keep_alive(&response.headers);
    }
    // A 426 response must name the protocol to upgrade to.
    let upgrade = response.status != http::StatusCode::UPGRADE_REQUIRED;
    let mut names = Vec::new();
    // One pass, which usually finds nothing and allocates nothing.
    for (name, value) in &response.headers {
        if *name == header::CONNECTION {
            nominated(value, &mut names);
        } else if is_hop_by_hop(name.as_str()) || upgrade && *name == header::UPGRADE {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return None;
    }
    let announced = keep_alive(&response.headers);
    for name in names {
        response.remove_header(&name);
    }
    announced
}

/// Adds the headers that a value of `Connection` names, which are hop-by-hop as well.
fn nominated(value: &HeaderValue, names: &mut Vec<HeaderName>) {
    let Ok(value) = value.to_str() else { return };
    for name in value.split(',').map(str::trim) {
        // `close` and `keep-alive` are not header names.
        if name.eq_ignore_ascii_case("close") || name.eq_ignore_ascii_case("keep-alive") {
            continue;
        }
        // Framing headers are never removed by nomination.
        names.extend(name.parse().ok().filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::CONNECTION
        }));
    }
}

/// Adds the headers that every response has.
pub(super) fn to_client(
    client: &impl ClientSide,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> pingora::Result<()> {
    if response.get_reason_phrase() == response.status.canonical_reason() {
        // As for requests: without the map of the original case.
        let nothing = http::Response::new(()).into_parts().0.into();
        let parts: http::response::Parts = std::mem::replace(response, nothing).into();
        *response = with_ours(parts, exchange).into();
    } else {
        // Only Pingora's header keeps a custom reason phrase.
        response.insert_header("X-Request-Id", exchange.request_id.to_value())?;
        if let Some(hsts) = exchange.policy().and_then(|policy| policy.strict_transport_security.as_ref()) {
            response.insert_header("Strict-Transport-Security", hsts)?;
        }
    }
    if let Some(status) = &exchange.cache_status {
        response.append_header(CACHE_STATUS, status)?;
    }
    if let Some((verdict, window)) = &exchange.verdict {
        rate_limit(response, verdict, *window)?;
    }
    for quota in exchange.filtered.iter().flat_map(|filtered| &filtered.changes.quotas) {
        let Quota { name, limit, window, remaining, reset } = quota;
        let (window, reset) = (whole_seconds(*window), whole_seconds(*reset));
        response.append_header("RateLimit-Policy", format!("\"{name}\";q={limit};w={window}"))?;
        response.append_header("RateLimit", format!("\"{name}\";r={remaining};t={reset}"))?;
    }
    proxy_status(response, exchange)?;
    response_filters::change_response(client, response, exchange);
    Ok(())
}

/// Adds Proxy-Status to a response of l7lb itself, and for trusted clients to one that arrived after failed attempts.
pub(super) fn proxy_status(response: &mut ResponseHeader, exchange: &Exchange) -> pingora::Result<()> {
    let cause = exchange.rejection.map(|rejection| rejection.cause()).or(exchange.own_cause);
    if cause.is_none() && exchange.failed_attempts.is_empty() {
        return Ok(());
    }
    let Some(disclosure) = exchange.snapshot.proxy_status.disclosure(exchange.trusted) else { return Ok(()) };
    let status = ProxyStatus {
        cause,
        detail: exchange.fault().map_or(&*exchange.detail, |fault| fault.detail),
        next_hop: exchange.attempted.last().map(|endpoint| endpoint.address_text()),
        // A response of the cache may be a part of the one that the backend has sent, or replace an error.
        received_status: (cause.is_none() && exchange.cache.is_empty()).then(|| response.status.as_u16()),
    };
    match status.value(disclosure) {
        Some(value) => response.append_header(PROXY_STATUS, value).map(drop),
        None => Ok(()),
    }
}

fn with_ours(mut response: http::response::Parts, exchange: &Exchange) -> http::response::Parts {
    response.headers.insert(X_REQUEST_ID, exchange.request_id.to_value());
    if let Some(hsts) = exchange.policy().and_then(|policy| policy.strict_transport_security.as_ref()) {
        response.headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    response
}

/// `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10: the quota, the remaining
/// requests, and the time until the quota is full again.
fn rate_limit(response: &mut ResponseHeader, verdict: &Verdict, window: std::time::Duration) -> pingora::Result<()> {
    let reset = whole_seconds(verdict.reset);
    let window = whole_seconds(window);
    response.insert_header("RateLimit-Policy", format!("\"client\";q={};w={window}", verdict.limit))?;
    response.insert_header("RateLimit", format!("\"client\";r={};t={reset}", verdict.remaining))
}

/// Rounded up, so that a client that waits this long does not come too early.
pub(super) fn whole_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn hop_by_hop_headers_are_removed_from_responses() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Internal, content-length"),
            ("X-Internal", "secret"),
            ("Keep-Alive", "timeout=5"),
            ("Trailer", "x"),
            ("Content-Length", "5"),
            ("X-Kept", "1"),
        ] {
            response.append_header(name, value).unwrap();
        }
        assert_eq!(from_backend(&mut response), Some(HeaderValue::from_static("timeout=5")));
        let mut left: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-kept"]);
    }

    #[test]
    fn wait_in_whole_seconds_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }
}

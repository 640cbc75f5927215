//! Header fields: what backends are told about the client, what clients may not say themselves, and
//! what belongs to one connection only.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::exchange::Exchange;
use crate::limit::Verdict;
use crate::tls::Established;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who the client proved to be in its TLS handshake. Only we say so: what begins with this is dropped
/// from everybody, trusted or not.
const CLIENT_CERTIFICATE: &str = "x-client-cert";

/// What only a proxy may say, so that it is dropped from anybody who is not a trusted one.
fn is_for_proxies_only(name: &str) -> bool {
    matches!(
        name,
        "forwarded" | "x-real-ip" | "x-forwarded-port" | "x-forwarded-prefix" | "x-forwarded-server"
        // What other proxies call a client's certificate (RFC 9440 §2.2, and Envoy's own).
        | "client-cert" | "client-cert-chain" | "x-forwarded-client-cert"
    )
}

/// What concerns one connection and must not be passed on (RFC 9110 §7.6.1). `Transfer-Encoding`
/// and `Connection` itself are Pingora's to handle.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "keep-alive" | "proxy-authenticate" | "proxy-connection" | "trailer")
}

/// Tells the backend who the client is, and nothing that the client may not say.
pub(super) fn to_backend(session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    let Some(connection) = &exchange.connection else { return Ok(()) };
    let forbidden = |name: &&HeaderName| {
        // Many servers read `x_real_ip` as `x-real-ip`, so that an underscore gets past all rules.
        let name = name.as_str();
        name.contains('_') || name.starts_with(CLIENT_CERTIFICATE) || (!exchange.trusted && is_for_proxies_only(name))
    };
    remove(request, forbidden);
    let mut forwarded_for = connection.peer_text.clone();
    if exchange.trusted && request.headers.contains_key(&X_FORWARDED_FOR) {
        forwarded_for = extend(&request.headers, &forwarded_for)?;
    }
    request.insert_header("X-Forwarded-For", forwarded_for)?;
    let kept = |request: &RequestHeader, name: HeaderName| exchange.trusted && request.headers.contains_key(name);
    if !kept(request, X_FORWARDED_PROTO) {
        let proto = HeaderValue::from_static(if connection.tls { "https" } else { "http" });
        request.insert_header("X-Forwarded-Proto", proto)?;
    }
    if !kept(request, X_FORWARDED_HOST) {
        match forwarded_host(request) {
            Some(host) => request.insert_header("X-Forwarded-Host", host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
    }
    client_certificate(session, request)?;
    request.insert_header("X-Request-Id", exchange.request_id.to_value())
}

/// Removes the fields whose names are `forbidden`; mostly there are none.
fn remove(request: &mut RequestHeader, forbidden: impl Fn(&&HeaderName) -> bool) {
    let names: Vec<HeaderName> = request.headers.keys().filter(forbidden).cloned().collect();
    for name in names {
        request.remove_header(&name);
    }
}

/// The hops that a trusted proxy told of, and `last` behind them.
fn extend(headers: &HeaderMap, last: &HeaderValue) -> pingora::Result<HeaderValue> {
    let mut hops = Vec::new();
    for hop in headers.get_all(&X_FORWARDED_FOR).iter().chain([last]).filter(|hop| !hop.is_empty()) {
        if !hops.is_empty() {
            hops.extend_from_slice(b", ");
        }
        hops.extend_from_slice(hop.as_bytes());
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(hops))
        .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "X-Forwarded-For"))
}

/// The host that was asked for, as a header value; without copying where `Host` says it.
fn forwarded_host(request: &RequestHeader) -> Option<HeaderValue> {
    match request.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers.get(header::HOST).cloned(),
    }
}

/// Tells who the client proved to be in its TLS handshake.
fn client_certificate(session: &Session, request: &mut RequestHeader) -> pingora::Result<()> {
    let established = session.as_downstream().digest().and_then(Established::of);
    let Some(client) = established.and_then(|established| established.client.as_ref()) else {
        return Ok(());
    };
    request.insert_header("X-Client-Cert-Subject", &client.subject)?;
    request.insert_header("X-Client-Cert-Fingerprint", &client.fingerprint)?;
    request.insert_header("X-Client-Cert-Serial", &client.serial)?;
    request.insert_header("X-Client-Cert-Verified", "true")
}

/// Removes from an answer what concerns the connection to the backend only.
pub(super) fn from_backend(response: &mut ResponseHeader) {
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let mut names: Vec<HeaderName> =
        response.headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    names.extend(nominated(&response.headers));
    for name in names {
        response.remove_header(&name);
    }
}

/// The fields that `Connection` names, which are hop-by-hop too.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = listed.flat_map(|value| value.split(',')).map(str::trim);
    // What frames the answer is never a matter of nomination; two words are no names at all.
    let names = named.filter(|name| !name.eq_ignore_ascii_case("close") && !name.eq_ignore_ascii_case("keep-alive"));
    names
        .filter_map(|name| name.parse().ok())
        .filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::CONNECTION
        })
        .collect()
}

/// Tells the client what belongs to every answer.
pub(super) fn to_client(response: &mut ResponseHeader, exchange: &Exchange) -> pingora::Result<()> {
    response.insert_header("X-Request-Id", exchange.request_id.to_value())?;
    if let Some(hsts) = exchange.policy().and_then(|policy| policy.strict_transport_security.as_ref()) {
        response.insert_header("Strict-Transport-Security", hsts)?;
    }
    if let Some((verdict, window)) = &exchange.verdict {
        rate_limit(response, verdict, *window)?;
    }
    Ok(())
}

/// `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10: what the client
/// may send, what is left of it, and when it is whole again.
fn rate_limit(response: &mut ResponseHeader, verdict: &Verdict, window: std::time::Duration) -> pingora::Result<()> {
    let reset = whole_seconds(verdict.reset);
    let window = whole_seconds(window);
    response.insert_header("RateLimit-Policy", format!("\"client\";q={};w={window}", verdict.limit))?;
    response.insert_header("RateLimit", format!("\"client\";r={};t={reset}", verdict.remaining))
}

/// Rounded up, so that who waits as told does not come too early.
pub(super) fn whole_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn answers_lose_what_belongs_to_the_connection() {
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
        from_backend(&mut response);
        let mut left: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-kept"]);
    }

    #[test]
    fn waiting_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }
}

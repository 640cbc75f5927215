//! Header fields: what backends are told about the client, what clients may not say themselves, and
//! what belongs to one connection only.

use http::{HeaderMap, HeaderName, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::admission;
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
const FOR_PROXIES_ONLY: [&str; 8] = [
    "forwarded",
    "x-real-ip",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    // What other proxies call a client's certificate (RFC 9440 §2.2, and Envoy's own).
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
];

/// What concerns one connection and must not be passed on (RFC 9110 §7.6.1). `Transfer-Encoding`
/// and `Connection` itself are Pingora's to handle.
const HOP_BY_HOP: [&str; 4] = ["keep-alive", "proxy-authenticate", "proxy-connection", "trailer"];

/// Tells the backend who the client is.
pub(super) fn to_backend(session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    if !exchange.trusted {
        for name in FOR_PROXIES_ONLY {
            request.remove_header(name);
        }
    }
    let before = request.headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
    let mut forwarded_for = if exchange.trusted { before.collect::<Vec<_>>().join(", ") } else { String::new() };
    if !forwarded_for.is_empty() {
        forwarded_for.push_str(", ");
    }
    forwarded_for.push_str(&exchange.peer.to_string());
    request.insert_header(X_FORWARDED_FOR, forwarded_for)?;
    let kept = |name: &HeaderName| exchange.trusted && session.req_header().headers.contains_key(name);
    if !kept(&X_FORWARDED_PROTO) {
        request.insert_header(X_FORWARDED_PROTO, if exchange.tls { "https" } else { "http" })?;
    }
    if !kept(&X_FORWARDED_HOST) {
        match admission::host(session.req_header()) {
            Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
    }
    client_certificate(session, request)?;
    request.insert_header(X_REQUEST_ID, exchange.request_id.as_str())
}

/// Tells who the client proved to be, and lets nobody else say it.
fn client_certificate(session: &Session, request: &mut RequestHeader) -> pingora::Result<()> {
    let forged: Vec<HeaderName> = request.headers.keys().filter(|name| is_about_client(name)).cloned().collect();
    for name in &forged {
        request.remove_header(name);
    }
    let established = session.as_downstream().digest().and_then(Established::of);
    let Some(client) = established.and_then(|established| established.client.as_ref()) else {
        return Ok(());
    };
    request.insert_header("X-Client-Cert-Subject", &client.subject)?;
    request.insert_header("X-Client-Cert-Fingerprint", &client.fingerprint)?;
    request.insert_header("X-Client-Cert-Serial", &client.serial)?;
    request.insert_header("X-Client-Cert-Verified", "true")
}

/// Whether a name is, or looks to a backend like, one that tells about the client's certificate:
/// many servers hand `_` and `-` to applications as the same.
fn is_about_client(name: &HeaderName) -> bool {
    let name = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    name.take(CLIENT_CERTIFICATE.len()).eq(CLIENT_CERTIFICATE.bytes())
}

/// Removes from an answer what concerns the connection to the backend only.
pub(super) fn from_backend(response: &mut ResponseHeader) {
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    for name in nominated(&response.headers) {
        response.remove_header(&name);
    }
    for name in HOP_BY_HOP {
        response.remove_header(name);
    }
}

/// The fields that `Connection` names, which are hop-by-hop too.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    // What frames the answer is never a matter of nomination.
    names
        .filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::CONNECTION
        })
        .collect()
}

/// Tells the client what belongs to every answer.
pub(super) fn to_client(response: &mut ResponseHeader, exchange: &Exchange) -> pingora::Result<()> {
    response.insert_header(X_REQUEST_ID, exchange.request_id.as_str())?;
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

/// Whether a request id of a trusted proxy may be passed on and logged as it is.
pub(super) fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
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

    #[test]
    fn request_ids_are_plain_words() {
        assert!(is_request_id("4bf92f35-77b3"));
        assert!(
            !is_request_id("") && !is_request_id("a b") && !is_request_id("a\"b") && !is_request_id(&"x".repeat(129))
        );
    }
}

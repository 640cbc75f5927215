//! What is checked of a request's form, and what is read from it.

use std::borrow::Cow;

use http::header::HeaderName;
use http::{Method, Version, header};
use pingora_http::RequestHeader;

use crate::http::h1::check_authority;
use crate::http::rejection::{Refusal, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::http::target::{self, Encoded};

/// A field that says what the balancer knows.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A field that says what the balancer knows.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// A field that says what the balancer knows.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// A field that says what the balancer knows.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who the client proved to be in its TLS handshake. Only we say so: what begins with this is dropped
/// from everybody, trusted or not.
pub const CLIENT_CERTIFICATE: &str = "x-client-cert";

/// Whether a client may call a field hop-by-hop in `Connection`, which removes it. What we say is not
/// the client's to remove.
#[must_use]
pub fn may_nominate(name: &str) -> bool {
    let is = |ours: HeaderName| name.eq_ignore_ascii_case(ours.as_str());
    let about_client =
        name.get(..CLIENT_CERTIFICATE.len()).is_some_and(|start| start.eq_ignore_ascii_case(CLIENT_CERTIFICATE));
    !(about_client || [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_REQUEST_ID].into_iter().any(is))
}
pub(super) fn check_size(request: &RequestHeader, limits: RequestLimits) -> Result<(), Rejection> {
    // Lengths in memory fit into 64 bits.
    let target = request.raw_path().len() as u64;
    if target > limits.target_size {
        return Err(Rejection::TargetTooLong);
    }
    if request.headers.len() > limits.header_count {
        return Err(Rejection::HeaderTooLarge);
    }
    // Name, colon, space, value, line end: what a field takes on the wire of HTTP/1.1.
    let fields: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + fields as u64 > limits.header_size {
        return Err(Rejection::HeaderTooLarge);
    }
    Ok(())
}

/// What the listener checks on HTTP/1 holds for HTTP/2 too, whose requests come here unseen.
pub(super) fn check(request: &RequestHeader) -> Result<(), Refusal> {
    let mut named = request.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    if named.any(|value| !value.split(',').map(str::trim).all(may_nominate)) {
        return Err(Refusal::bad_request("a field in Connection that is not the connection's"));
    }
    if request.version != Version::HTTP_2 {
        return Ok(());
    }
    if request.method == Method::CONNECT || request.method == Method::TRACE {
        return Err(Refusal { rejection: Rejection::MethodNotAllowed, detail: "CONNECT or TRACE" });
    }
    check_authority(host(request).unwrap_or_default().as_bytes())?;
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refusal::bad_request("a scheme other than http and https"));
    }
    if request.uri.path() == "*" && request.method != Method::OPTIONS {
        return Err(Refusal::bad_request("the target * without OPTIONS"));
    }
    if request.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("more than one Content-Length"));
    }
    let mut expectations = request.headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let detail = "an expectation other than one 100-continue";
        return Err(Refusal { rejection: Rejection::ExpectationFailed, detail });
    }
    Ok(())
}

/// Brings the path into the one form that is routed, logged and forwarded alike, and the target into
/// origin form. Returns the escapes that not every route allows.
pub(super) fn normalise(request: &mut RequestHeader) -> Result<Encoded, Refusal> {
    if request.version == Version::HTTP_2 {
        target::check(request.raw_path())?;
    }
    let normalised = target::normalise(request.uri.path())?;
    let encoded = normalised.encoded;
    let changed = match normalised.path {
        Cow::Owned(path) => Some(path),
        Cow::Borrowed(path) if request.raw_path().starts_with(path.as_bytes()) => None,
        Cow::Borrowed(path) => Some(path.to_owned()),
    };
    if let Some(path) = changed {
        let mut parts = request.uri.clone().into_parts();
        let target = match request.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let malformed = || Refusal::bad_request("a path that cannot be normalised");
        parts.path_and_query = Some(target.try_into().map_err(|_| malformed())?);
        request.set_uri(http::Uri::from_parts(parts).map_err(|_| malformed())?);
    }
    Ok(encoded)
}

/// The host asked for: `:authority` of HTTP/2 and the absolute form, else `Host`.
#[must_use]
pub fn host(request: &RequestHeader) -> Option<&str> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers.get(header::HOST)?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_is_not_the_clients_to_remove() {
        for name in ["X-Forwarded-For", "x-request-id", "X-Client-Cert-Verified", "x-client-cert"] {
            assert!(!may_nominate(name), "{name}");
        }
        for name in ["close", "keep-alive", "upgrade", "x-custom", "te", ""] {
            assert!(may_nominate(name), "{name}");
        }
    }
}

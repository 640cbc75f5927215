//! Checks of a request that apply to every HTTP version, and path normalisation.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use pingora_http::RequestHeader;

use crate::http::client_address::{TrustedProxies, X_FORWARDED_FOR};
use crate::http::h1::check_authority;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::http::target::{self, Encoded};

/// The forwarding header with the scheme.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The forwarding header with the host.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The header with the request id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The prefix of headers about the client certificate. They are removed from every request, trusted or not, and
/// set by l7lb only.
pub const CLIENT_CERTIFICATE: &str = "x-client-cert";

/// Whether a client may name a header in `Connection`, which removes it. Headers that l7lb sets may not be
/// removed.
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
    // Name, colon, space, value, line end: the size of a field line in HTTP/1.1.
    let fields: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + fields as u64 > limits.header_size {
        return Err(Rejection::HeaderTooLarge);
    }
    Ok(())
}

/// Applies the checks of the HTTP/1 parser to HTTP/2 requests, which it does not see.
pub(super) fn check(request: &RequestHeader) -> Result<(), DetailedRejection> {
    let mut named = request.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    if named.any(|value| !value.split(',').map(str::trim).all(may_nominate)) {
        return Err(DetailedRejection::bad_request("Connection names a header that must not be removed"));
    }
    if request.version != Version::HTTP_2 {
        return Ok(());
    }
    if request.method == Method::CONNECT || request.method == Method::TRACE {
        return Err(DetailedRejection { rejection: Rejection::MethodNotAllowed, detail: "CONNECT or TRACE" });
    }
    check_authority(host(request).unwrap_or_default().as_bytes())?;
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(DetailedRejection::bad_request("the scheme is neither http nor https"));
    }
    if request.uri.path() == "*" && request.method != Method::OPTIONS {
        return Err(DetailedRejection::bad_request("the target * is only valid with OPTIONS"));
    }
    if request.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(DetailedRejection::bad_request("more than one Content-Length"));
    }
    let mut expectations = request.headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let detail = "the expectation is not a single 100-continue";
        return Err(DetailedRejection { rejection: Rejection::ExpectationFailed, detail });
    }
    Ok(())
}

/// Normalises the path for routing, logs and forwarding, encodes the query, and converts the target to origin form.
/// Returns the encoded characters that not every route allows.
pub(super) fn normalise(request: &mut RequestHeader) -> Result<Encoded, DetailedRejection> {
    let is_http2 = request.version == Version::HTTP_2;
    if is_http2 {
        target::check(request.raw_path())?;
    }
    let normalised = target::normalise(request.uri.path())?;
    let encoded = normalised.encoded;
    // The HTTP/1 parser has encoded the query.
    let query = request.uri.query().filter(|_| is_http2).map(target::encode_query);
    let is_same = matches!(&normalised.path, Cow::Borrowed(path) if request.raw_path().starts_with(path.as_bytes()));
    if is_same && !matches!(query, Some(Cow::Owned(_))) {
        return Ok(encoded);
    }
    let target = match query.as_deref().or(request.uri.query()) {
        Some(query) => format!("{}?{query}", normalised.path),
        None => normalised.path.into_owned(),
    };
    let mut parts = request.uri.clone().into_parts();
    let too_long = || DetailedRejection { rejection: Rejection::TargetTooLong, detail: "the target is too long" };
    parts.path_and_query = Some(target.try_into().map_err(|_| too_long())?);
    request.set_uri(http::Uri::from_parts(parts).map_err(|_| too_long())?);
    Ok(encoded)
}

/// The requested host: `:authority` of HTTP/2 or of the absolute form, otherwise `Host`.
#[must_use]
pub fn host(request: &RequestHeader) -> Option<&str> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| host_field(&request.headers)?.to_str().ok())
}

/// The field `Host`. Most clients send it first (RFC 9110 §7.2), where no lookup is needed.
#[must_use]
pub fn host_field(headers: &HeaderMap) -> Option<&HeaderValue> {
    let first = headers.iter().next().filter(|(name, _)| **name == header::HOST);
    first.map_or_else(|| headers.get(header::HOST), |(_, value)| Some(value))
}

/// The scheme that a request is forwarded with. `None` if the one that a trusted proxy has set stays. `own`: the scheme of
/// the connection; `trusted`: whether the peer is a trusted proxy.
#[must_use]
pub fn new_scheme(
    proxies: &TrustedProxies,
    (peer, trusted): (IpAddr, bool),
    headers: &HeaderMap,
    own: &'static str,
) -> Option<&'static str> {
    if !trusted {
        return Some(own);
    }
    if headers.contains_key(X_FORWARDED_PROTO) {
        return None;
    }
    // As in `TrustedProxies::client`.
    let by_forwarded = !headers.contains_key(X_FORWARDED_FOR) && headers.contains_key(header::FORWARDED);
    let told = if by_forwarded { proxies.scheme_in_forwarded(peer, headers) } else { None };
    Some(told.unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_header_cannot_remove_headers_set_by_l7lb() {
        for name in ["X-Forwarded-For", "x-request-id", "X-Client-Cert-Verified", "x-client-cert"] {
            assert!(!may_nominate(name), "{name}");
        }
        for name in ["close", "keep-alive", "upgrade", "x-custom", "te", ""] {
            assert!(may_nominate(name), "{name}");
        }
    }
}

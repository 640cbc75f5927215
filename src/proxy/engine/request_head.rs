//! The head of a request to a backend.

use bytes::BytesMut;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri, Version, header};
use pingora::{ErrorType, OrErr};
use pingora_http::RequestHeader;

use super::websocket;
use crate::http::connection_fields::named_by_connection;

/// The size for which a head has room without growing, in bytes.
const USUAL_SIZE: usize = 1024;

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// No body, or one with Content-Length.
    Plain,
    /// A chunked body.
    Chunked,
    /// A tunnel, if the backend agrees. Admission has reduced `Upgrade` to one protocol.
    Upgrade,
}

impl RequestKind {
    /// The kind of a request with its hop-by-hop headers; `has_body` if it has, or may have, a body.
    pub(super) fn of(request: &RequestHeader, has_body: bool) -> Self {
        if has_body && !request.headers.contains_key(header::CONTENT_LENGTH) {
            Self::Chunked
        } else if request.version != Version::HTTP_10 && request.headers.contains_key(header::UPGRADE) {
            Self::Upgrade
        } else {
            Self::Plain
        }
    }
}

/// Turns a request into the form for HTTP/1.1 backends. To be called once, for all attempts.
pub(super) fn prepare_for_http1(request: &mut RequestHeader, kind: RequestKind) -> pingora::Result<()> {
    let is_upgrade = kind == RequestKind::Upgrade;
    let protocol = if is_upgrade { request.headers.get(header::UPGRADE).cloned() } else { None };
    strip_hop_by_hop(request);
    if let Some(authority) = request.uri.authority()
        && !request.headers.contains_key(header::HOST)
    {
        let host = HeaderValue::from_str(authority.as_str());
        request.insert_header(header::HOST, host.or_err(ErrorType::InvalidHTTPHeader, "invalid authority")?)?;
    }
    match kind {
        RequestKind::Plain => {}
        RequestKind::Chunked => {
            request.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        RequestKind::Upgrade => {
            request.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
            request.insert_header(header::UPGRADE, protocol.unwrap_or(HeaderValue::from_static("")))?;
        }
    }
    Ok(())
}

/// The request in the form for HTTP/2 backends, over TLS or not. WebSocket is an extended CONNECT (RFC 8441).
///
/// # Errors
/// If it has no valid host.
pub(super) fn for_http2(request: &RequestHeader, websocket: bool, tls: bool) -> pingora::Result<RequestHeader> {
    let mut request = request.clone();
    if request.version != Version::HTTP_2 || websocket {
        strip_hop_by_hop(&mut request);
    }
    if websocket {
        request.remove_header(&header::SEC_WEBSOCKET_KEY);
        request.set_method(Method::CONNECT);
        let mut parts: Parts = request.into();
        parts.extensions.insert(websocket::protocol());
        request = parts.into();
    }
    // Some servers reject a Host beside `:authority`.
    let host = request.remove_header(&header::HOST);
    let host = host.as_ref().map(HeaderValue::as_bytes);
    let authority = host.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()));
    let target = request.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority.unwrap_or_default())
        .path_and_query(target.unwrap_or(PathAndQuery::from_static("/")))
        .build();
    request.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "a host that is no authority")?);
    request.set_version(Version::HTTP_2);
    Ok(request)
}

/// Removes hop-by-hop headers from a request (RFC 9110 §7.6.1), as Pingora does. The listener has checked what
/// `Connection` names.
fn strip_hop_by_hop(request: &mut RequestHeader) {
    let found: Vec<HeaderName> = request.headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    if found.contains(&header::CONNECTION) {
        for name in named_by_connection(&request.headers) {
            request.remove_header(&name);
        }
    }
    for name in found {
        request.remove_header(&name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The bytes of the head.
pub(super) fn to_bytes(request: &RequestHeader) -> BytesMut {
    let mut out = BytesMut::with_capacity(USUAL_SIZE);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(request.raw_path());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    request.header_to_h1_wire(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_and_nominated_headers_are_removed_from_a_request() {
        let mut request = RequestHeader::build_no_case("GET", b"/a?b", None).unwrap();
        for (name, value) in [
            ("host", "h"),
            ("connection", "close, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ] {
            request.append_header(name, value).unwrap();
        }
        prepare_for_http1(&mut request, RequestKind::Chunked).unwrap();
        let bytes = to_bytes(&request);
        let mut lines: Vec<String> = String::from_utf8_lossy(&bytes).split("\r\n").map(str::to_lowercase).collect();
        assert_eq!(lines.remove(0), "get /a?b http/1.1");
        lines.sort_unstable();
        assert_eq!(lines, ["", "", "host: h", "transfer-encoding: chunked", "x-kept: 1"]);
    }
}

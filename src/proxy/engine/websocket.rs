//! WebSocket on both versions of HTTP: `Upgrade` in HTTP/1.1 (RFC 6455), extended CONNECT in HTTP/2 (RFC 8441).
//!
//! The phases know one form, that of HTTP/1.1: an extended CONNECT becomes a GET with `Upgrade`, and a 200 of an HTTP/2
//! backend becomes a 101. Each side turns this form into its own.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::{ErrorType, OrErr};
use pingora_http::{RequestHeader, ResponseHeader};

/// What the key of the client is extended with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `:protocol`.
pub(super) fn protocol() -> Protocol {
    Protocol::from_static("websocket")
}

/// Whether it is an extended CONNECT for WebSocket.
pub(super) fn is_extended_connect(request: &RequestHeader) -> bool {
    request.method == Method::CONNECT
        && request.extensions.get::<Protocol>().is_some_and(|wanted| wanted.as_str().eq_ignore_ascii_case("websocket"))
}

/// Whether a request with `Upgrade` is for WebSocket; other protocols do not exist over HTTP/2.
pub(super) fn is_requested(request: &RequestHeader) -> bool {
    request.headers.get(header::UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Turns an extended CONNECT into a GET with `Upgrade`.
///
/// # Errors
/// Never: all values are legal.
pub(super) fn to_upgrade(request: &mut RequestHeader) -> pingora::Result<()> {
    request.set_method(Method::GET);
    request.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
    request.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    if !request.headers.contains_key(header::SEC_WEBSOCKET_VERSION) {
        request.insert_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))?;
    }
    // It proves to the client of this connection, which is l7lb, that the backend knows WebSocket; it is no secret.
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes());
    let key = HeaderValue::try_from(key).or_err(ErrorType::InternalError, "base64")?;
    request.insert_header(header::SEC_WEBSOCKET_KEY, key)
}

/// The value of `Sec-WebSocket-Accept` for the key in `request`.
pub(super) fn accept(request: &RequestHeader) -> Option<HeaderValue> {
    let key = request.headers.get(header::SEC_WEBSOCKET_KEY)?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    HeaderValue::try_from(BASE64_STANDARD.encode(hash.as_ref())).ok()
}

/// Turns the response to an extended CONNECT into the response to `Upgrade`.
///
/// # Errors
/// Never: all values are legal.
pub(super) fn to_switch(head: &mut ResponseHeader, accept: Option<&HeaderValue>) -> pingora::Result<()> {
    head.set_status(StatusCode::SWITCHING_PROTOCOLS)?;
    head.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
    head.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    match accept {
        Some(accept) => head.insert_header(header::SEC_WEBSOCKET_ACCEPT, accept.clone()),
        None => Ok(()),
    }
}

/// Turns a switch of protocols into the response to an extended CONNECT.
///
/// # Errors
/// Never: all values are legal.
pub(super) fn to_success(head: &mut ResponseHeader) -> pingora::Result<()> {
    head.set_status(StatusCode::OK)?;
    head.remove_header(&header::SEC_WEBSOCKET_ACCEPT);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_that_of_the_example_in_rfc_6455() {
        let mut request = RequestHeader::build_no_case("GET", b"/chat", None).unwrap();
        request.insert_header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(accept(&request).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

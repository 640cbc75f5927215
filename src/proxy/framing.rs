//! Adapts the response head to the client's HTTP version, and to a request body that is not complete.

use http::{StatusCode, Version, header};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;

/// How many bytes of a request are read after its response to keep the client's connection: bytes that may
/// already be on their way.
const REST_MAX: u64 = 64 << 10;

/// HTTP/1.0 has neither interim responses (RFC 9110 §15.2) nor expectations (§10.1.1).
pub(super) fn prepare(client: &mut impl ClientSide) {
    if client.request().version == Version::HTTP_10 {
        client.suppress_interim();
        client.request_mut().remove_header(&header::EXPECT);
    }
}

/// Sends 100 Continue to a client that waits for it: Pingora does not forward it from HTTP/2 backends. The
/// request is forwarded without the expectation.
pub(super) async fn continue_ourselves(client: &mut impl ClientSide) -> pingora::Result<()> {
    let expected = client.request_mut().remove_header(&header::EXPECT).is_some();
    if expected && !client.is_http2() && !client.is_request_complete() {
        client.set_close_if_request_incomplete(false);
        client.write_continue().await?;
    }
    Ok(())
}

/// Whether the head is an interim response (100, 103).
pub(super) fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Decides whether the client's connection is kept after a response that may precede the end of the request. A
/// short rest of the request is read; before a long one the response says `close`.
pub(super) fn decide_on_unread_body(client: &mut impl ClientSide) {
    let short = client.is_request_complete() || rest(client).is_some_and(|rest| rest <= REST_MAX);
    client.set_close_if_request_incomplete(!short);
}

/// How much of the request is still to come. `None` if unknown: for chunked bodies, and for a client that waits
/// for 100 and may never send its body.
fn rest(client: &impl ClientSide) -> Option<u64> {
    let headers = &client.request().headers;
    if headers.contains_key(header::EXPECT) && client.response_status() != Some(StatusCode::CONTINUE) {
        return None;
    }
    let length: u64 = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(length.saturating_sub(client.body_received()))
}

/// Adapts the response head, and keep-alive, to the client.
pub(super) fn adapt(client: &mut impl ClientSide, response: &mut ResponseHeader) {
    if is_interim(response) {
        // Pingora counts 100 as a response, after which every upload that waits for it would lose its
        // connection.
        client.set_close_if_request_incomplete(false);
    } else {
        decide_on_unread_body(client);
    }
    let old = client.request().version == Version::HTTP_10;
    if old && response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        // HTTP/1.0 has no chunked coding: the end of the connection ends the body.
        client.disable_keepalive();
    }
}

/// Whether the response has no body.
pub(super) fn is_without_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status.as_u16(), 204 | 304)
}

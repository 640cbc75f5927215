//! Adapts the response head to the client's HTTP version, and to a request body that is not complete.

use http::{StatusCode, Version, header};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// How many bytes of a request are read after its response to keep the client's connection: bytes that may
/// already be on their way.
const REST_MAX: u64 = 64 << 10;

/// HTTP/1.0 has neither interim responses (RFC 9110 §15.2) nor expectations (§10.1.1).
pub(super) fn prepare(session: &mut Session) {
    if session.req_header().version == Version::HTTP_10 {
        let downstream = session.as_downstream_mut();
        downstream.set_ignore_info_resp(true);
        downstream.req_header_mut().remove_header(&header::EXPECT);
    }
}

/// Sends 100 Continue to a client that waits for it: Pingora does not forward it from HTTP/2 backends. The
/// request is forwarded without the expectation.
pub(super) async fn continue_ourselves(session: &mut Session) -> pingora::Result<()> {
    let downstream = session.as_downstream_mut();
    let expected = downstream.req_header_mut().remove_header(&header::EXPECT).is_some();
    if expected && !downstream.is_http2() && !downstream.is_body_done() {
        downstream.set_close_on_response_before_downstream_finish(false);
        downstream.write_continue_response().await?;
    }
    Ok(())
}

/// Whether the head is an interim response (100, 103).
pub(super) fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Decides whether the client's connection is kept after a response that may precede the end of the request. A
/// short rest of the request is read; before a long one the response says `close`.
pub(super) fn judge_rest(session: &mut Session) {
    let short = rest(session).is_some_and(|rest| rest <= REST_MAX);
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(!short);
}

/// How much of the request is still to come. `None` if unknown: for chunked bodies, and for a client that waits
/// for 100 and may never send its body.
fn rest(session: &Session) -> Option<u64> {
    let downstream = session.as_downstream();
    let headers = &downstream.req_header().headers;
    let told = || downstream.response_written().is_some_and(|interim| interim.status == StatusCode::CONTINUE);
    if headers.contains_key(header::EXPECT) && !told() {
        return None;
    }
    let length: u64 = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    // A length in memory fits into 64 bits.
    Some(length.saturating_sub(downstream.body_bytes_read() as u64))
}

/// Adapts the response head, and keep-alive, to the client.
pub(super) fn adapt(session: &mut Session, response: &mut ResponseHeader) {
    if is_interim(response) {
        // Pingora counts 100 as a response, after which every upload that waits for it would lose its
        // connection.
        session.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
    } else {
        judge_rest(session);
    }
    let old = session.req_header().version == Version::HTTP_10;
    if old && response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        // HTTP/1.0 has no chunked coding: the end of the connection ends the body.
        session.set_keepalive(None);
    }
}

/// Whether the response has no body.
pub(super) fn is_without_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status.as_u16(), 204 | 304)
}

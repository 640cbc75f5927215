//! What the head of an answer owes to the version that the client speaks, and to a request whose body
//! has not come to its end.

use http::{StatusCode, Version, header};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// How much of a request that was answered before its end is read for nothing, so that the client's
/// connection can go on: what may well be on its way already.
const REST_MAX: u64 = 64 << 10;

/// HTTP/1.0 knows neither informational answers (RFC 9110 §15.2) nor an expectation of one (§10.1.1).
pub(super) fn prepare(session: &mut Session) {
    if session.req_header().version == Version::HTTP_10 {
        let downstream = session.as_downstream_mut();
        downstream.set_ignore_info_resp(true);
        downstream.req_header_mut().remove_header(&header::EXPECT);
    }
}

/// Tells a client that waits for 100 to go on: Pingora does not hear it from HTTP/2 backends. The request
/// is not passed on with an expectation that is met.
pub(super) async fn continue_ourselves(session: &mut Session) -> pingora::Result<()> {
    let downstream = session.as_downstream_mut();
    let expected = downstream.req_header_mut().remove_header(&header::EXPECT).is_some();
    if expected && !downstream.is_http2() && !downstream.is_body_done() {
        downstream.set_close_on_response_before_downstream_finish(false);
        downstream.write_continue_response().await?;
    }
    Ok(())
}

/// Whether the head is one of those before the answer proper (100, 103).
pub(super) fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Decides whether the client's connection goes on behind an answer that may come before the request's
/// end. An answer that says `close` spares the client to send a long rest; a short one is read.
pub(super) fn judge_rest(session: &mut Session) {
    let short = rest(session).is_some_and(|rest| rest <= REST_MAX);
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(!short);
}

/// How much of the request is still to come; none where nobody knows: in chunks, or from a client that
/// waits for 100, which may never send its body.
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

/// Adapts the head of an answer, and what becomes of the connection, to the client.
pub(super) fn adapt(session: &mut Session, response: &mut ResponseHeader) {
    if is_interim(response) {
        // To Pingora 100 is an answer, after which every upload that waits for it would cost a connection.
        session.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
    } else {
        judge_rest(session);
    }
    let old = session.req_header().version == Version::HTTP_10;
    if old && response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
        session.set_keepalive(None);
    }
}

/// Whether nothing comes behind the head.
pub(super) fn is_without_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status.as_u16(), 204 | 304)
}

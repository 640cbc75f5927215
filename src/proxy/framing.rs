//! What the head of an answer owes to the version that the client speaks, and to a request whose body
//! has not come to its end.

use http::{Version, header};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

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
    response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS
}

/// Adapts the head of an answer, and what becomes of the connection, to the client.
pub(super) fn adapt(session: &mut Session, response: &mut ResponseHeader) {
    // An answer before the body's end closes the connection. To Pingora 100 is such an answer, after
    // which every upload that waits for it would cost a connection.
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(!is_interim(response));
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

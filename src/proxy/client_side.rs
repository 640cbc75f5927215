//! The request and the client side of an exchange, as the phases see them.
//!
//! The phases do not know which engine drives them: [`Session`] is the client side in Pingora's loop, and
//! [`super::engine`] has its own.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;
use crate::tls::HandshakeResult;

/// The request and the client side of an exchange.
pub(super) trait ClientSide: Send {
    /// The request.
    fn request(&self) -> &RequestHeader;

    /// The request, to be changed.
    fn request_mut(&mut self) -> &mut RequestHeader;

    /// The client's connection.
    fn connection(&self) -> Option<&Arc<Connection>>;

    /// The result of the TLS handshake; `None` without TLS.
    fn handshake(&self) -> Option<&HandshakeResult> {
        self.connection()?.handshake.as_ref()
    }

    /// Whether the client uses HTTP/2.
    fn is_http2(&self) -> bool;

    /// Whether the whole request was received.
    fn is_request_complete(&mut self) -> bool;

    /// The bytes of the request body that were received.
    fn body_received(&self) -> u64;

    /// Whether the received part of the request body can be sent again.
    fn is_replayable(&self) -> bool;

    /// The status code of the last response that was written, which may be an interim one.
    fn response_status(&self) -> Option<StatusCode>;

    /// Whether the final response has started. After an interim one, another attempt can still respond.
    fn has_response(&self) -> bool {
        let is_final = |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
        self.response_status().is_some_and(is_final)
    }

    /// The bytes of the response body that were sent.
    fn body_sent(&self) -> u64;

    /// Whether the response promises, or will promise, that the connection stays open.
    fn is_keepalive(&self) -> bool;

    /// Closes the connection after the response.
    fn disable_keepalive(&mut self);

    /// Whether a response that precedes the end of the request closes the connection.
    fn set_close_if_request_incomplete(&mut self, close: bool);

    /// Suppresses interim responses, except to a client that expects 100.
    fn suppress_interim(&mut self);

    /// Sets the limits for a slow client, if the listener does not enforce them.
    fn set_timeouts(&mut self, timeouts: &ClientTimeouts);

    /// Writes a complete response; without `body` the head alone, which ends the response.
    fn respond(
        &mut self,
        head: ResponseHeader,
        body: Option<Bytes>,
    ) -> impl Future<Output = pingora::Result<()>> + Send;

    /// Writes 100 Continue.
    fn write_continue(&mut self) -> impl Future<Output = pingora::Result<()>> + Send;

    /// Ends a response that has started and cannot be completed.
    fn truncate(&mut self) -> impl Future<Output = ()> + Send;
}

impl ClientSide for Session {
    fn request(&self) -> &RequestHeader {
        self.as_downstream().req_header()
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        self.as_downstream_mut().req_header_mut()
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.as_downstream().digest().and_then(Connection::of)
    }

    fn is_http2(&self) -> bool {
        self.as_downstream().is_http2()
    }

    fn is_request_complete(&mut self) -> bool {
        self.as_downstream_mut().is_body_done()
    }

    fn body_received(&self) -> u64 {
        // A length in memory fits into 64 bits.
        self.as_downstream().body_bytes_read() as u64
    }

    fn is_replayable(&self) -> bool {
        !self.as_downstream().retry_buffer_truncated()
    }

    fn response_status(&self) -> Option<StatusCode> {
        self.as_downstream().response_written().map(|response| response.status)
    }

    fn body_sent(&self) -> u64 {
        // Bytes sent in one response fit into 64 bits.
        self.as_downstream().body_bytes_sent() as u64
    }

    fn is_keepalive(&self) -> bool {
        self.get_keepalive().is_some()
    }

    fn disable_keepalive(&mut self) {
        self.set_keepalive(None);
    }

    fn set_close_if_request_incomplete(&mut self, close: bool) {
        self.as_downstream_mut().set_close_on_response_before_downstream_finish(close);
    }

    fn suppress_interim(&mut self) {
        self.as_downstream_mut().set_ignore_info_resp(true);
    }

    /// There is no minimum rate with Pingora's loop over HTTP/2.
    fn set_timeouts(&mut self, timeouts: &ClientTimeouts) {
        self.as_downstream_mut().set_write_timeout(Some(timeouts.write));
    }

    async fn respond(&mut self, head: ResponseHeader, body: Option<Bytes>) -> pingora::Result<()> {
        let Some(body) = body else {
            // On HTTP/2 Pingora would leave the stream open, so that the client waits for more or sees a
            // cancellation.
            if let ServerSession::H2(stream) = self.as_downstream_mut() {
                return stream.write_response_header(Box::new(head), true);
            }
            return self.write_response_header(Box::new(head), true).await;
        };
        self.write_response_header(Box::new(head), false).await?;
        self.write_response_body(Some(body), true).await
    }

    async fn write_continue(&mut self) -> pingora::Result<()> {
        self.as_downstream_mut().write_continue_response().await
    }

    async fn truncate(&mut self) {
        self.as_downstream_mut().shutdown().await;
    }
}

//! What the engine needs from the client side, beyond what the phases need.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use pingora::Error;
use pingora_http::ResponseHeader;

use crate::proxy::client_side::ClientSide;
use crate::proxy::exchange::Exchange;

/// The client side of one request.
pub(super) trait Client: ClientSide {
    /// Returns the head of a response, to be adapted to the client. A fetch for the cache takes it as the backend sent it
    /// instead, and returns nothing.
    fn take_original(&mut self, head: ResponseHeader, _exchange: &Exchange) -> Option<ResponseHeader> {
        Some(head)
    }

    /// Reads the next part of the request body; `None` at its end.
    fn poll_request_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>>;

    /// The part of the request body that was received before; for the next attempt.
    fn replay(&self) -> Option<Bytes>;

    /// Keeps up to `size` bytes of the request body for the next attempt, if that is more than usual.
    fn keep_request_body(&mut self, size: usize);

    /// The trailers of the request, once it is complete.
    fn request_trailers(&self) -> Option<&HeaderMap>;

    /// Reads the next bytes of a tunnel; `None` when the client has closed its side.
    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>>;

    /// Ready when the client has disconnected. An HTTP/1 client must have sent its whole request.
    fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>>;

    /// Writes the head of a response, which may be an interim one. It leaves with the next flush.
    fn start_response(&mut self, head: ResponseHeader) -> pingora::Result<()>;

    /// Writes a part of the body of the response; `last` if nothing follows.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, last: bool) -> Poll<pingora::Result<()>>;

    /// Writes the end of the response. It leaves with the next flush.
    fn end_response(&mut self, trailers: Option<HeaderMap>) -> pingora::Result<()>;

    /// Whether the client can tell that the response is complete, although its end was not written.
    fn has_whole_response(&self) -> bool;

    /// Sends what was written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>>;

    /// Whether the client has closed its sending side.
    fn is_half_closed(&self) -> bool;

    /// Finds out whether a client that closed its sending side has received the response.
    fn confirm_delivery(&mut self) -> impl Future<Output = pingora::Result<()>> + Send;
}

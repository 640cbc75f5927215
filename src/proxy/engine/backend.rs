//! What the engine needs from one exchange on a connection to a backend.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use pingora_http::ResponseHeader;

/// One exchange on a connection to a backend.
pub(super) trait Backend: Send {
    /// Adds a part of the request body; the previous part was sent.
    fn push_body(&mut self, data: Bytes);

    /// Adds the end of the request.
    fn push_end(&mut self, trailers: Option<HeaderMap>);

    /// Sends what was added.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>>;

    /// Flushes what was sent.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>>;

    /// Reads the head of the next response, which may be an interim one.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<ResponseHeader>>;

    /// Whether the body of the response is complete.
    fn is_complete(&self) -> bool;

    /// Whether only the end of the connection ends the body.
    fn ends_with_connection(&self) -> bool;

    /// Reads the next part of the body; `None` at its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>>;

    /// The trailers after the body.
    fn take_trailers(&mut self) -> Option<HeaderMap>;
}

//! What the listener needs from the proxy: an engine that serves requests.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_http::RequestHeader;
use tokio::sync::watch;

use super::stream_handle::StreamHandle;
use crate::http::h1::Head;
use crate::listener::connection::Connection;

/// A request that the listener has read up to the end of its head.
pub struct Http1Request<'a> {
    /// The client's connection.
    pub stream: &'a StreamHandle,
    /// The parsed head.
    pub head: Head,
    /// The bytes of the head, from the request line to the empty line.
    pub bytes: BytesMut,
    /// When it was complete.
    pub arrived: Instant,
    /// Whether it is the last request on the connection.
    pub last: bool,
}

/// One stream of an HTTP/2 connection.
pub struct Http2Stream {
    /// The client's connection.
    pub connection: Arc<Connection>,
    /// The request.
    pub request: RequestHeader,
    /// Its body.
    pub body: RecvStream,
    /// For the response.
    pub respond: SendResponse<Bytes>,
}

/// Serves requests.
pub trait Engine: Send + Sync + 'static {
    /// Serves a request and writes its response. The state of the connection then says whether it stays open.
    fn serve_http1(
        &self,
        request: Http1Request<'_>,
        draining: &watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;

    /// Whether it serves HTTP/2 streams as sessions of Pingora.
    fn uses_sessions(&self) -> bool;

    /// Serves one stream of an HTTP/2 connection.
    fn serve_http2(&self, stream: Http2Stream) -> impl Future<Output = ()> + Send;

    /// Serves one stream of an HTTP/2 connection as a session of Pingora.
    fn serve_session(&self, session: HttpSession, draining: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send;

    /// Prepares for the end of the process.
    fn clean_up(&self) -> impl Future<Output = ()> + Send;
}

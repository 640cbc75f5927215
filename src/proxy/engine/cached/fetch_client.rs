//! The client side of a fetch: the cache in place of a client. Requests of filters use it too.
//!
//! The engine forwards the request of a fetch like any other, with retries and limits. The response goes in parts through
//! a channel to [`super::sink`], which stores it or passes it on.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::report::Report;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;
use crate::proxy::client_side::ClientSide;
use crate::proxy::engine::client::Client;
use crate::proxy::exchange::Exchange;

/// The parts that may wait in the channel. The backend is read no faster than the store takes them.
const WAITING: usize = 4;

/// A part of the response.
pub(in crate::proxy::engine) enum Part {
    /// An interim response.
    Interim(ResponseHeader),
    /// The head of the response, and how the attempt went.
    Head(Box<(ResponseHeader, Report)>),
    /// A part of the body.
    Data(Bytes),
    /// The end of the response, with its trailers.
    End(Option<HeaderMap>),
}

/// The client side of a fetch.
pub(in crate::proxy::engine) struct FetchClient {
    request: RequestHeader,
    /// The whole request body, which is in memory.
    body: Option<Bytes>,
    connection: Option<Arc<Connection>>,
    parts: PollSender<Part>,
    /// Parts that did not fit into the channel: heads and the end, of which there are few.
    unsent: Vec<Part>,
    status: Option<StatusCode>,
    received: u64,
}

impl FetchClient {
    /// The client side that fetches the response to `request`, on behalf of a client of `connection`.
    pub(in crate::proxy::engine) fn new(
        request: RequestHeader,
        connection: Option<Arc<Connection>>,
    ) -> (Self, mpsc::Receiver<Part>) {
        let (parts, receiver) = mpsc::channel(WAITING);
        let fetch = Self {
            request,
            body: None,
            connection,
            parts: PollSender::new(parts),
            unsent: Vec::new(),
            status: None,
            received: 0,
        };
        (fetch, receiver)
    }

    /// The same client side with a request body.
    pub(in crate::proxy::engine) fn with_body(self, body: Bytes) -> Self {
        Self { body: (!body.is_empty()).then_some(body), ..self }
    }

    /// Nothing more follows.
    pub(in crate::proxy::engine) fn close(&mut self) {
        self.parts.close();
    }

    /// Ready when every part is in the channel.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        while !self.unsent.is_empty() {
            ready!(self.poll_reserve(cx))?;
            let part = self.unsent.remove(0);
            self.parts.send_item(part).map_err(|_| abandoned())?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        self.parts.poll_reserve(cx).map_err(|_| abandoned())
    }
}

/// The response is not needed any more.
fn abandoned() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the response is not needed any more").into_down()
}

impl ClientSide for FetchClient {
    fn request(&self) -> &RequestHeader {
        &self.request
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.as_ref()
    }

    fn is_http2(&self) -> bool {
        false
    }

    /// A body is in memory: it is sent as if it were sent again.
    fn is_request_complete(&mut self) -> bool {
        true
    }

    fn body_received(&self) -> u64 {
        0
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn response_status(&self) -> Option<StatusCode> {
        self.status
    }

    fn body_sent(&self) -> u64 {
        self.received
    }

    fn is_keepalive(&self) -> bool {
        false
    }

    fn disable_keepalive(&mut self) {}

    fn set_close_if_request_incomplete(&mut self, _close: bool) {}

    fn suppress_interim(&mut self) {}

    fn set_timeouts(&mut self, _timeouts: &ClientTimeouts) {}

    /// A rejection by l7lb. The requests that wait for the fetch respond with it themselves.
    async fn respond(&mut self, _head: ResponseHeader, _body: Option<Bytes>) -> pingora::Result<()> {
        Ok(())
    }

    async fn write_continue(&mut self) -> pingora::Result<()> {
        Ok(())
    }

    /// The channel closes without an end.
    async fn truncate(&mut self) {}
}

impl Client for FetchClient {
    fn take_original(&mut self, head: ResponseHeader, exchange: &Exchange) -> Option<ResponseHeader> {
        self.status = Some(head.status);
        let interim = head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
        let part = if interim { Part::Interim(head) } else { Part::Head(Box::new((head, Report::of(exchange)))) };
        self.unsent.push(part);
        None
    }

    fn poll_request_body(&mut self, _cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        Poll::Ready(Ok(None))
    }

    fn replay(&self) -> Option<Bytes> {
        self.body.clone()
    }

    /// A body is in memory.
    fn keep_request_body(&mut self, _size: usize) {}

    fn request_trailers(&self) -> Option<&HeaderMap> {
        None
    }

    fn poll_tunnel(&mut self, _cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        Poll::Ready(Ok(None))
    }

    /// The fetch ends when its parts are not received any more.
    fn poll_disconnected(&mut self, _cx: &mut Context<'_>) -> Poll<Box<Error>> {
        if self.parts.is_closed() { Poll::Ready(abandoned()) } else { Poll::Pending }
    }

    /// A head arrives by [`Self::take_original`].
    fn start_response(&mut self, _head: ResponseHeader) -> pingora::Result<()> {
        Error::e_explain(ErrorType::InternalError, "a fetch has no client to adapt a response to")
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, _last: bool) -> Poll<pingora::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        if !data.is_empty() {
            ready!(self.poll_reserve(cx))?;
            // A length in memory fits into 64 bits.
            self.received += data.len() as u64;
            self.parts.send_item(Part::Data(std::mem::take(data))).map_err(|_| abandoned())?;
        }
        Poll::Ready(Ok(()))
    }

    fn end_response(&mut self, trailers: Option<HeaderMap>) -> pingora::Result<()> {
        self.unsent.push(Part::End(trailers));
        Ok(())
    }

    fn has_whole_response(&self) -> bool {
        false
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        self.poll_unsent(cx)
    }

    fn is_half_closed(&self) -> bool {
        false
    }

    async fn confirm_delivery(&mut self) -> pingora::Result<()> {
        Ok(())
    }
}

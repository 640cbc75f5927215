//! The client side of an exchange with an HTTP/1 client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::{Error, ErrorType};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::chunked::{Decoder, Piece, SizeLine, write_end};
use super::client::Client;
use super::framing::{Framing, connection_options};
use super::replay::Replay;
use crate::http::h1::Body;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;
use crate::listener::stream::ClientStream;
use crate::listener::stream_handle::StreamHandle;
use crate::proxy::client_side::ClientSide;

/// Bytes per read of a request body.
const READ_SIZE: usize = 64 << 10;
/// A part of a request body smaller than this goes into the rest of the last buffer.
const READ_MIN: usize = 4 << 10;

/// The value of `Connection` in a response after which the connection stays open.
const KEEP_ALIVE: &str = "keep-alive";

/// A client that closes its sending side within this time after its request still gets its response. Later it
/// counts as disconnected: a client that gives up looks the same.
const HALF_CLOSE: Duration = Duration::from_secs(1);

/// The client side of one request.
pub(super) struct Http1Client<'a> {
    stream: &'a StreamHandle,
    connection: Arc<Connection>,
    request: RequestHeader,
    body: RequestBody,
    keepalive: bool,
    close_if_incomplete: bool,
    suppress_interim: bool,
    expects_continue: bool,
    half_closed: bool,
    status: Option<StatusCode>,
    framing: Framing,
    /// Whether a chunk was started whose data is not complete.
    in_chunk: bool,
    sent: u64,
}

/// The request body as far as it was read.
struct RequestBody {
    /// The missing bytes of a body with Content-Length.
    missing: u64,
    decoder: Option<Decoder>,
    buffer: BytesMut,
    complete: bool,
    /// When it was first known to be complete.
    completed_at: Option<Instant>,
    received: u64,
    replay: Replay,
    trailers: Option<HeaderMap>,
}

impl RequestBody {
    fn new(body: Body) -> Self {
        let (missing, decoder) = match body {
            Body::None => (0, None),
            Body::Length(length) => (length, None),
            Body::Chunked => (0, Some(Decoder::default())),
        };
        Self {
            missing,
            complete: missing == 0 && decoder.is_none(),
            decoder,
            buffer: BytesMut::new(),
            completed_at: None,
            received: 0,
            replay: Replay::default(),
            trailers: None,
        }
    }

    /// Records received data.
    fn receive(&mut self, data: &[u8]) {
        // Lengths in memory fit into 64 bits.
        self.received += data.len() as u64;
        self.replay.record(data);
    }
}

impl<'a> Http1Client<'a> {
    /// The client side of `request`, whose connection may stay open if `keepalive`.
    pub(super) fn new(stream: &'a StreamHandle, request: RequestHeader, body: Body, keepalive: bool) -> Self {
        let connection = Arc::clone(stream.stream().connection());
        let options = connection_options(&request.headers);
        let keepalive = keepalive && options.keepalive(request.version);
        Self {
            stream,
            connection,
            expects_continue: request.version == Version::HTTP_11 && request.headers.contains_key(header::EXPECT),
            request,
            body: RequestBody::new(body),
            keepalive,
            close_if_incomplete: true,
            suppress_interim: false,
            half_closed: false,
            status: None,
            framing: Framing::None,
            in_chunk: false,
            sent: 0,
        }
    }

    /// Reads bytes of the message into the buffer; 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<usize>> {
        let body = &mut self.body;
        let wanted = match body.decoder {
            None => usize::try_from(body.missing).unwrap_or(usize::MAX).min(READ_SIZE),
            Some(_) => READ_SIZE,
        };
        if body.buffer.capacity() - body.buffer.len() < wanted.min(READ_MIN) {
            body.buffer.reserve(wanted);
        }
        let mut message = MessageReader(&mut self.stream.stream());
        let read = poll_read_buf(Pin::new(&mut message), cx, &mut body.buffer);
        read.map_err(|e| Error::because(ErrorType::ReadError, "reading the request body", e).into_down())
    }

    fn truncated() -> Box<Error> {
        Error::explain(ErrorType::ConnectionClosed, "in the request body").into_down()
    }

    fn poll_length(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        if ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Err(Self::truncated()));
        }
        let data = self.body.buffer.split().freeze();
        // A length in memory fits into 64 bits.
        self.body.missing = self.body.missing.saturating_sub(data.len() as u64);
        self.body.complete = self.body.missing == 0;
        self.body.receive(&data);
        Poll::Ready(Ok(Some(data)))
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        loop {
            let body = &mut self.body;
            let Some(decoder) = &mut body.decoder else { return Poll::Ready(Ok(None)) };
            match decoder.next(&mut body.buffer) {
                Ok(Piece::Data(data)) => {
                    body.receive(&data);
                    return Poll::Ready(Ok(Some(data)));
                }
                Ok(Piece::End(trailers)) => {
                    (body.complete, body.trailers) = (true, trailers);
                    return Poll::Ready(Ok(None));
                }
                Ok(Piece::Incomplete) => {}
                Err(e) => return Poll::Ready(Err(Error::explain(ErrorType::ReadError, e).into_down())),
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Self::truncated()));
            }
        }
    }

    /// Decides how the body of the response is written, and completes the header.
    fn prepare(&mut self, head: &mut ResponseHeader) -> pingora::Result<()> {
        if self.close_if_incomplete && !self.body.complete {
            self.keepalive = false;
        }
        let (mut has_date, mut connections, mut says_keepalive) = (false, 0, false);
        let to_head_request = self.request.method == Method::HEAD;
        self.framing = Framing::of_response(head, to_head_request, |name, value| {
            if *name == header::DATE {
                has_date = true;
            } else if *name == header::CONNECTION {
                connections += 1;
                says_keepalive = value == KEEP_ALIVE;
            }
        })?;
        if self.framing == Framing::Close {
            self.keepalive = false;
        }
        // The Date of a backend stays (RFC 9110 §6.6.1).
        if !has_date {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        // Many backends send what the client gets.
        if !(self.keepalive && says_keepalive && connections == 1) {
            let connection = if self.keepalive { KEEP_ALIVE } else { "close" };
            head.insert_header(header::CONNECTION, HeaderValue::from_static(connection))?;
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        Pin::new(&mut *self.stream.stream()).poll_flush(cx).map_err(write_error)
    }
}

/// Reads the current message of a stream, and never waits for the next one.
struct MessageReader<'a>(&'a mut ClientStream);

impl AsyncRead for MessageReader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_message(cx, buffer)
    }
}

fn write_error(e: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing the response", e).into_down()
}

/// Writes the head of a response. A response always has the version of l7lb (RFC 9110 §2.5).
fn write_head(out: &mut BytesMut, head: &ResponseHeader) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    head.header_to_h1_wire(out);
    out.extend_from_slice(b"\r\n");
}

impl ClientSide for Http1Client<'_> {
    fn request(&self) -> &RequestHeader {
        &self.request
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.connection)
    }

    fn is_http2(&self) -> bool {
        false
    }

    fn is_request_complete(&mut self) -> bool {
        self.body.complete
    }

    fn body_received(&self) -> u64 {
        self.body.received
    }

    fn is_replayable(&self) -> bool {
        self.body.replay.is_complete()
    }

    fn response_status(&self) -> Option<StatusCode> {
        self.status
    }

    fn body_sent(&self) -> u64 {
        self.sent
    }

    fn is_keepalive(&self) -> bool {
        self.keepalive
    }

    fn disable_keepalive(&mut self) {
        self.keepalive = false;
    }

    fn set_close_if_request_incomplete(&mut self, close: bool) {
        self.close_if_incomplete = close;
    }

    fn suppress_interim(&mut self) {
        self.suppress_interim = true;
    }

    /// The listener's stream enforces it.
    fn set_timeouts(&mut self, _timeouts: &ClientTimeouts) {}

    async fn respond(&mut self, head: ResponseHeader, body: Option<Bytes>) -> pingora::Result<()> {
        self.start_response(head)?;
        let mut body = body.unwrap_or_default();
        std::future::poll_fn(|cx| {
            ready!(self.poll_send(cx, &mut body, true))?;
            self.poll_flush(cx)
        })
        .await
    }

    async fn write_continue(&mut self) -> pingora::Result<()> {
        self.start_response(ResponseHeader::build_no_case(StatusCode::CONTINUE, None)?)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The listener closes the connection, because no keep-alive was recorded; what was received is sent first.
    async fn truncate(&mut self) {
        self.keepalive = false;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await.ok();
    }
}

impl Client for Http1Client<'_> {
    fn poll_request_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        match (self.body.complete, &self.body.decoder) {
            (true, _) => Poll::Ready(Ok(None)),
            (false, None) => self.poll_length(cx),
            (false, Some(_)) => self.poll_chunked(cx),
        }
    }

    fn replay(&self) -> Option<Bytes> {
        self.body.replay.bytes()
    }

    fn keep_request_body(&mut self, size: usize) {
        self.body.replay.keep(size);
    }

    fn request_trailers(&self) -> Option<&HeaderMap> {
        self.body.trailers.as_ref()
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        let buffer = &mut self.body.buffer;
        buffer.reserve(READ_SIZE);
        let read = ready!(poll_read_buf(Pin::new(&mut *self.stream.stream()), cx, buffer));
        let read = read.map_err(|e| Error::because(ErrorType::ReadError, "reading from a tunnel", e).into_down())?;
        Poll::Ready(Ok((read > 0).then(|| buffer.split().freeze())))
    }

    fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        if self.half_closed {
            return Poll::Pending;
        }
        let closed = self.stream.stream().poll_client_close(cx);
        let completed_at = *self.body.completed_at.get_or_insert_with(Instant::now);
        match ready!(closed) {
            Ok(()) if completed_at.elapsed() <= HALF_CLOSE => {
                (self.half_closed, self.keepalive) = (true, false);
                Poll::Pending
            }
            Ok(()) => {
                Poll::Ready(Error::explain(ErrorType::ConnectionClosed, "before the end of the response").into_down())
            }
            Err(e) => Poll::Ready(Error::because(ErrorType::ReadError, "waiting for the response", e).into_down()),
        }
    }

    fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    async fn confirm_delivery(&mut self) -> pingora::Result<()> {
        if self.stream.is_reset_soon().await {
            return Error::e_explain(ErrorType::ConnectionClosed, "before the end of the response")
                .map_err(Error::into_down);
        }
        Ok(())
    }

    fn start_response(&mut self, mut head: ResponseHeader) -> pingora::Result<()> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            (self.keepalive, self.framing) = (false, Framing::Close);
        } else if head.status.is_informational() {
            let wanted = self.expects_continue && head.status == StatusCode::CONTINUE;
            if self.suppress_interim && !wanted {
                return Ok(());
            }
        } else {
            self.prepare(&mut head)?;
        }
        write_head(self.stream.stream().unsent(), &head);
        self.status = Some(head.status);
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, _last: bool) -> Poll<pingora::Result<()>> {
        self.framing.limit(data, self.in_chunk);
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = self.stream.stream();
        if self.framing == Framing::Chunked && !self.in_chunk {
            stream.push(SizeLine::new(data.len()).as_bytes());
            self.in_chunk = true;
        }
        while !data.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, data)).map_err(write_error)?;
            data.advance(written);
            // A length in memory fits into 64 bits.
            self.sent += written as u64;
            self.framing.consume(written);
        }
        if std::mem::take(&mut self.in_chunk) {
            stream.push(b"\r\n");
        }
        Poll::Ready(Ok(()))
    }

    fn end_response(&mut self, trailers: Option<HeaderMap>) -> pingora::Result<()> {
        if self.framing == Framing::Chunked {
            write_end(self.stream.stream().unsent(), trailers.as_ref());
            self.framing = Framing::None;
        }
        Ok(())
    }

    fn has_whole_response(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        Self::poll_flush(self, cx)
    }
}

//! A client's connection: reads request heads, enforces timeouts in both directions, and buffers small writes.
//!
//! The listener reads a request head itself ([`ClientStream::poll_head`]), checks whether it is valid, and
//! only then passes a handle to Pingora ([`super::stream_handle`]). Pingora reads the body through the handle
//! and never gets a byte of the next request: bytes after a message stay in `unread`. Between requests Pingora holds
//! nothing, so an idle connection takes little memory.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::body::Message;
use super::flood::FrameMeter;
use super::inactivity_timer::InactivityTimer;
use super::minimum_rate::ClientRate;
use crate::http::h1::{Head, HeadReader, encode_target};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;

/// Small writes are buffered up to this size, so that header and body of a short response leave in one system
/// call and one packet.
const WRITE_BUFFER: usize = 1460;
/// Bytes per read while waiting for a head.
const READ_SIZE: usize = 4096;
/// Bytes of further requests that are read ahead during a response.
const READ_AHEAD_MAX: usize = 16 * 1024;

/// How long a client may pause after a response that precedes the end of its request. Closing immediately with
/// unread bytes would reset the connection, and the client could lose the response.
const LINGER_PAUSE: Duration = Duration::from_secs(2);
/// How long further bytes of such a client are discarded.
const LINGER_TOTAL: Duration = Duration::from_secs(30);

/// The byte stream of a client's connection.
#[derive(Debug)]
pub struct ClientStream {
    pub(super) io: Stream,
    connection: Arc<Connection>,
    timeouts: Arc<ClientTimeouts>,
    /// Bytes read from the connection, but not consumed yet.
    unread: BytesMut,
    /// Bytes to be written.
    unsent: BytesMut,
    message: Message,
    reading: InactivityTimer,
    writing: InactivityTimer,
    /// How fast the client sends the current body and reads responses.
    reading_rate: ClientRate,
    writing_rate: ClientRate,
    /// The end of lingering.
    linger_deadline: Option<Instant>,
}

/// The result of waiting for the next request.
pub(super) enum NextRequest {
    /// A valid head and its bytes.
    Request(Head, BytesMut),
    /// The connection is closed or idle for too long.
    Closed,
    /// A rejection. The bytes are for the log.
    Rejected(DetailedRejection, BytesMut),
}

impl ClientStream {
    /// The stream of `connection` over `io`, with bytes that were already read.
    pub(super) fn new(
        io: Stream,
        connection: Arc<Connection>,
        timeouts: Arc<ClientTimeouts>,
        unread: BytesMut,
    ) -> Self {
        Self {
            io,
            connection,
            timeouts,
            unread,
            unsent: BytesMut::new(),
            message: Message::Complete,
            reading: InactivityTimer::default(),
            writing: InactivityTimer::default(),
            reading_rate: ClientRate::default(),
            writing_rate: ClientRate::default(),
            linger_deadline: None,
        }
    }

    /// The state shared with requests.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Switches to HTTP/2, which has its own limits.
    pub(super) fn switch_to_http2(&mut self, meter: FrameMeter) {
        self.message = Message::Http2(Box::new(meter));
    }

    /// Discards further bytes of the client.
    pub(super) fn discard(&mut self) {
        self.message = Message::Discarded;
    }

    /// Whether the last request was read to its end, so that another may follow.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.message, Message::Complete)
    }

    /// Waits for the next head. `closing` is ready when idle connections must close.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut HeadReader,
        (limits, first): (&RequestLimits, bool),
        closing: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<NextRequest> {
        loop {
            match reader.inspect(&self.unread, limits) {
                Ok(Some(head)) => return Poll::Ready(self.take_head(head)),
                Ok(None) => {}
                Err(rejection) => return Poll::Ready(self.reject(rejection)),
            }
            let idle = self.unread.is_empty();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(NextRequest::Closed),
                // The header timeout starts with the first byte of the head.
                Poll::Ready(Ok(_)) if idle => self.reading.reset(),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if idle => {
                    let limit = if first { self.timeouts.header } else { self.timeouts.keepalive };
                    if closing.poll(cx).is_ready() || self.reading.poll(cx, limit).is_ready() {
                        return Poll::Ready(NextRequest::Closed);
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(self.reading.poll(cx, self.timeouts.header));
                    let timeout = DetailedRejection {
                        rejection: Rejection::HeaderTimeout,
                        detail: "the header was sent too slowly",
                    };
                    return Poll::Ready(self.reject(timeout));
                }
            }
        }
    }

    fn take_head(&mut self, mut head: Head) -> NextRequest {
        self.reading.reset();
        self.connection.begin_request();
        self.message = Message::after_head(head.body);
        self.reading_rate = ClientRate::default();
        self.unread.advance(head.start);
        let length = head.length.saturating_sub(head.start);
        // Splitting would make the buffer shared, which costs; usually no bytes follow.
        let bytes =
            if self.unread.len() == length { std::mem::take(&mut self.unread) } else { self.unread.split_to(length) };
        if !head.encode_target {
            return NextRequest::Request(head, bytes);
        }
        match encode_target(&bytes, &mut head) {
            Ok(encoded) => NextRequest::Request(head, encoded),
            Err(rejection) => NextRequest::Rejected(rejection, bytes),
        }
    }

    fn reject(&mut self, rejection: DetailedRejection) -> NextRequest {
        NextRequest::Rejected(rejection, std::mem::take(&mut self.unread))
    }

    /// Reads available bytes into `unread`; 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that a waiting connection has no buffer.
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        if self.unread.capacity() == 0 {
            // Costs less than growing an empty buffer.
            self.unread = BytesMut::from(buffer.filled());
        } else {
            self.unread.extend_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Ready when the client closes its sending side while its response is prepared. Bytes that it sends belong to
    /// its next request.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn poll_client_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.len() < READ_AHEAD_MAX {
            let read = match ready!(self.poll_fill(cx)) {
                // TLS without close_notify. The request is complete, so nothing was cut off.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if read == 0 {
                // If a pipelined request is in `unread`, the client has only half-closed the connection.
                return if self.unread.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        // Polled again for the next request.
        Poll::Pending
    }

    /// Reads a part of the current message into `buffer`, and keeps the bytes after it. Nothing is read at the end
    /// of the stream.
    ///
    /// # Errors
    /// If the body is invalid, too slow or broken.
    pub fn poll_message(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.message, Message::Flooded) {
            // The task of the connection finds the fault and closes; nothing wakes this poll.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            if Pin::new(&mut self.io).poll_read(cx, buffer)?.is_pending() {
                let Some(limit) = self.message.timeout(&self.timeouts) else { return Poll::Pending };
                if self.connection.is_response_complete() {
                    ready!(self.reading.poll(cx, limit.min(LINGER_PAUSE)));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the response is complete")));
                }
                if self.message.is_body() {
                    self.reading_rate.wait(Instant::now);
                }
                ready!(self.reading.poll(cx, limit));
                return Poll::Ready(Err(self.record_fault(self.message.timeout_rejection())));
            }
        } else {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(self.unread.get(..length).unwrap_or_default());
            self.unread.advance(length);
        }
        self.reading.reset();
        let received = buffer.filled().get(before..).unwrap_or_default();
        if self.message.is_body()
            && self.reading_rate.progress(received.len(), self.timeouts.minimum_rate, Instant::now)
        {
            return Poll::Ready(Err(self.record_fault(DetailedRejection {
                rejection: Rejection::BodyTimeout,
                detail: "the body was sent too slowly",
            })));
        }
        let consumed = match self.message.advance(received) {
            Ok(consumed) => consumed,
            Err(rejection) if matches!(self.message, Message::Flooded) => {
                self.connection.record_fault(rejection);
                buffer.set_filled(before);
                return Poll::Pending;
            }
            Err(rejection) => return Poll::Ready(Err(self.record_fault(rejection))),
        };
        if consumed < received.len() {
            // Bytes of the next request were read too; they go to the front of `unread`.
            let rest = received.get(consumed..).unwrap_or_default();
            let mut unread = BytesMut::with_capacity(rest.len() + self.unread.len());
            unread.extend_from_slice(rest);
            unread.extend_from_slice(&self.unread);
            self.unread = unread;
            buffer.set_filled(before + consumed);
        }
        Poll::Ready(Ok(()))
    }

    fn record_fault(&self, rejection: DetailedRejection) -> io::Error {
        self.connection.record_fault(rejection);
        io::Error::new(io::ErrorKind::InvalidData, rejection.detail)
    }

    /// Waits until the client reads, with a timeout.
    fn poll_writable<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.writing_rate.wait(Instant::now);
        ready!(self.writing.poll(cx, self.timeouts.write));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its response")))
    }

    /// Reads and discards the rest of a request whose response is complete. Ready with whether the next request
    /// may follow.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        while self.message.is_body() {
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(self.poll_message(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(false);
            }
        }
        let sent = ready!(self.poll_unsent(cx));
        Poll::Ready(sent.is_ok() && self.is_at_end())
    }

    /// Whether the client may still be sending: a body after the response, a pipelined request, or HTTP/2
    /// frames.
    fn may_be_sending(&self) -> bool {
        let message = self.message.is_body() || matches!(self.message, Message::Http2(_) | Message::Discarded);
        message || !self.unread.is_empty()
    }

    /// Discards further bytes of the client until it pauses or the time limit is reached. Closing with unread bytes
    /// would reset the connection, and the client could lose the last response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = *self.linger_deadline.get_or_insert_with(|| Instant::now() + LINGER_TOTAL);
        while self.reading.poll(cx, LINGER_PAUSE).is_pending() {
            self.unread.clear();
            if ready!(self.poll_fill(cx)).unwrap_or(0) == 0 || Instant::now() >= deadline {
                break;
            }
            self.reading.reset();
        }
        Poll::Ready(Ok(()))
    }

    /// Adds bytes to those that wait to be written.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unsent().extend_from_slice(bytes);
    }

    /// The bytes that wait to be written.
    pub fn unsent(&mut self) -> &mut BytesMut {
        if self.unsent.is_empty() {
            // There is no buffer yet, so nothing is to be grown.
            self.unsent = BytesMut::with_capacity(WRITE_BUFFER);
        }
        &mut self.unsent
    }

    /// Writes the buffered bytes.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.record_written(written)?,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.poll_writable(cx),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Accounts for written bytes.
    ///
    /// # Errors
    /// If the client reads too slowly.
    fn record_written(&mut self, bytes: usize) -> io::Result<()> {
        let is_tunnel = matches!(self.message, Message::Tunnel);
        if self.writing_rate.progress(bytes, self.timeouts.minimum_rate, Instant::now) && !is_tunnel {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads its response too slowly"));
        }
        self.writing.reset();
        self.connection.add_bytes_sent(bytes);
        self.unsent.advance(bytes.min(self.unsent.len()));
        if self.unsent.is_empty() {
            // The next response gets a new buffer; an idle connection has none.
            self.unsent = BytesMut::new();
        }
        if is_tunnel || self.connection.is_response_complete() {
            // In a tunnel progress in either direction counts; after a response the linger timeout applies, and it
            // starts again.
            self.reading.reset();
        }
        Ok(())
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_at_end() {
            if !self.connection.is_switched() {
                return self.poll_client_close(cx);
            }
            self.message = Message::Tunnel;
        }
        self.poll_message(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + bytes.len() <= WRITE_BUFFER {
            self.push(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let this = &mut *self;
            let slices = [IoSlice::new(&this.unsent), IoSlice::new(bytes)];
            let slices = if this.unsent.is_empty() { slices.get(1..) } else { Some(&slices[..]) };
            match Pin::new(&mut this.io).poll_write_vectored(cx, slices.unwrap_or_default()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    let rest = written.saturating_sub(this.unsent.len());
                    this.record_written(written)?;
                    if rest > 0 {
                        return Poll::Ready(Ok(rest));
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return this.poll_writable(cx),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_writable(cx),
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.poll_writable(cx),
            Poll::Ready(Ok(())) if self.may_be_sending() => self.poll_linger(cx),
            done @ Poll::Ready(_) => done,
        }
    }
}

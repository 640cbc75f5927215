//! A client's connection: reads request heads, enforces timeouts in both directions, and buffers small writes.
//!
//! The listener reads a request head itself ([`ClientStream::poll_head`]), decides whether it is legal, and
//! only then passes a handle to Pingora ([`super::lent`]). Pingora reads the body through the handle and never
//! gets a byte of the next request: bytes after a message stay in `unread`. Between requests Pingora holds
//! nothing, so an idle connection takes little memory.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::body::Message;
use super::flood::FrameMeter;
use super::stall::Stall;
use crate::http::h1::{Head, HeadReader};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;

/// Small writes are buffered up to this size, so that header and body of a short response leave in one system
/// call and one packet.
const GATHER: usize = 1460;
/// Bytes per read while waiting for a head.
const CHUNK: usize = 4096;
/// Bytes of further requests that are read ahead during a response.
const AHEAD: usize = 16 * 1024;

/// How long a client may pause after a response that precedes the end of its request. Closing immediately with
/// unread bytes would reset the connection, and the client could lose the response.
const LINGER: Duration = Duration::from_secs(2);
/// How long further bytes of such a client are discarded.
const LINGER_TOTAL: Duration = Duration::from_secs(30);

/// The connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    pub(super) io: Stream,
    connection: Arc<Connection>,
    pub(super) digest: Arc<ProxyDigest>,
    timeouts: Arc<ClientTimeouts>,
    /// Bytes read from the connection, but not consumed yet.
    unread: BytesMut,
    /// Bytes to be written.
    unsent: BytesMut,
    message: Message,
    reading: Stall,
    writing: Stall,
    /// The end of lingering.
    lingers_until: Option<Instant>,
}

/// The result of waiting for the next request.
pub(super) enum Arrival {
    /// The bytes of a legal head.
    Request(BytesMut),
    /// The connection is closed or idle for too long.
    Closed,
    /// A rejection. The bytes are for the log.
    Refused(DetailedRejection, BytesMut),
}

impl ClientStream {
    /// The stream of `connection` over `io`, with bytes that were already read.
    pub(super) fn new(
        io: Stream,
        connection: Arc<Connection>,
        timeouts: Arc<ClientTimeouts>,
        unread: BytesMut,
    ) -> Self {
        let digest = connection.carry();
        Self {
            io,
            connection,
            digest,
            timeouts,
            unread,
            unsent: BytesMut::new(),
            message: Message::Nothing,
            reading: Stall::default(),
            writing: Stall::default(),
            lingers_until: None,
        }
    }

    /// The state shared with requests.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Switches to HTTP/2, which has its own limits.
    pub(super) fn speak_http2(&mut self, meter: FrameMeter) {
        self.message = Message::Http2(Box::new(meter));
    }

    /// Discards further bytes of the client.
    pub(super) fn discard(&mut self) {
        self.message = Message::Discarded;
    }

    /// Whether the last request was read to its end, so that another may follow.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.message, Message::Nothing)
    }

    /// Waits for the next head. `closing` is ready when idle connections must close.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut HeadReader,
        (limits, first): (&RequestLimits, bool),
        closing: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Arrival> {
        loop {
            match reader.inspect(&self.unread, limits) {
                Ok(Some(head)) => return Poll::Ready(self.take(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(self.refuse(refusal)),
            }
            let silent = self.unread.is_empty();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Closed),
                // The header timeout starts with the first byte of the head.
                Poll::Ready(Ok(_)) if silent => self.reading.progress(),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if silent => {
                    let limit = if first { self.timeouts.header } else { self.timeouts.keepalive };
                    if closing.poll(cx).is_ready() || self.reading.poll(cx, limit).is_ready() {
                        return Poll::Ready(Arrival::Closed);
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(self.reading.poll(cx, self.timeouts.header));
                    let late =
                        DetailedRejection { rejection: Rejection::HeaderTimeout, detail: "the header was sent too slowly" };
                    return Poll::Ready(self.refuse(late));
                }
            }
        }
    }

    fn take(&mut self, head: Head) -> Arrival {
        self.reading.progress();
        self.connection.begin_request();
        self.message = Message::of(head.body, &self.timeouts);
        self.unread.advance(head.start);
        let length = head.length.saturating_sub(head.start);
        // Splitting would make the buffer shared, which costs; usually no bytes follow.
        let bytes =
            if self.unread.len() == length { std::mem::take(&mut self.unread) } else { self.unread.split_to(length) };
        Arrival::Request(bytes)
    }

    fn refuse(&mut self, refusal: DetailedRejection) -> Arrival {
        Arrival::Refused(refusal, std::mem::take(&mut self.unread))
    }

    /// Reads available bytes into `unread`; 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that a waiting connection has no buffer.
        let mut space = [MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        self.unread.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Detects whether the client disconnects while its response is prepared. Bytes that it sends belong to its
    /// next request.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.len() < AHEAD {
            if ready!(self.poll_fill(cx))? == 0 {
                // With a request waiting, the client has only half-closed the connection.
                return if self.unread.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        // Polled again for the next request.
        Poll::Pending
    }

    /// Reads a part of the current message into `buffer`, and keeps the bytes after it.
    fn poll_message(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.message, Message::Flooded) {
            // The task of the connection finds the fault and closes; nothing wakes this poll.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            if Pin::new(&mut self.io).poll_read(cx, buffer)?.is_pending() {
                let Some(limit) = self.message.limit(&self.timeouts) else { return Poll::Pending };
                if self.connection.is_answered() {
                    ready!(self.reading.poll(cx, limit.min(LINGER)));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the response is complete")));
                }
                ready!(self.reading.poll(cx, limit));
                return Poll::Ready(Err(self.blame(self.message.overdue())));
            }
        } else {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(self.unread.get(..length).unwrap_or_default());
            self.unread.advance(length);
        }
        self.reading.progress();
        let received = buffer.filled().get(before..).unwrap_or_default();
        let own = match self.message.advance(received) {
            Ok(own) => own,
            Err(refusal) if matches!(self.message, Message::Flooded) => {
                self.connection.blame(refusal);
                buffer.set_filled(before);
                return Poll::Pending;
            }
            Err(refusal) => return Poll::Ready(Err(self.blame(refusal))),
        };
        if own < received.len() {
            // Bytes of the next request were read too; they go to the front of `unread`.
            let behind = received.get(own..).unwrap_or_default();
            let mut unread = BytesMut::with_capacity(behind.len() + self.unread.len());
            unread.extend_from_slice(behind);
            unread.extend_from_slice(&self.unread);
            self.unread = unread;
            buffer.set_filled(before + own);
        }
        Poll::Ready(Ok(()))
    }

    fn blame(&self, refusal: DetailedRejection) -> io::Error {
        self.connection.blame(refusal);
        io::Error::new(io::ErrorKind::InvalidData, refusal.detail)
    }

    /// Waits until the client reads, with a timeout.
    fn poll_writable<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.writing.poll(cx, self.timeouts.write));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its response")))
    }

    /// Reads and discards the rest of a request whose response is complete. Ready with whether the next request
    /// may follow.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut space = [MaybeUninit::uninit(); CHUNK];
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

    /// Discards what the client still sends, until it pauses or the time is over. Closing with unread bytes
    /// would reset the connection, and the client could lose the last response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = *self.lingers_until.get_or_insert_with(|| Instant::now() + LINGER_TOTAL);
        while self.reading.poll(cx, LINGER).is_pending() {
            self.unread.clear();
            if ready!(self.poll_fill(cx)).unwrap_or(0) == 0 || Instant::now() >= end {
                break;
            }
            self.reading.progress();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the buffered bytes.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.wrote(written),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.poll_writable(cx),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: usize) {
        self.writing.progress();
        self.connection.take(bytes);
        self.unsent.advance(bytes.min(self.unsent.len()));
        if self.unsent.is_empty() {
            // The next response gets a new buffer; an idle connection has none.
            self.unsent = BytesMut::new();
        }
        if matches!(self.message, Message::Tunnel) || self.connection.is_answered() {
            // In a tunnel progress in either direction counts; after a response a different wait applies.
            self.reading.progress();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_at_end() {
            if !self.connection.is_switched() {
                return self.poll_idle(cx);
            }
            self.message = Message::Tunnel;
        }
        self.poll_message(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + bytes.len() <= GATHER {
            if self.unsent.is_empty() {
                self.unsent.reserve(GATHER);
            }
            self.unsent.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let this = &mut *self;
            let slices = [IoSlice::new(&this.unsent), IoSlice::new(bytes)];
            let slices = if this.unsent.is_empty() { slices.get(1..) } else { Some(&slices[..]) };
            match Pin::new(&mut this.io).poll_write_vectored(cx, slices.unwrap_or_default()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    let behind = written.saturating_sub(this.unsent.len());
                    this.wrote(written);
                    if behind > 0 {
                        return Poll::Ready(Ok(behind));
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

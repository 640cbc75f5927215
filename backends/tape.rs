//! Remembers the bytes that a connection received, so that `/echo` can tell the
//! header names as they were spelt and in the order of the wire: hyper's own
//! header map lower-cases the names and groups repeated ones.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is kept at most before the older half goes. It exceeds hyper's read
/// buffer, so the head of the request at hand is always still there.
const KEPT_AT_MOST: usize = 2 * 1024 * 1024;

/// A shared view of the bytes that one connection received.
#[derive(Debug, Clone, Default)]
pub(super) struct Taped {
    received: Arc<Mutex<Vec<u8>>>,
}

impl Taped {
    /// Takes the head of the next HTTP/1 request with this method and target
    /// off the tape, and forgets everything before it.
    pub(super) fn take_head(&self, method: &str, target: &str) -> Option<String> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let start = find(&received, format!("{method} {target} HTTP/1.").as_bytes())?;
        let tail = received.get(start..)?;
        let length = find(tail, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(tail.get(..length)?).into_owned();
        received.drain(..start + length);
        Some(head)
    }

    /// Forgets everything: an HTTP/2 connection has no heads to find.
    pub(super) fn forget(&self) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received = Vec::new();
    }

    fn record(&self, bytes: &[u8]) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend_from_slice(bytes);
        if received.len() > KEPT_AT_MOST {
            let surplus = received.len() - KEPT_AT_MOST / 2;
            received.drain(..surplus);
        }
    }
}

/// Where `wanted` starts in `bytes`.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A TCP stream that records what it reads.
#[derive(Debug)]
pub(super) struct TapedStream {
    stream: TcpStream,
    tape: Taped,
}

impl TapedStream {
    /// Wraps the stream; the tape that comes with it fills as it is read.
    pub(super) fn new(stream: TcpStream) -> (Self, Taped) {
        let tape = Taped::default();
        let view = tape.clone();
        (Self { stream, tape }, view)
    }
}

impl AsyncRead for TapedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(new) = buffer.filled().get(before..) {
            self.tape.record(new);
        }
        outcome
    }
}

impl AsyncWrite for TapedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! Records the bytes that a connection received, so that `/echo` can return the
//! header fields with their original spelling and order. hyper's header map
//! lower-cases the names and groups repeated ones.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The maximum number of recorded bytes; beyond it the older half is dropped. It
/// exceeds hyper's read buffer, so the head of the current request is never dropped.
const RECORDED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A shared handle to the bytes that one connection received.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    received: Arc<Mutex<Vec<u8>>>,
}

impl Recording {
    /// Removes and returns the head of the next HTTP/1 request with this method
    /// and target, together with all bytes before it.
    pub(super) fn take_head(&self, method: &str, target: &str) -> Option<String> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let start = find(&received, format!("{method} {target} HTTP/1.").as_bytes())?;
        let tail = received.get(start..)?;
        let length = find(tail, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(tail.get(..length)?).into_owned();
        received.drain(..start + length);
        Some(head)
    }

    /// Drops all bytes: an HTTP/2 connection has no HTTP/1 heads.
    pub(super) fn clear(&self) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received = Vec::new();
    }

    fn append(&self, bytes: &[u8]) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend_from_slice(bytes);
        if received.len() > RECORDED_BYTES_MAX {
            let surplus = received.len() - RECORDED_BYTES_MAX / 2;
            received.drain(..surplus);
        }
    }
}

/// The offset of `pattern` in `bytes`.
fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// A TCP stream that records the bytes it reads.
#[derive(Debug)]
pub(super) struct RecordingStream {
    stream: TcpStream,
    recording: Recording,
}

impl RecordingStream {
    /// Wraps the stream and returns a handle to its recording.
    pub(super) fn new(stream: TcpStream) -> (Self, Recording) {
        let recording = Recording::default();
        let handle = recording.clone();
        (Self { stream, recording }, handle)
    }
}

impl AsyncRead for RecordingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(new) = buffer.filled().get(before..) {
            self.recording.append(new);
        }
        result
    }
}

impl AsyncWrite for RecordingStream {
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

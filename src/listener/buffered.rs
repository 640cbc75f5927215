//! A client's connection with a small write buffer, so that a short answer's header and body leave
//! in one packet and one system call.
//!
//! Pingora gives its own connections such a buffer (and a read buffer of 64 KiB, which is not
//! missed: it reads into buffers of its own), but only from inside its own accept loop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use nix::sys::socket::{MsgFlags, send};
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// What fits into one packet on an Ethernet.
const WRITE_BUFFER: usize = 1460;

/// A connection that gathers small writes until it is flushed.
#[derive(Debug)]
pub(super) struct Buffered {
    writer: BufWriter<L4Stream>,
    /// Whether a write has been begun and waits for room, so that the buffer holds bytes that were
    /// sent already.
    waiting: bool,
}

impl Buffered {
    /// Buffers what is written to `stream`.
    pub(super) fn new(stream: L4Stream) -> Self {
        Self { writer: BufWriter::with_capacity(WRITE_BUFFER, stream), waiting: false }
    }

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        // Further bytes may be put behind those that wait, so only an empty buffer is a new beginning.
        self.waiting = written.is_pending() || (self.waiting && !self.writer.buffer().is_empty());
        written
    }
}

/// What was written last and never flushed leaves with the connection: the alert that tells a client
/// why its handshake failed, which the TLS library writes just before it gives up.
impl Drop for Buffered {
    fn drop(&mut self) {
        let rest = self.writer.buffer();
        if !self.waiting && !rest.is_empty() {
            // Nobody can wait here; where the socket has no room, the client does without.
            send(self.writer.get_ref().id(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).ok();
        }
    }
}

impl AsyncRead for Buffered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.writer.get_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.writer).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.writer).poll_shutdown(cx);
        self.note(shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Buffered {
    async fn shutdown(&mut self) {
        if let Err(e) = tokio::io::AsyncWriteExt::shutdown(&mut self.writer).await {
            log::debug!("cannot close a connection in order: {e}");
        }
    }
}

impl UniqueID for Buffered {
    fn id(&self) -> UniqueIDType {
        self.writer.get_ref().id()
    }
}

impl Ssl for Buffered {}

#[async_trait]
impl Peek for Buffered {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.writer.get_mut().try_peek(buffer).await
    }
}

impl GetTimingDigest for Buffered {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.writer.get_ref().get_timing_digest()
    }
}

impl GetProxyDigest for Buffered {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.writer.get_ref().get_proxy_digest()
    }
}

impl GetSocketDigest for Buffered {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.writer.get_ref().get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (Buffered, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Buffered::new(listener.accept().await.unwrap().0.into()), client)
    }

    #[tokio::test]
    async fn what_was_not_flushed_leaves_with_the_connection() {
        let (mut connection, mut client) = pair().await;
        connection.write_all(b"alert").await.unwrap();
        drop(connection);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"alert");
    }

    #[tokio::test]
    async fn nothing_leaves_twice() {
        let (mut connection, mut client) = pair().await;
        let sent: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_be_bytes).collect();
        // Small pieces, so that they go through the buffer; until nobody takes any more.
        for piece in sent.chunks(1000) {
            let written = async {
                connection.write_all(piece).await?;
                connection.flush().await
            };
            if tokio::time::timeout(Duration::from_millis(50), written).await.is_err() {
                break;
            }
        }
        let mut received = vec![0; 100_000];
        client.read_exact(&mut received).await.unwrap();
        drop(connection);
        client.read_to_end(&mut received).await.unwrap();
        assert!(received.len() < sent.len(), "somebody had to wait");
        assert!(sent.starts_with(&received));
    }
}

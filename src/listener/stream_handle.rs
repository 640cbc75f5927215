//! A handle to a client's connection that is passed to Pingora, for one request or for all of HTTP/2.
//!
//! Pingora drops the connection whenever it does not expect another request: after a failed attempt, and after
//! an HTTP/2 backend that did not read the whole request, even if the response promised keep-alive. It drops
//! only this handle. The [`Connection`](super::connection::Connection) records whether the response promised
//! keep-alive; accordingly the listener reads the next request or closes the connection cleanly.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SocketError;
use parking_lot::{Mutex, MutexGuard};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::ClientStream;

/// A handle to the connection. All handles belong to one task, so the lock is never contended.
#[derive(Clone)]
pub struct StreamHandle(Arc<Mutex<ClientStream>>);

impl StreamHandle {
    pub(super) fn new(stream: ClientStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// The stream, for one poll.
    pub fn stream(&self) -> MutexGuard<'_, ClientStream> {
        self.0.lock()
    }
}

/// How long a reset of a half-closed connection is waited for, in milliseconds: after each pause it is looked for.
const RESET_PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

impl StreamHandle {
    /// Whether the client has reset the connection after the last bytes were sent to it. A client that closed only its
    /// sending side accepts them; one that disconnected resets the connection, a round trip later.
    pub async fn is_reset_soon(&self) -> bool {
        let fd = self.stream().io.id();
        for pause in RESET_PAUSES {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if is_broken(fd) {
                return true;
            }
        }
        false
    }
}

/// Whether the socket has a pending error.
#[expect(unsafe_code, reason = "Pingora passes the descriptor as a number")]
fn is_broken(fd: UniqueIDType) -> bool {
    // SAFETY: the stream that owns the descriptor outlives the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    getsockopt(&socket, SocketError).is_ok_and(|error| error != 0)
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamHandle").finish_non_exhaustive()
    }
}

impl AsyncRead for StreamHandle {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for StreamHandle {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for StreamHandle {
    /// Does nothing: the listener closes the connection when Pingora has dropped its handles.
    async fn shutdown(&mut self) {}
}

#[async_trait]
impl Peek for StreamHandle {}

impl UniqueID for StreamHandle {
    fn id(&self) -> UniqueIDType {
        self.stream().io.id()
    }
}

impl Ssl for StreamHandle {}

impl GetTimingDigest for StreamHandle {
    /// Empty: it is not used, and Pingora would allocate for it with every request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for StreamHandle {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.stream().connection().to_proxy_digest())
    }
}

impl GetSocketDigest for StreamHandle {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream().io.get_socket_digest()
    }
}

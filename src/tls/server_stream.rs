//! A client's connection after its TLS handshake.
//!
//! Pingora's type for this keeps space for both roles and both handshakes, 3 KiB for each connection. This one is the
//! library's stream alone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::identity::certificate_names;

/// The connection. `S` is the stream below TLS.
#[derive(Debug)]
pub struct ServerStream<S>(pub(super) TlsStream<S>);

impl<S> ServerStream<S> {
    /// Whether the client selected HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// The names in the client's certificate: the common name, and its DNS names, e-mail addresses and URIs. Empty without
    /// a certificate.
    #[must_use]
    pub fn client_names(&self) -> Vec<String> {
        let chain = self.0.get_ref().1.peer_certificates();
        chain.and_then(|chain| chain.first()).map(|certificate| certificate_names(certificate)).unwrap_or_default()
    }

    fn below(&self) -> &S {
        self.0.get_ref().0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for ServerStream<S> {
    async fn shutdown(&mut self) {
        // A client that is gone needs no close_notify.
        AsyncWriteExt::shutdown(self).await.ok();
    }
}

impl<S: IO> UniqueID for ServerStream<S> {
    fn id(&self) -> UniqueIDType {
        self.below().id()
    }
}

impl<S> Ssl for ServerStream<S> {}

impl<S: IO> GetTimingDigest for ServerStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.below().get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for ServerStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.below().get_proxy_digest()
    }
}

impl<S: IO> GetSocketDigest for ServerStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.below().get_socket_digest()
    }
}

impl<S> Peek for ServerStream<S> {}

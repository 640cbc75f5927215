//! Opens connections that Pingora does not: to Unix domain sockets, and with a PROXY protocol header as the first
//! bytes.
//!
//! Pingora supports Unix domain sockets only in part. It compares the path of the peer with the path that the
//! backend has bound, which differ with a symbolic link, a relative path or a mount in a container; then it reuses no
//! connection. It ends the process for an abstract socket. Therefore the peer of a socket has [`NOWHERE`] as its
//! address, which Pingora compares with nothing, and a hash of the path in its group key, which separates the idle
//! connections of different sockets.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::{Error, ErrorType};
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::ext::connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::base::backend_address::{BackendAddress, SocketPath};

/// The address of a peer that is a Unix domain socket.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Directs `peer` to `address`. Set the connection timeout of `peer` before.
pub(super) fn direct(peer: &mut HttpPeer, address: BackendAddress) {
    peer._address = PeerAddress::Inet(address.inet().unwrap_or(NOWHERE));
    if let BackendAddress::Unix(path) = address {
        // Not secret: the paths are in the configuration.
        peer.group_key = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(path);
        set(&mut peer.options, address, Vec::new());
    }
}

/// Makes new connections begin with `header`.
pub(super) fn set(options: &mut PeerOptions, address: BackendAddress, header: Vec<u8>) {
    let limit = options.connection_timeout.unwrap_or(Duration::MAX);
    options.custom_l4 = Some(Arc::new(Connector { address, header, limit }));
}

/// Connects, and writes the header before any other byte.
#[derive(Debug)]
struct Connector {
    address: BackendAddress,
    /// The PROXY protocol header; empty without one.
    header: Vec<u8>,
    /// The connection timeout. Pingora does not apply it to a custom connector.
    limit: Duration,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &PeerAddress) -> pingora::Result<Stream> {
        match tokio::time::timeout(self.limit, self.open()).await {
            Ok(opened) => opened,
            Err(e) => Err(Error::because(ErrorType::ConnectTimedout, format!("connecting to {}", self.address), e)),
        }
    }
}

impl Connector {
    async fn open(&self) -> pingora::Result<Stream> {
        match &self.address {
            BackendAddress::Inet(address) => Ok(self.greet(connect(address, None).await?).await?.into()),
            BackendAddress::Unix(path) => Ok(self.greet(connect_unix(path).await?).await?.into()),
        }
    }

    /// Writes the header.
    async fn greet<S: tokio::io::AsyncWrite + Unpin>(&self, mut stream: S) -> pingora::Result<S> {
        if !self.header.is_empty() {
            // No byte of the request has been sent yet, so this counts as a failed connection.
            stream.write_all(&self.header).await.map_err(|e| {
                let context = format!("PROXY protocol header to {}", self.address);
                Error::because(ErrorType::ConnectError, context, e)
            })?;
        }
        Ok(stream)
    }
}

/// Connects to a socket. It does not wait: if the backlog of the backend is full, the kernel reports an error.
async fn connect_unix(path: &SocketPath) -> pingora::Result<UnixStream> {
    let connected = match path.as_str().strip_prefix('@') {
        None => UnixStream::connect(path.as_str()).await,
        Some(name) => UnixStream::connect(format!("\0{name}")).await,
    };
    connected.map_err(|e| Error::because(error_type(&e), format!("connecting to {path}"), e))
}

fn error_type(e: &io::Error) -> ErrorType {
    match e.kind() {
        ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        _ => ErrorType::ConnectError,
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    fn peer(address: &str) -> HttpPeer {
        let mut peer = HttpPeer::new(NOWHERE, false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(5));
        direct(&mut peer, address.parse().unwrap());
        peer
    }

    async fn open(address: &str) -> pingora::Result<Stream> {
        let peer = peer(address);
        peer.options.custom_l4.as_ref().unwrap().connect(peer.address()).await
    }

    #[test]
    fn idle_connections_of_different_sockets_are_separate() {
        let keys = ["unix:/run/a.sock", "unix:/run/b.sock", "unix:@a", "127.0.0.1:1"].map(|a| peer(a).reuse_hash());
        assert_eq!(keys[0], peer("unix:/run/a.sock").reuse_hash());
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert!(peer("127.0.0.1:1").options.custom_l4.is_none(), "Pingora connects to IP addresses");
    }

    #[tokio::test]
    async fn socket_is_connected_by_its_path_or_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock").display().to_string();
        // The process number makes the name unique on this machine.
        let name = format!("l7lb-test-{}", std::process::id());
        for (address, bound) in [(format!("unix:{path}"), path), (format!("unix:@{name}"), format!("\0{name}"))] {
            let listener = UnixListener::bind(bound).unwrap();
            let mut stream = open(&address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            drop(stream);
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"hello");
        }
    }

    #[tokio::test]
    async fn missing_or_closed_socket_is_a_failed_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = format!("unix:{}", path.display());
        let error = open(&address).await.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::ConnectError);
        drop(UnixListener::bind(&path).unwrap());
        let error = open(&address).await.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::ConnectRefused);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(open(&address).await.is_err(), "a regular file");
    }
}

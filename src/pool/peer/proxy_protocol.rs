//! PROXY protocol version 2 to backends: sends the client's address at the start of a connection.
//!
//! The header applies to every request on its connection, so the connection serves one client connection only.
//! Pingora looks up idle connections by a hash of the peer. [`ProxyProtocol::set_client_header`] adds both
//! addresses of the client's connection to that hash, with a secret seed, so that a client cannot choose addresses
//! that collide with those of another client. When a client has disconnected, its idle connections close after
//! `keepalive_timeout`, or earlier when the pool of idle connections is full.
//!
//! [`connector`] establishes the connection, because Pingora has no hook between TCP and TLS. Therefore
//! `server.client_bind_to_ipv4` and `_ipv6` have no effect here, and a configuration with both is rejected.

use std::net::SocketAddr;

use ahash::RandomState;
use pingora_core::upstreams::peer::HttpPeer;
use schemars::JsonSchema;
use serde::Deserialize;

use super::connector;
use crate::base::backend_address::BackendAddress;
use crate::http::proxy_protocol::{encode_local, encode_v2};

/// The version of the PROXY protocol that the backends of the pool expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// Version 2, the binary format.
    V2,
}

/// Both addresses of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientConnection {
    /// The client; port 0 if only its address is known.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
}

/// The PROXY protocol settings of a pool.
#[derive(Clone)]
pub struct ProxyProtocol {
    seed: RandomState,
}

impl ProxyProtocol {
    /// Settings for `version`.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let Version::V2 = version;
        Self { seed: RandomState::new() }
    }

    /// Makes new connections to `peer`, the backend at `address`, start with the addresses of `connection`, and
    /// reuses only connections with the same addresses. Set the connection timeout of `peer` before.
    pub fn set_client_header(&self, peer: &mut HttpPeer, address: BackendAddress, connection: ClientConnection) {
        peer.group_key = self.seed.hash_one((connection, peer.group_key));
        connector::set(&mut peer.options, address, encode_v2(connection.client, connection.local));
    }

    /// Makes new connections to `peer`, the backend at `address`, start with a LOCAL header, as for health checks:
    /// the connection does not relay a client.
    pub fn set_local_header(&self, peer: &mut HttpPeer, address: BackendAddress) {
        connector::set(&mut peer.options, address, encode_local().to_vec());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingora::ErrorType;
    use pingora_core::upstreams::peer::Peer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn connection(client: &str, local: &str) -> ClientConnection {
        ClientConnection { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    fn backend(address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(5));
        peer
    }

    #[test]
    fn idle_connection_is_reused_only_by_the_same_client_connection() {
        let protocol = ProxyProtocol::new(Version::V2);
        let key = |client: &str, local: &str| {
            let mut peer = backend(([127, 0, 0, 1], 1).into());
            let address = ([127, 0, 0, 1], 1);
            protocol.set_client_header(&mut peer, SocketAddr::from(address).into(), connection(client, local));
            peer.reuse_hash()
        };
        let own = key("192.0.2.1:1000", "192.0.2.9:443");
        assert_eq!(own, key("192.0.2.1:1000", "192.0.2.9:443"));
        for (client, local) in [
            ("192.0.2.1:1001", "192.0.2.9:443"),
            ("192.0.2.2:1000", "192.0.2.9:443"),
            ("192.0.2.1:1000", "192.0.2.9:80"),
            ("192.0.2.9:443", "192.0.2.1:1000"),
        ] {
            assert_ne!(own, key(client, local), "{client} {local}");
        }
        assert_ne!(own, backend(([127, 0, 0, 1], 1).into()).reuse_hash());
    }

    #[tokio::test]
    async fn header_is_written_before_any_other_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = backend(address);
        let protocol = ProxyProtocol::new(Version::V2);
        for local in [false, true] {
            let client = connection("192.0.2.1:1000", "192.0.2.9:443");
            let expected = if local {
                protocol.set_local_header(&mut peer, address.into());
                encode_local().to_vec()
            } else {
                protocol.set_client_header(&mut peer, address.into(), client);
                encode_v2(client.client, client.local)
            };
            let connector = peer.options.custom_l4.clone().unwrap();
            let mut stream = connector.connect(peer.address()).await.unwrap();
            stream.write_all(b"and more").await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            drop(stream);
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, [expected.as_slice(), b"and more"].concat());
        }
    }

    #[tokio::test]
    async fn failed_header_counts_as_a_failed_connection() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut peer = backend(closed);
        let protocol = ProxyProtocol::new(Version::V2);
        protocol.set_local_header(&mut peer, closed.into());
        let connector = peer.options.custom_l4.clone().unwrap();
        let error = connector.connect(peer.address()).await.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::ConnectRefused);
        peer.options.connection_timeout = Some(Duration::ZERO);
        protocol.set_local_header(&mut peer, closed.into());
        let connector = peer.options.custom_l4.clone().unwrap();
        let error = connector.connect(peer.address()).await.unwrap_err();
        assert!(matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::ConnectRefused), "{error}");
    }
}

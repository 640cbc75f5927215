//! How l7lb connects to backends: protocol, TLS and timeouts of a connection.
//!
//! - [`connector`]: connections to Unix domain sockets.
//! - [`proxy_protocol`]: PROXY protocol to backends.

mod connector;
pub mod proxy_protocol;

use std::time::Duration;

use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::HttpPeer;
use schemars::JsonSchema;
use serde::Deserialize;

use self::proxy_protocol::ProxyProtocol;
use crate::base::backend_address::BackendAddress;
use crate::base::timeouts::Timeouts;
use crate::tls::upstream::UpstreamTls;

/// The protocol to the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, with or without TLS.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// HTTP/2 over TLS only.
    Http2,
    /// HTTP/2 or HTTP/1.1 over TLS, negotiated by ALPN.
    Auto,
}

impl Protocol {
    /// Whether the protocol is valid for a pool with TLS, or without TLS.
    #[must_use]
    pub fn fits_tls(self, tls: bool) -> bool {
        match self {
            Self::Http1 => true,
            Self::H2c => !tls,
            Self::Http2 | Self::Auto => tls,
        }
    }

    fn alpn(self) -> ALPN {
        match self {
            Self::Http1 => ALPN::H1,
            Self::H2c | Self::Http2 => ALPN::H2,
            Self::Auto => ALPN::H2H1,
        }
    }
}

/// Time for a TLS handshake after the TCP connection.
const TLS_HANDSHAKE: Duration = Duration::from_secs(3);

/// Concurrent requests on one HTTP/2 connection to a backend; Pingora's default is 1.
const H2_STREAMS: usize = 100;

/// Everything that a connection to a backend needs except its address.
#[derive(Clone)]
pub struct Template {
    /// The protocol.
    pub protocol: Protocol,
    /// TLS settings, if the pool uses TLS.
    pub tls: Option<UpstreamTls>,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// How long an idle connection is kept. It is shorter than the usual timeout of backends (60 s), so that l7lb
    /// closes an idle connection first and no request is sent on a connection that the backend is closing.
    pub keepalive_timeout: Duration,
    /// PROXY protocol to the backends, if configured.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Template {
    /// The peer for a request within `timeouts` to the backend at `address`.
    #[must_use]
    pub fn peer(&self, address: BackendAddress, timeouts: &Timeouts) -> HttpPeer {
        let server_name = self.tls.as_ref().map(|tls| tls.server_name.clone()).unwrap_or_default();
        let mut peer = HttpPeer::new(connector::NOWHERE, self.tls.is_some(), server_name);
        peer.client_cert_key = self.tls.as_ref().and_then(|tls| tls.client.clone());
        self.apply(&mut peer, timeouts);
        connector::direct(&mut peer, address);
        peer
    }

    /// The peer for a health check of the backend at `address`, within `timeout`.
    #[must_use]
    pub fn peer_for_check(&self, address: BackendAddress, timeout: Duration) -> HttpPeer {
        let mut peer = self.peer(address, &self.timeouts);
        peer.options.connection_timeout = Some(timeout);
        peer.options.total_connection_timeout = Some(timeout);
        peer.options.read_timeout = Some(timeout);
        // A new connection for each check: a shared one would hide that no new connection can be established.
        peer.options.max_h2_streams = 1;
        match &self.proxy_protocol {
            Some(proxy_protocol) => proxy_protocol.set_local_header(&mut peer, address),
            // Again, with the new timeout.
            None => connector::direct(&mut peer, address),
        }
        peer
    }

    /// The peer for a request with `Upgrade`. Upgrades need HTTP/1.1, so with `protocol: auto` the connection uses
    /// HTTP/1.1.
    #[must_use]
    pub fn peer_for_upgrade(&self, address: BackendAddress, timeouts: &Timeouts) -> HttpPeer {
        let mut peer = self.peer(address, timeouts);
        if self.protocol == Protocol::Auto {
            peer.options.alpn = ALPN::H1;
        }
        peer
    }

    /// The `Host` of health checks: the server name of TLS.
    #[must_use]
    pub fn host(&self) -> &str {
        self.tls.as_ref().map_or("localhost", |tls| &tls.server_name)
    }

    fn apply(&self, peer: &mut HttpPeer, timeouts: &Timeouts) {
        let options = &mut peer.options;
        options.alpn = self.protocol.alpn();
        options.max_h2_streams = H2_STREAMS;
        options.connection_timeout = Some(timeouts.connect);
        let handshake = if self.tls.is_some() { TLS_HANDSHAKE } else { Duration::ZERO };
        options.total_connection_timeout = Some(timeouts.connect + handshake);
        options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
        options.write_timeout = Some(timeouts.idle);
        options.idle_timeout = Some(self.keepalive_timeout);
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::ZERO,
        });
        if let Some(tls) = &self.tls {
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify;
            options.ca.clone_from(&tls.authorities);
        }
    }
}

//! How l7lb connects to backends: protocol, TLS and timeouts.
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
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
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

/// The `timeouts:` block of a pool or a route. A route inherits missing values from its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Timeout for establishing a TCP connection to a backend. A TLS handshake may take 3 s in addition.
    pub connect: Option<Period>,
    /// Timeout from the end of the request to the first byte of the response.
    pub first_byte: Option<Period>,
    /// Longest pause between two reads from, or two writes to, a backend.
    pub idle: Option<Period>,
    /// Timeout of one attempt, from the selection of its backend to the end of the response. Without it an
    /// attempt has no time limit.
    pub attempt: Option<Period>,
    /// Timeout of a request with all its attempts, from its arrival to the end of the response. Without it a
    /// request has no time limit.
    pub total: Option<Period>,
}

/// The checked timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout for establishing a TCP connection.
    pub connect: Duration,
    /// Timeout from the end of the request to the first byte of the response.
    pub first_byte: Duration,
    /// Longest pause between two reads or two writes.
    pub idle: Duration,
    /// Timeout of one attempt, if limited.
    pub attempt: Option<Duration>,
    /// Timeout of a request with all its attempts, if limited.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            attempt: None,
            total: None,
        }
    }
}

impl TimeoutsConfig {
    /// Checks the block, and fills in missing values from `base`.
    pub fn check(&self, base: Timeouts, place: &Place, faults: &mut Faults) -> Timeouts {
        let mut read = |key: &str, configured: Option<Period>| match configured {
            Some(Period(Duration::ZERO)) => {
                faults.add(place.key(key), "must be greater than zero", "write for example 30s");
                None
            }
            configured => configured.map(|Period(period)| period),
        };
        let timeouts = Timeouts {
            connect: read("connect", self.connect).unwrap_or(base.connect),
            first_byte: read("first_byte", self.first_byte).unwrap_or(base.first_byte),
            idle: read("idle", self.idle).unwrap_or(base.idle),
            attempt: read("attempt", self.attempt).or(base.attempt),
            total: read("total", self.total).or(base.total),
        };
        if let (Some(one), Some(all)) = (timeouts.attempt, timeouts.total)
            && one > all
            && (self.attempt.is_some() || self.total.is_some())
        {
            let problem = format!("an attempt may take longer ({}) than the request ({})", Period(one), Period(all));
            faults.add(
                place.key(if self.attempt.is_some() { "attempt" } else { "total" }),
                problem,
                "increase `total`",
            );
        }
        timeouts
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
    /// The peer for the backend at `address`.
    #[must_use]
    pub fn peer(&self, address: BackendAddress) -> HttpPeer {
        let server_name = self.tls.as_ref().map(|tls| tls.server_name.clone()).unwrap_or_default();
        let mut peer = HttpPeer::new(connector::NOWHERE, self.tls.is_some(), server_name);
        peer.client_cert_key = self.tls.as_ref().and_then(|tls| tls.client.clone());
        self.apply(&mut peer);
        connector::direct(&mut peer, address);
        peer
    }

    /// The peer for a health check of the backend at `address`, within `timeout`.
    #[must_use]
    pub fn peer_for_check(&self, address: BackendAddress, timeout: Duration) -> HttpPeer {
        let mut peer = self.peer(address);
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
    pub fn peer_for_upgrade(&self, address: BackendAddress) -> HttpPeer {
        let mut peer = self.peer(address);
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

    /// The longest timeout of a read.
    #[must_use]
    pub fn read_timeout(&self) -> Duration {
        self.timeouts.first_byte.max(self.timeouts.idle)
    }

    fn apply(&self, peer: &mut HttpPeer) {
        let options = &mut peer.options;
        options.alpn = self.protocol.alpn();
        options.max_h2_streams = H2_STREAMS;
        options.connection_timeout = Some(self.timeouts.connect);
        let handshake = if self.tls.is_some() { TLS_HANDSHAKE } else { Duration::ZERO };
        options.total_connection_timeout = Some(self.timeouts.connect + handshake);
        options.read_timeout = Some(self.read_timeout());
        options.write_timeout = Some(self.timeouts.idle);
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

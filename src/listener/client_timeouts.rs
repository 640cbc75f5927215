//! Timeouts of clients: the `client_timeouts:` block.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Size};
use crate::listener::minimum_rate::RateLimit;

/// Configuration of client timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Timeout of the TLS handshake, of the PROXY protocol header, and of the HTTP/2 connection preface.
    pub handshake: Period,
    /// Timeout of a request header, from its first to its last byte; also for the first byte on a connection.
    pub header: Period,
    /// Timeout of an idle connection between requests.
    pub keepalive: Period,
    /// The longest pause while a request body is received.
    pub body: Period,
    /// The longest pause while a response is sent.
    pub write: Period,
    /// Idle timeout of a tunnel after a protocol switch (WebSocket): no byte in either direction.
    pub tunnel: Period,
    /// The minimum rate in bytes per second at which a client sends a request body and reads a response, while l7lb waits
    /// for it; 0 for none.
    pub minimum_rate: Size,
    /// The period of waiting over which the minimum rate is measured.
    pub minimum_rate_period: Period,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake: Period::seconds(10),
            header: Period::seconds(10),
            keepalive: Period::seconds(75),
            body: Period::seconds(30),
            write: Period::seconds(30),
            tunnel: Period::seconds(3600),
            minimum_rate: Size(100),
            minimum_rate_period: Period::seconds(30),
        }
    }
}

/// The checked timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For a handshake.
    pub handshake: Duration,
    /// For a request header.
    pub header: Duration,
    /// For an idle connection between requests.
    pub keepalive: Duration,
    /// For a pause in a request body.
    pub body: Duration,
    /// For a pause while a response is sent.
    pub write: Duration,
    /// For an idle tunnel.
    pub tunnel: Duration,
    /// The minimum rate of a client.
    pub minimum_rate: RateLimit,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Config::default().check(&Place::root(), &mut Faults::default())
    }
}

impl Config {
    /// Checks the block: a timeout of zero would reject every client.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> ClientTimeouts {
        let mut read = |key: &str, period: Period| {
            if period.0.is_zero() {
                faults.add(place.key(key), "must be greater than zero", "write for example 30s");
            }
            period.0
        };
        ClientTimeouts {
            handshake: read("handshake", self.handshake),
            header: read("header", self.header),
            keepalive: read("keepalive", self.keepalive),
            body: read("body", self.body),
            write: read("write", self.write),
            tunnel: read("tunnel", self.tunnel),
            minimum_rate: RateLimit {
                bytes_per_second: self.minimum_rate.0,
                period: read("minimum_rate_period", self.minimum_rate_period),
            },
        }
    }
}

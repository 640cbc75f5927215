//! Timeouts of clients: the `client_timeouts:` block.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Size};

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
    /// The minimum average rate of a request body in bytes per second, after its first 5 s; 0 for none.
    pub minimum_rate: Size,
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
            minimum_rate: Size(0),
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
    /// Bytes per second; 0 for no minimum.
    pub minimum_rate: u64,
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
            minimum_rate: self.minimum_rate.0,
        }
    }
}

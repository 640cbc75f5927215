//! How long clients may take: the `client_timeouts:` block.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Size};

/// The block, as written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For a TLS handshake, a PROXY protocol header, or HTTP/2's preface.
    pub handshake: Period,
    /// For a request's header, from its first byte to its last; also for the first byte of all.
    pub header: Period,
    /// Between requests.
    pub keepalive: Period,
    /// For each pause while a body is received.
    pub body: Period,
    /// For each pause while an answer is sent.
    pub write: Period,
    /// For silence in both directions after a switch of protocols (WebSocket).
    pub tunnel: Period,
    /// Bytes in each second that a body must bring on average, after its first 5 s; 0 for any.
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

/// The checked times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For a handshake.
    pub handshake: Duration,
    /// For a request's header.
    pub header: Duration,
    /// Between requests.
    pub keepalive: Duration,
    /// For a pause in a body.
    pub body: Duration,
    /// For a pause in taking an answer.
    pub write: Duration,
    /// For silence in a tunnel.
    pub tunnel: Duration,
    /// Bytes per second; 0 for any.
    pub minimum_rate: u64,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Config::default().check(&Place::root(), &mut Faults::default())
    }
}

impl Config {
    /// Refuses times of nothing, at which no client could be served.
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

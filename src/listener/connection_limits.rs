//! Limits of connections: the `connection_limits:` block.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// Configuration of connection limits.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest number of connections in total. Default: as many as the file descriptor limit of the process
    /// allows.
    pub total: Option<usize>,
    /// The largest number of connections per client: an IPv4 address, or an IPv6 /64.
    pub per_client: usize,
    /// The largest number of requests on one connection, which is closed after the last one.
    pub requests: u32,
    /// The age at which a connection is closed after its current request.
    pub age: Period,
    /// The largest number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { total: None, per_client: 256, requests: 10_000, age: Period::seconds(3600), streams: 100 }
    }
}

/// The checked limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections in total, if configured.
    pub total: Option<usize>,
    /// Connections per client.
    pub per_client: usize,
    /// Requests on one connection.
    pub requests: u32,
    /// The largest age of a connection.
    pub age: Duration,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

impl Config {
    /// Checks the block: a limit of zero would reject every client.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> ConnectionLimits {
        let zeros = [
            ("total", self.total == Some(0)),
            ("per_client", self.per_client == 0),
            ("requests", self.requests == 0),
            ("age", self.age.0.is_zero()),
            ("streams", self.streams == 0),
        ];
        for (key, _) in zeros.into_iter().filter(|(_, zero)| *zero) {
            faults.add(place.key(key), "must be greater than zero", "remove the key to use the default");
        }
        ConnectionLimits {
            total: self.total,
            per_client: self.per_client,
            requests: self.requests,
            age: self.age.0,
            streams: self.streams,
        }
    }
}

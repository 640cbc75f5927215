//! How many connections there may be, and how much each may carry: the `connection_limits:` block.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// The block, as written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connections in all; unless told, what the process's file descriptors allow.
    pub total: Option<usize>,
    /// Connections of one client: an IPv4 address, or an IPv6 /64.
    pub per_client: usize,
    /// Requests on one connection; then the client is asked to connect anew.
    pub requests: u32,
    /// How old a connection grows before the client is asked to connect anew.
    pub age: Period,
    /// Requests at once on one HTTP/2 connection.
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
    /// Connections in all, where told.
    pub total: Option<usize>,
    /// Connections of one client.
    pub per_client: usize,
    /// Requests on one connection.
    pub requests: u32,
    /// The oldest that a connection grows.
    pub age: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Config {
    /// Refuses limits of nothing, at which no client could be served.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> ConnectionLimits {
        let zeros = [
            ("total", self.total == Some(0)),
            ("per_client", self.per_client == 0),
            ("requests", self.requests == 0),
            ("age", self.age.0.is_zero()),
            ("streams", self.streams == 0),
        ];
        for (key, _) in zeros.into_iter().filter(|(_, zero)| *zero) {
            faults.add(place.key(key), "must be more than nothing", "leave it out for the default");
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

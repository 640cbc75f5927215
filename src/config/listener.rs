//! The `listeners:` list: addresses to accept connections at, in plain or over TLS.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::fault::{Faults, Place};
use crate::tls;

/// One listener, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The IP address and port to listen at.
    pub address: String,
    /// TLS; without it the listener speaks plain HTTP (HTTP/1.1, and HTTP/2 by prior knowledge).
    #[serde(default)]
    pub tls: Option<tls::Config>,
}

/// One checked listener.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Where to listen.
    pub address: SocketAddr,
    /// How TLS is spoken; `None` for plain HTTP.
    pub tls: Option<tls::Settings>,
}

impl Config {
    /// Proves the listener consistent, reading its files.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let address = self.address.parse::<SocketAddr>();
        if address.is_err() {
            faults.add(
                place.key("address"),
                format!("`{}` is not an IP address with a port", self.address),
                "write for example 0.0.0.0:8080, or [::]:8080 for IPv4 and IPv6",
            );
        }
        let tls = self.tls.as_ref().map(|tls| tls.check(&place.key("tls"), faults));
        // Faulty TLS is no plain HTTP; the faults keep it from being served.
        Some(Spec { address: address.ok()?, tls: tls.flatten() })
    }
}

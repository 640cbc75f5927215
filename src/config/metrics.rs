//! The `metrics:` block: addresses at which Prometheus reads the metrics.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{admin, listener};
use crate::base::fault::{Faults, Place};
use crate::listener::address::ListenAddress;

/// The `metrics:` block.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listen addresses: IP address and port. They serve only `GET /metrics`, over plain HTTP and without
    /// authentication.
    pub listen: Vec<String>,
}

/// The checked `metrics:` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The listen addresses; at least one.
    pub listen: Vec<SocketAddr>,
}

impl Config {
    /// Checks the block. The addresses must differ from those of `listeners` and `admin`.
    pub fn check(
        &self,
        (listeners, admin): (&[listener::Spec], Option<&admin::Spec>),
        place: &Place,
        faults: &mut Faults,
    ) -> Spec {
        const HINT: &str = "write for example 127.0.0.1:9464";
        let place = place.key("listen");
        if self.listen.is_empty() {
            faults.add(place.clone(), "there is no address", HINT);
        }
        let taken: BTreeSet<&ListenAddress> = listeners.iter().flat_map(|listener| &listener.addresses).collect();
        let mut listen = Vec::with_capacity(self.listen.len());
        for (index, text) in self.listen.iter().enumerate() {
            let place = place.index(index);
            let Ok(address) = text.parse::<SocketAddr>() else {
                faults.add(place, format!("`{text}` is not an IP address with a port"), HINT);
                continue;
            };
            if listen.contains(&address) {
                faults.add(place, format!("{address} is listed twice"), "remove one of the two");
            } else if address.port() != 0 && taken.contains(&ListenAddress::Inet(address)) {
                faults.add(place, format!("{address} is the address of a listener"), "use another port");
            } else if address.port() != 0 && admin.is_some_and(|admin| admin.listen.contains(&address)) {
                faults.add(place, format!("{address} is an address of `admin`"), "use another port");
            }
            listen.push(address);
        }
        Spec { listen }
    }

    /// The addresses that other machines can reach, with their place in the list.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        let parsed = self.listen.iter().enumerate();
        let parsed = parsed.filter_map(|(index, text)| Some((index, text.parse::<SocketAddr>().ok()?)));
        parsed.filter(|(_, address)| !address.ip().to_canonical().is_loopback())
    }
}

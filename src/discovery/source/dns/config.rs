//! The `dns:` block of a source: its keys, and what they may contain.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::discovery::source::Family;
use crate::discovery::target::is_host_name;

/// The port of resolvers.
const RESOLVER_PORT: u16 = 53;
/// The most resolvers, as in resolv.conf. Each may take a second.
pub(super) const RESOLVERS_MAX: usize = 3;

/// Configuration of a name whose addresses are the backends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name. A dot at its end keeps the search domains from being appended.
    pub name: String,
    /// The TCP port of the backends. Required, except for `srv`.
    pub port: Option<u16>,
    /// Which records list the backends.
    #[serde(default, rename = "type")]
    pub kind: Type,
    /// Which addresses are used.
    #[serde(default)]
    pub family: Family,
    /// DNS servers, as IP address or IP address and port; at most three. Those in /etc/resolv.conf by default.
    #[serde(default)]
    pub resolvers: Vec<String>,
    /// Whether the search domains in /etc/resolv.conf are appended to a name without a dot at its end.
    #[serde(default = "yes")]
    pub search: bool,
    /// The shortest time between two queries, if the answer has a shorter time to live.
    #[serde(default = "minimum_ttl")]
    pub minimum_ttl: Period,
    /// The longest time between two queries, if the answer has a longer time to live.
    #[serde(default = "max_ttl")]
    pub max_ttl: Period,
}

/// Which records list the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// The addresses of the name (A and AAAA), with `port`.
    #[default]
    Address,
    /// SRV records, with port, weight and priority.
    Srv,
}

fn yes() -> bool {
    true
}

fn minimum_ttl() -> Period {
    Period::seconds(1)
}

fn max_ttl() -> Period {
    Period::seconds(300)
}

/// A checked DNS source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The name as in the configuration, and what is asked for it.
    pub(super) name: Name,
    pub(super) records: Records,
    pub(super) family: Family,
    /// Empty for those in /etc/resolv.conf.
    pub(super) resolvers: Vec<SocketAddr>,
    pub(super) search: bool,
    pub(super) minimum_ttl: Duration,
    pub(super) max_ttl: Duration,
    /// Whether an answer without an address is an empty list instead of a failure.
    pub(super) accepts_empty: bool,
}

/// The records that list the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// Addresses, with this port.
    Address(u16),
    /// SRV records.
    Srv,
}

impl Config {
    /// Checks the block. `accepts_empty` says whether an answer without an address is an empty list.
    pub fn check(&self, accepts_empty: bool, place: &Place, faults: &mut Faults) -> Option<Spec> {
        if self.name.contains(':') {
            let problem = format!("`{}` has no valid port (1 to 65535)", self.name);
            faults.add(
                place.key("name"),
                problem,
                "write for example `dns: api.internal:8080`, or the keys `name` and `port`",
            );
            return None;
        }
        let name = self.check_name(place, faults);
        let records = self.check_records(place, faults);
        let resolvers = self.check_resolvers(&place.key("resolvers"), faults);
        let (minimum_ttl, max_ttl) = (self.minimum_ttl.0, self.max_ttl.0);
        if minimum_ttl < Duration::from_secs(1) {
            faults.add(place.key("minimum_ttl"), "the time is shorter than 1s", "write 1s or more");
        }
        if max_ttl < minimum_ttl {
            let problem = format!("`max_ttl` ({}) is below `minimum_ttl` ({})", self.max_ttl, self.minimum_ttl);
            faults.add(place.key("max_ttl"), problem, "write a longer time");
        }
        let (family, search) = (self.family, self.search);
        Some(Spec { name: name?, records: records?, family, resolvers, search, minimum_ttl, max_ttl, accepts_empty })
    }

    fn check_name(&self, place: &Place, faults: &mut Faults) -> Option<Name> {
        let name = Name::from_ascii(&self.name).ok().filter(|_| is_host_name(&self.name));
        if name.is_none() {
            let problem = format!("`{}` is not a host name", self.name);
            faults.add(place.key("name"), problem, "write for example api.internal");
        }
        name
    }

    fn check_records(&self, place: &Place, faults: &mut Faults) -> Option<Records> {
        match (self.kind, self.port) {
            (Type::Address, Some(port)) if port > 0 => Some(Records::Address(port)),
            (Type::Srv, None) => Some(Records::Srv),
            (Type::Address, Some(_)) => {
                faults.add(place.key("port"), "port 0 is not the port of a backend", "write 1 to 65535");
                None
            }
            (Type::Address, None) => {
                let hint = "add `port`, or `type: srv` if the name has SRV records";
                faults.add(place.clone(), "the port is missing", hint);
                None
            }
            (Type::Srv, Some(_)) => {
                faults.add(place.key("port"), "SRV records have their own ports", "remove it");
                None
            }
        }
    }

    fn check_resolvers(&self, place: &Place, faults: &mut Faults) -> Vec<SocketAddr> {
        if self.resolvers.len() > RESOLVERS_MAX {
            let problem = format!("the list has {} resolvers, more than {RESOLVERS_MAX}", self.resolvers.len());
            faults.add(place.clone(), problem, "remove some");
        }
        let mut addresses = Vec::with_capacity(self.resolvers.len());
        for (index, text) in self.resolvers.iter().enumerate() {
            let ip = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, RESOLVER_PORT));
            match text.parse::<SocketAddr>().or_else(|_| ip()) {
                Ok(address) if address.port() > 0 => addresses.push(address),
                _ => {
                    let problem = format!("`{text}` is not the address of a resolver");
                    faults.add(place.index(index), problem, "write for example 10.0.0.53 or 127.0.0.1:5353");
                }
            }
        }
        addresses
    }

    /// The name of the source.
    pub fn source_name(&self) -> String {
        match self.port {
            Some(port) => format!("dns {}:{port}", self.name),
            None => format!("dns {}", self.name),
        }
    }
}

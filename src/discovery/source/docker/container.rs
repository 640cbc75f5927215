//! A container in the list of the Docker Engine, and the backend that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

use super::config::Spec;
use crate::base::backend_address::BackendAddress;
use crate::base::units::Zone;
use crate::discovery::labels::Labels;
use crate::discovery::source::{Found, WEIGHT_MAX};
use crate::tls::connection::shorten;

/// The start of the names of labels that l7lb reads.
const PREFIX: &str = "l7lb.";
/// The label that names the pool of a container.
pub(super) const POOL: &str = "l7lb.pool";
/// The network of a container that shares the addresses of its host.
const HOST: &str = "host";

/// A container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    /// Its id.
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    state: String,
    /// A sentence with the health at its end, such as `Up 5 minutes (healthy)`.
    #[serde(default)]
    status: String,
    /// Since API version 1.52.
    #[serde(default)]
    health: Option<Health>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
}

/// An exposed port. Published ports are in the list once for each address of the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    private_port: u16,
    #[serde(default, rename = "Type")]
    protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, Option<Network>>>,
}

/// The addresses in a network; empty if there is none.
#[derive(Debug, Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    ipv4: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    ipv6: String,
}

impl Container {
    /// Whether it serves requests: it is running, and healthy if it has a health check.
    pub(super) fn is_ready(&self) -> bool {
        let health = self.health.as_ref().map_or("", |health| health.status.as_str());
        let is_unhealthy = match health {
            "" => self.status.ends_with("(unhealthy)") || self.status.ends_with("(health: starting)"),
            health => !matches!(health, "none" | "healthy"),
        };
        self.state == "running" && !is_unhealthy
    }

    /// The backend, with the keys of the source for what its labels do not say.
    ///
    /// # Errors
    /// Why it is none, with its name.
    pub(super) fn found(&self, spec: &Spec, drain: bool) -> Result<Found, String> {
        self.read(spec, drain)
            .map_err(|reason| shorten(&format!("container `{}`: {reason}", self.name().escape_debug())))
    }

    fn read(&self, spec: &Spec, drain: bool) -> Result<Found, String> {
        self.check_names()?;
        let ip = self.ip(spec)?;
        let address = BackendAddress::from(SocketAddr::new(ip, self.port(spec)?));
        let weight = self.parsed("weight", "a number from 0 to 1000")?.unwrap_or(1);
        if weight > WEIGHT_MAX {
            return Err(format!("the label `l7lb.weight` is {weight}, more than {WEIGHT_MAX}"));
        }
        let backup = self.parsed("backup", "true or false")?.unwrap_or(false);
        let zone: Option<Zone> = self.parsed("zone", "the name of a zone")?;
        Ok(Found { address, weight, backup, drain, zone, labels: self.own_labels() })
    }

    /// The name, or the id of a container without one.
    fn name(&self) -> &str {
        let name = self.names.iter().flatten().next().unwrap_or(&self.id);
        name.strip_prefix('/').unwrap_or(name)
    }

    /// A misspelled label would be ignored otherwise.
    fn check_names(&self) -> Result<(), String> {
        let known = ["pool", "port", "weight", "backup", "zone", "network"];
        let mut names = self.labels.iter().flat_map(BTreeMap::keys).filter_map(|name| name.strip_prefix(PREFIX));
        match names.find(|name| !known.contains(name)) {
            Some(name) => Err(format!("`{PREFIX}{}` is none of the labels of l7lb", name.escape_debug())),
            None => Ok(()),
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(&format!("{PREFIX}{name}")).map(String::as_str)
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, String> {
        let Some(text) = self.label(name) else { return Ok(None) };
        let invalid = |_| {
            let text = shorten(text);
            format!("the label `{PREFIX}{name}` is `{}`, which is not {expected}", text.escape_debug())
        };
        text.parse().map(Some).map_err(invalid)
    }

    /// The label, the key, or the only exposed port.
    fn port(&self, spec: &Spec) -> Result<u16, String> {
        let expected = "a port (1 to 65535)";
        if let Some(port) = self.parsed("port", expected)?.or(spec.port) {
            return if port > 0 {
                Ok(port)
            } else {
                Err(format!("the label `l7lb.port` is `0`, which is not {expected}"))
            };
        }
        let ports = self.ports.iter().flatten().filter(|port| port.protocol == "tcp" && port.private_port > 0);
        let ports: BTreeSet<u16> = ports.map(|port| port.private_port).collect();
        match (ports.len(), ports.first()) {
            (1, Some(port)) => Ok(*port),
            (0, _) => Err("it exposes no TCP port; add the label `l7lb.port`, or the key `port`".to_owned()),
            (count, _) => Err(format!("it exposes {count} TCP ports; add the label `l7lb.port`, or the key `port`")),
        }
    }

    /// The address in the network of the label or the key, or in the only network.
    fn ip(&self, spec: &Spec) -> Result<IpAddr, String> {
        let networks = self.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let all = || networks.into_iter().flatten();
        let address = |(name, network): (&String, &Option<Network>)| {
            let ip = network.as_ref().and_then(Network::ip);
            let host = (name == HOST).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            ip.or(host)
        };
        if let Some(wanted) = self.label("network").or(spec.network.as_deref()) {
            let network = all().find(|(name, _)| *name == wanted);
            return network
                .and_then(address)
                .ok_or_else(|| format!("it has no address in the network `{}`", shorten(wanted).escape_debug()));
        }
        let mut usable = all().filter_map(|network| Some((network.0, address(network)?)));
        match (usable.next(), usable.next()) {
            (Some((_, ip)), None) => Ok(ip),
            (None, _) => Err("it has no address".to_owned()),
            (Some((one, _)), Some((two, _))) => Err(format!(
                "it has several networks, such as `{}` and `{}`; add the label `l7lb.network`, or the key `network`",
                shorten(one).escape_debug(),
                shorten(two).escape_debug()
            )),
        }
    }

    /// Its name and image, for operators. Both are left out if one is not valid as a label.
    fn own_labels(&self) -> Labels {
        let labels = [("container", self.name()), ("image", self.image.as_str())];
        let labels: BTreeMap<String, String> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Labels::try_from(labels).unwrap_or_default()
    }
}

impl Network {
    fn ip(&self) -> Option<IpAddr> {
        let parse = |text: &String| text.parse::<IpAddr>().ok();
        parse(&self.ipv4).or_else(|| parse(&self.ipv6))
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;

//! What EndpointSlices mean: the backends of a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::messages::{Endpoint, Slice, SlicePort};
use crate::base::backend_address::BackendAddress;
use crate::base::units::Zone;
use crate::discovery::labels::Labels;
use crate::discovery::source::{Family, Found};

/// Which port of the endpoints is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// The port with this number.
    Number(u16),
    /// The port with this name, whose number may differ between pods.
    Name(String),
}

/// The longest name of a port.
const PORT_NAME_MAX: usize = 63;

impl FromStr for Port {
    type Err = ();

    /// A name of a port has a letter, so it is no number.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|port| *port > 0).map(Self::Number).ok_or(());
        }
        let is_name = text.len() <= PORT_NAME_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What slices list: backends, and how many endpoints are left out as invalid with the reason for one of them.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) found: Vec<Found>,
    pub(super) rejected: Option<(usize, String)>,
}

impl Listed {
    fn reject(&mut self, count: usize, reason: impl FnOnce() -> String) {
        let (counted, _) = self.rejected.get_or_insert_with(|| (0, reason()));
        *counted += count;
    }
}

/// An endpoint that gets requests, or is drained.
struct Candidate {
    found: Found,
    ip: IpAddr,
    /// The pod, if it is one.
    uid: Option<String>,
}

/// The backends of `slices`.
///
/// # Errors
/// Why it is unclear which port they use.
pub(super) fn list(slices: &BTreeMap<String, Slice>, port: Option<&Port>, family: Family) -> Result<Listed, String> {
    // Without endpoints, a slice has no ports either.
    let used: Vec<&Slice> = slices.values().filter(|slice| !slice.endpoints.is_empty()).collect();
    check_port(&used, port)?;
    let (mut listed, mut candidates) = (Listed::default(), Vec::new());
    for slice in used {
        let count = slice.endpoints.len();
        let name = &slice.metadata.name;
        let is_ipv4 = match slice.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            other => {
                listed.reject(count, || format!("the slice `{name}` has the address type `{other}`, not IPv4 or IPv6"));
                continue;
            }
        };
        if matches!((family, is_ipv4), (Family::Ipv4, false) | (Family::Ipv6, true)) {
            continue;
        }
        let Some(number) = tcp(slice).find(|found| port.is_none_or(|port| matches(found, port))).and_then(|p| p.port)
        else {
            let wanted = port.map_or_else(|| "TCP port".to_owned(), |port| format!("port `{port}`"));
            listed.reject(count, || format!("the slice `{name}` has no {wanted}"));
            continue;
        };
        for endpoint in &slice.endpoints {
            match candidate(endpoint, is_ipv4, number) {
                Ok(candidate) => candidates.extend(candidate),
                Err(reason) => listed.reject(1, || format!("the slice `{name}`: {reason}")),
            }
        }
    }
    listed.found = merge(candidates);
    Ok(listed)
}

/// Checks that `port` names a port of the slices, or that they have only one.
fn check_port(slices: &[&Slice], port: Option<&Port>) -> Result<(), String> {
    let all = || slices.iter().flat_map(|slice| tcp(slice));
    let names: BTreeSet<&str> = all().map(|port| port.name.as_str()).collect();
    let shown = || {
        let shown = all().map(|port| match (port.name.as_str(), port.port) {
            ("", number) => number.unwrap_or_default().to_string(),
            (name, _) => name.to_owned(),
        });
        shown.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    match port {
        Some(_) if slices.is_empty() => Ok(()),
        Some(port) if !all().any(|found| matches(found, port)) => {
            Err(format!("the service has no port `{port}`; its ports are: {}", shown()))
        }
        None if names.len() > 1 => Err(format!("the service has several ports; choose one with `port`: {}", shown())),
        _ => Ok(()),
    }
}

/// The ports of a slice that a backend can have.
fn tcp(slice: &Slice) -> impl Iterator<Item = &SlicePort> {
    slice.ports.iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP") && port.port.is_some())
}

fn matches(found: &SlicePort, port: &Port) -> bool {
    match port {
        Port::Number(number) => found.port == Some(*number),
        Port::Name(name) => found.name == *name,
    }
}

/// The backend of an endpoint. `None` if it is not ready.
fn candidate(endpoint: &Endpoint, is_ipv4: bool, port: u16) -> Result<Option<Candidate>, String> {
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let drain = !ready && conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false);
    if !ready && !drain {
        return Ok(None);
    }
    let text = endpoint.addresses.first().ok_or("an endpoint has no address")?;
    let ip: IpAddr = text.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
    if ip.is_ipv4() != is_ipv4 {
        return Err(format!("`{text}` is not of the slice's address type"));
    }
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
    let mut labels = BTreeMap::new();
    labels.extend(pod.map(|pod| ("pod".to_owned(), pod.name.clone())));
    labels.extend(endpoint.node_name.clone().map(|node| ("node".to_owned(), node)));
    let found = Found {
        drain,
        zone: endpoint.zone.as_ref().and_then(|zone| zone.parse::<Zone>().ok()),
        labels: Labels::try_from(labels).map_err(|e| e.to_string())?,
        ..Found::at(BackendAddress::Inet(SocketAddr::new(ip, port)))
    };
    let uid = pod.map(|pod| pod.uid.clone()).filter(|uid| !uid.is_empty());
    Ok(Some(Candidate { found, ip, uid }))
}

/// One backend for each address. An endpoint may be in two slices while Kubernetes moves it, in different states: then
/// it is ready. A pod with IPv4 and IPv6 addresses is one backend, with the former.
fn merge(candidates: Vec<Candidate>) -> Vec<Found> {
    let ipv4: BTreeSet<String> =
        candidates.iter().filter(|candidate| candidate.ip.is_ipv4()).filter_map(|one| one.uid.clone()).collect();
    let is_second = |one: &Candidate| one.ip.is_ipv6() && one.uid.as_ref().is_some_and(|uid| ipv4.contains(uid));
    let mut merged: BTreeMap<BackendAddress, Found> = BTreeMap::new();
    for candidate in candidates.into_iter().filter(|one| !is_second(one)) {
        let found = candidate.found;
        match merged.get(&found.address) {
            Some(known) if !known.drain || found.drain => {}
            _ => {
                merged.insert(found.address, found);
            }
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;

//! Warnings: valid but unwise settings. A file with warnings is used; `l7lb check --strict` rejects it.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::{Config, admin, listener, metrics};
use crate::base::backend_address::BackendAddress;
use crate::base::fault::{Fault, Faults, Place, nearest};
use crate::base::units::{Period, Zone};
use crate::cache::StoreKind;
use crate::cache::store::disk::check_folder;
use crate::discovery::Target;
use crate::discovery::config::Config as SourceConfig;
use crate::filter;
use crate::listener::address::ListenAddress;
use crate::listener::descriptors;
use crate::pool::peer::Protocol;
use crate::pool::{BackendConfig, health};
use crate::tls::certificates;

/// The usual keep-alive timeout of backends. A connection that is kept longer may be closed by the backend just
/// as a request is sent.
const USUAL_BACKEND_KEEPALIVE: Duration = Duration::from_secs(60);
/// A longer timeout has no practical effect.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// File descriptors that every process has: standard streams, logs, control and upgrade sockets, event queues.
const DESCRIPTORS_OF_THE_PROCESS: usize = 32;
/// Automatic renewal happens earlier than this before expiry.
const CERTIFICATE_NEAR_ITS_END: Duration = Duration::from_secs(21 * 24 * 3600);

/// The permission of other users to read a file.
const OTHERS_READ: u32 = 0o004;

/// Facts outside the file that warnings depend on.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The current time, for the expiry of certificates.
    pub now: SystemTime,
    /// The file descriptor limit, if known.
    pub descriptors: Option<u64>,
}

/// The warnings for a consistent configuration.
#[must_use]
pub fn warnings(config: &Config, circumstances: &Circumstances) -> Vec<Fault> {
    let mut found = Faults::default();
    let root = Place::root();
    listeners(config, &root.key("listeners"), circumstances.now, &mut found);
    if let Some(block) = &config.admin {
        admin(block, &root.key("admin"), circumstances.now, &mut found);
    }
    if let Some(block) = &config.metrics {
        metrics(block, &root.key("metrics"), &mut found);
    }
    trusted_networks(&config.trusted_proxies, &root.key("trusted_proxies"), &mut found);
    if let Some(limit) = circumstances.descriptors {
        connections(config, limit, &mut found);
        descriptors(config, limit, &mut found);
    }
    client_timeouts(config, &root.key("client_timeouts"), &mut found);
    for (index, name) in config.recent_requests.secrets() {
        found.add(
            root.key("recent_requests").key("headers").index(index),
            format!("`{name}` is a credential, and its values are kept in memory"),
            "remove it, unless `sticky` of a route uses it",
        );
    }
    pools(config, &root.key("pools"), &mut found);
    filter_timeouts(&config.filters, &root.key("filters"), &mut found);
    for (name, chain) in &config.chains {
        filter_timeouts(chain, &root.key("chains").key(name), &mut found);
    }
    zone(config, &root.key("server").key("zone"), &mut found);
    cache_folder(config, &root.key("cache").key("disk").key("path"), &mut found);
    for (index, route) in config.routes.iter().enumerate() {
        if let Some(prefix) = route.path_without_wildcard() {
            found.add(
                root.key("routes").index(index).key("path"),
                format!("`{}` matches only this character itself at the end: a path is a prefix", route.path),
                format!("write {prefix}, which matches {prefix} and everything below it"),
            );
        }
        let timeouts = [
            ("connect", route.timeouts.connect),
            ("first_byte", route.timeouts.first_byte),
            ("idle", route.timeouts.idle),
        ];
        endless(timeouts, &root.key("routes").index(index).key("timeouts"), &mut found);
        filter_timeouts(&route.filters, &root.key("routes").index(index).key("filters"), &mut found);
    }
    found.into_vec()
}

fn listeners(config: &Config, place: &Place, now: SystemTime, found: &mut Faults) {
    let any_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    let port = tls_port(config);
    for (index, listener) in config.listeners.iter().enumerate() {
        let place = place.index(index);
        filter_timeouts(&listener.filters, &place.key("filters"), found);
        let reachable = listener.addresses().any(is_reachable);
        if any_tls && listener.tls.is_none() && listener.redirect_to_https.is_none() && reachable {
            found.add(
                place.key("address"),
                "the same routes are served without TLS and can be intercepted",
                format!("add `redirect_to_https: {port}` here, or listen at 127.0.0.1"),
            );
        }
        if let Some(proxies) = &listener.proxy_protocol {
            trusted_networks(&proxies.trusted, &place.key("proxy_protocol").key("trusted"), found);
        }
        for (index, certificate) in listener.tls.iter().flat_map(|tls| tls.certificates.iter().enumerate()) {
            let place = place.key("tls").key("certificates").index(index).key("certificate");
            certificate_end(&certificate.certificate, &place, now, found);
        }
    }
}

/// Token files that other users can read, and certificates near their end.
fn admin(config: &admin::Config, place: &Place, now: SystemTime, found: &mut Faults) {
    for (index, token) in config.tokens.iter().enumerate() {
        if std::fs::metadata(&token.file).is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0) {
            found.add(
                place.key("tokens").index(index).key("file"),
                format!("every user of this machine can read {}", token.file.display()),
                format!("let only l7lb read it: `chmod 600 {}`", token.file.display()),
            );
        }
    }
    for (index, certificate) in config.tls.iter().flat_map(|tls| tls.certificates.iter().enumerate()) {
        let place = place.key("tls").key("certificates").index(index).key("certificate");
        certificate_end(&certificate.certificate, &place, now, found);
    }
}

/// Addresses at which other machines can read the metrics.
fn metrics(config: &metrics::Config, place: &Place, found: &mut Faults) {
    for (index, address) in config.reachable() {
        found.add(
            place.key("listen").index(index),
            format!("other machines can read names of routes, pools and backends at {address} without authentication"),
            "listen at 127.0.0.1, or let only Prometheus connect to this port",
        );
    }
}

/// The port of the first TLS listener with a port, probably the HTTPS port.
fn tls_port(config: &Config) -> u16 {
    let addresses = config.listeners.iter().filter(|listener| listener.tls.is_some()).flat_map(|l| l.addresses());
    let mut ports = addresses.filter_map(|address| match address {
        ListenAddress::Inet(inet) => Some(inet.port()),
        ListenAddress::Unix(_) => None,
    });
    ports.next().unwrap_or(443)
}

/// Whether other machines can reach a listener at this address.
fn is_reachable(address: ListenAddress) -> bool {
    matches!(address, ListenAddress::Inet(inet) if !inet.ip().is_loopback())
}

fn certificate_end(file: &Path, place: &Place, now: SystemTime, found: &mut Faults) {
    // A certificate that cannot be read is a fault and reported elsewhere.
    let Some(end) = certificates::expiry_of(file) else { return };
    let hint = "renew it; a new file is used within 2 s, without a restart";
    let date = humantime::format_rfc3339_seconds(end);
    match end.duration_since(now) {
        Err(_) => found.add(place.clone(), format!("the certificate has expired, at {date}"), hint),
        Ok(left) if left < CERTIFICATE_NEAR_ITS_END => {
            let days = left.as_secs() / (24 * 3600);
            found.add(place.clone(), format!("the certificate expires in {days} days, at {date}"), hint);
        }
        Ok(_) => {}
    }
}

fn trusted_networks(networks: &[IpNet], place: &Place, found: &mut Faults) {
    for (index, network) in networks.iter().enumerate() {
        if network.prefix_len() == 0 {
            found.add(
                place.index(index),
                format!("{network} contains every address, so every client can forge its address"),
                "list only the networks of the proxies in front of l7lb, such as 10.0.0.0/8",
            );
        }
    }
}

/// Client connections and requests in flight that the file descriptor limit does not allow.
fn connections(config: &Config, limit: u64, found: &mut Faults) {
    let enough_for = descriptors::connections_for(limit);
    let mut check = |place: Place, configured: Option<usize>, what: &str| {
        if let Some(configured) = configured.filter(|configured| *configured > enough_for) {
            found.add(
                place,
                format!("the file descriptor limit of {limit} allows only {enough_for} {what}"),
                format!(
                    "raise the limit (`LimitNOFILE=`, `ulimit -n`) to {}, or lower this value",
                    configured.saturating_mul(5) / 2
                ),
            );
        }
    };
    check(Place::root().key("connection_limits").key("total"), config.connection_limits.total, "connections");
    for (name, pool) in &config.pools {
        // Requests over HTTP/2 share connections.
        let total = pool.max_in_flight.and_then(|bound| bound.total).filter(|_| pool.protocol == Protocol::Http1);
        let place = Place::root().key("pools").key(name.as_str()).key("max_in_flight").key("total");
        check(place, total.and_then(|total| usize::try_from(total).ok()), "requests in flight over HTTP/1.1");
    }
}

/// Sockets that exist without clients: listeners, health checks, and an idle connection of each thread to each
/// backend. A fifth of the file descriptors is for them and for files.
fn descriptors(config: &Config, limit: u64, found: &mut Faults) {
    let threads = config.server.threads();
    let addresses: usize = config.listeners.iter().map(|listener| listener.address.texts().len()).sum();
    let backends: usize = config.pools.values().map(|pool| pool.backends.len()).sum();
    let needed = (addresses * threads + backends * (threads + 1) + DESCRIPTORS_OF_THE_PROCESS) as u64;
    let reserved = limit / 5;
    if needed > reserved {
        found.add(
            Place::root().key("pools"),
            format!(
                "{backends} backends, {addresses} listen addresses and {threads} threads need about {needed} file \
                 descriptors without clients, and the limit of {limit} reserves {reserved} for them"
            ),
            format!("raise the limit (`LimitNOFILE=`, `ulimit -n`) to {}, or use fewer `threads`", needed * 5),
        );
    }
}

fn client_timeouts(config: &Config, place: &Place, found: &mut Faults) {
    let timeouts = &config.client_timeouts;
    let all = [
        ("handshake", timeouts.handshake),
        ("header", timeouts.header),
        ("keepalive", timeouts.keepalive),
        ("body", timeouts.body),
        ("write", timeouts.write),
        ("tunnel", timeouts.tunnel),
    ];
    endless(all.map(|(key, period)| (key, Some(period))), place, found);
}

fn pools(config: &Config, place: &Place, found: &mut Faults) {
    for (name, pool) in &config.pools {
        let place = place.key(name.as_str());
        if pool.health_check.r#type == health::Type::None {
            found.add(
                place.key("health_check").key("type"),
                "no health check configured: requests are still sent to backends that are down",
                "write `type: tcp`, or `type: http` with a path",
            );
        }
        if pool.keepalive_timeout.0 > USUAL_BACKEND_KEEPALIVE {
            found.add(
                place.key("keepalive_timeout"),
                format!(
                    "{} is longer than the 60 s after which most backends close an idle connection",
                    pool.keepalive_timeout
                ),
                "use a shorter time than the backends, or they may close a connection as a request is sent (502)",
            );
        }
        sockets(&pool.backends, &place.key("backends"), found);
        if pool.tls.as_ref().is_some_and(|tls| !tls.verify) {
            found.add(
                place.key("tls").key("verify"),
                "the connection to the backend can be intercepted and modified",
                "set `ca` to the authority of the backends and remove `verify`",
            );
        }
        let timeouts = &pool.timeouts;
        let all = [("connect", timeouts.connect), ("first_byte", timeouts.first_byte), ("idle", timeouts.idle)];
        endless(all, &place.key("timeouts"), found);
    }
}

/// Reports a local zone in which no backend is or can be.
fn zone(config: &Config, place: &Place, found: &mut Faults) {
    let Some(local) = &config.server.zone else { return };
    let zones = config.pools.values().flat_map(|pool| &pool.backends).filter_map(|backend| backend.zone.as_ref());
    let zones: BTreeSet<&str> = zones.map(Zone::as_str).collect();
    let mut sources = config.pools.values().flat_map(|pool| &pool.discover);
    if zones.contains(local.as_str()) || sources.any(SourceConfig::knows_zones) {
        return;
    }
    let known = zones.iter().copied().collect::<Vec<_>>().join(", ");
    let hint = match nearest(local.as_str(), zones.iter().copied()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if known.is_empty() => "set `zone` of the backends, or remove this key".to_owned(),
        None => format!("the zones of the backends are {known}"),
    };
    found.add(place.clone(), format!("no backend is in the zone `{local}`, so no backend is preferred"), hint);
}

/// Reports a folder for the cache on disk that cannot be used, if a route uses it.
fn cache_folder(config: &Config, place: &Place, found: &mut Faults) {
    let is_used = config.routes.iter().flat_map(|route| &route.cache).any(|cache| cache.store == StoreKind::Disk);
    let folder = &config.cache.disk.path;
    if is_used && let Err(e) = check_folder(folder) {
        found.add(
            place.clone(),
            format!("the folder of the cache, {}, cannot be used: {e}", folder.display()),
            "write the path of a folder that l7lb may create or write to; check as the user that runs l7lb",
        );
    }
}

/// Reports Unix domain sockets that do not exist. A backend may create its socket later.
fn sockets(backends: &[BackendConfig], place: &Place, found: &mut Faults) {
    for (index, backend) in backends.iter().enumerate() {
        let Ok(Target::Address(BackendAddress::Unix(path))) = backend.address.parse() else { continue };
        if path.is_abstract() {
            continue;
        }
        let (problem, hint) = match std::fs::metadata(path.as_str()) {
            Ok(file) if file.file_type().is_socket() => continue,
            Ok(_) => (format!("{path} is not a socket"), "write the path at which the backend listens"),
            Err(e) => (
                format!("there is no socket at {path}: {e}"),
                "start the backend, or correct the path; l7lb needs write permission for the socket",
            ),
        };
        found.add(place.index(index).key("address"), problem, hint);
    }
}

fn filter_timeouts(filters: &[filter::config::Config], place: &Place, found: &mut Faults) {
    for (index, timeouts) in filters.iter().enumerate().filter_map(|(index, filter)| Some((index, filter.timeout?))) {
        let of_steps = [("connect", timeouts.connect), ("first_byte", timeouts.first_byte), ("idle", timeouts.idle)];
        endless(of_steps, &place.index(index).key("timeout"), found);
    }
}

/// Reports timeouts that are too long to have an effect.
fn endless(timeouts: impl IntoIterator<Item = (&'static str, Option<Period>)>, place: &Place, found: &mut Faults) {
    for (key, period) in timeouts {
        if let Some(period) = period.filter(|period| period.0 > TIMEOUT_MAX) {
            found.add(
                place.key(key),
                format!("{period} is too long to be useful as a timeout"),
                "write a time that a client would wait, or remove the key",
            );
        }
    }
}

impl listener::Config {
    /// The addresses that can be parsed.
    fn addresses(&self) -> impl Iterator<Item = ListenAddress> {
        self.address.texts().iter().filter_map(|text| text.parse().ok())
    }
}

#[cfg(test)]
#[path = "warnings_tests.rs"]
mod tests;

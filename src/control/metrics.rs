//! Collects the metrics of the process: the counters of workers, and the state of pools, caches and files.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::reload::RuntimeState;
use crate::cache::{Outcome, StoreKind};
use crate::decision::snapshot::Snapshot;
use crate::observe::OperatorLog;
use crate::observe::metrics::exposition::Exposition;
use crate::observe::metrics::families;
use crate::pool::{Endpoint, Health, Pool};

/// The interval of dropping counters of what no longer exists.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// All metrics at this moment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a scrape describes the state at this moment")]
pub fn collect(live: &RuntimeState, log: &OperatorLog) -> Exposition {
    let snapshot = live.snapshot.load_full();
    let mut out = Exposition::default();
    live.metrics.write(&mut out);
    let now = Instant::now();
    for pool in snapshot.pools.values() {
        of_pool(pool, now, &mut out);
    }
    of_caches(&snapshot, &mut out);
    of_certificates(live, &mut out);
    for (event, count) in log.event_counts() {
        out.counter(&families::EVENTS, &[&event], count);
        match event.as_str() {
            "config_reloaded" => out.counter(&families::RELOADS, &["applied"], count),
            "config_rejected" => out.counter(&families::RELOADS, &["rejected"], count),
            _ => {}
        }
    }
    for result in ["applied", "rejected"] {
        // A series that begins with its first reload would hide that reload from `increase`.
        out.counter(&families::RELOADS, &[result], 0);
    }
    out.gauge(&families::RELOADED, &[], unix_seconds(live.active.load().applied.0));
    let lost = live.access_log.lock().as_ref().map_or(0, |access_log| access_log.lost());
    out.counter(&families::ACCESS_LOG_LOST, &[], lost);
    out
}

fn of_pool(pool: &Pool, now: Instant, out: &mut Exposition) {
    let name = pool.name().as_str();
    let backends = pool.backends();
    let available = backends.iter().filter(|found| found.endpoint.may_get_requests(now)).count();
    out.gauge(&families::POOL_BACKENDS, &[name], backends.len());
    out.gauge(&families::POOL_AVAILABLE, &[name], available);
    out.gauge(&families::POOL_IN_FLIGHT, &[name], pool.in_flight());
    out.gauge(&families::POOL_RETRY_BUDGET, &[name], pool.budget().left(now));
    if let Some(queued) = pool.queued_requests() {
        out.gauge(&families::POOL_QUEUED, &[name], queued);
    }
    if let Some(limit) = pool.adaptive_limit() {
        out.gauge(&families::POOL_LIMIT, &[name], limit);
    }
    for found in &backends {
        of_backend(pool, &found.endpoint, now, out);
    }
    for kept in pool.sources().iter() {
        let status = kept.status();
        let labels = [name, &kept.name().to_string()];
        out.gauge(&families::SOURCE_BACKENDS, &labels, kept.current().len());
        out.gauge(&families::SOURCE_UP, &labels, status.failure.is_none());
        if let Some(listed) = status.listed {
            out.gauge(&families::SOURCE_LISTED, &labels, unix_seconds(listed.0));
        }
    }
}

fn of_backend(pool: &Pool, endpoint: &Endpoint, now: Instant, out: &mut Exposition) {
    let labels = [pool.name().as_str(), endpoint.address_text()];
    out.gauge(&families::BACKEND_UP, &labels, endpoint.health() == Health::Up);
    out.gauge(&families::BACKEND_AVAILABLE, &labels, endpoint.may_get_requests(now));
    out.gauge(&families::BACKEND_EJECTED, &labels, endpoint.passive_health().is_ejected());
    if let Some(circuit) = endpoint.circuit() {
        out.gauge(&families::BACKEND_CIRCUIT_OPEN, &labels, circuit.is_open(now));
    }
    out.gauge(&families::BACKEND_IN_FLIGHT, &labels, endpoint.in_flight());
    let latency = endpoint.latency(now);
    if !latency.is_zero() {
        out.gauge(&families::BACKEND_LATENCY, &labels, latency.as_secs_f64());
    }
    let weight = f64::from(endpoint.weight()) * endpoint.slow_start_factor(now, pool.spec().slow_start);
    out.gauge(&families::BACKEND_WEIGHT, &labels, weight);
}

fn of_caches(snapshot: &Snapshot, out: &mut Exposition) {
    for cache in snapshot.routes.iter().filter_map(|(_, route)| route.cache.as_deref()) {
        for outcome in Outcome::ALL {
            let count = cache.counters.get(outcome);
            out.counter(&families::CACHE_REQUESTS, &[cache.name.as_str(), outcome.as_str()], count);
        }
    }
    for kind in StoreKind::ALL {
        if let Some(cache) = snapshot.caches.get(kind) {
            out.gauge(&families::CACHE_STORED, &[kind.as_str()], cache.stats().bytes);
        }
    }
}

fn of_certificates(live: &RuntimeState, out: &mut Exposition) {
    for terminator in &*live.terminators {
        for certificate in terminator.certificates() {
            let name = certificate.names().first().map_or("", String::as_str);
            let labels = [terminator.listener(), name];
            out.gauge(&families::CERTIFICATE_EXPIRY, &labels, unix_seconds(certificate.expires()));
        }
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Drops the counters of routes, pools and backends that no longer exist.
fn prune(live: &RuntimeState) {
    let snapshot = live.snapshot.load_full();
    let mut routes = HashSet::new();
    for (_, route) in snapshot.routes.iter() {
        let name = route.name.as_str();
        routes.insert((name, ""));
        routes.extend(route.targets.iter().map(|target| (name, target.pool.name().as_str())));
    }
    let listed: Vec<(&str, Vec<_>)> =
        snapshot.pools.values().map(|pool| (pool.name().as_str(), pool.backends())).collect();
    let backends: HashSet<(&str, &str)> = listed
        .iter()
        .flat_map(|(pool, backends)| backends.iter().map(move |found| (*pool, found.endpoint.address_text())))
        .collect();
    live.metrics
        .retain(|route, pool| routes.contains(&(route, pool)), |pool, backend| backends.contains(&(pool, backend)));
}

/// Drops the counters of what no longer exists, from time to time.
pub(super) async fn keep(live: &RuntimeState) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        prune(live);
    }
}

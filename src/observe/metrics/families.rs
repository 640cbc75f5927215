//! All metric families: their names, labels and descriptions. This is the only file with names of metrics.
//!
//! Label values come from the configuration and from closed lists, never from requests, so clients cannot create series.
//! docs/metrics.md lists the families; a test compares it with this file.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only rises.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// The distribution of durations.
    Histogram,
}

impl Kind {
    /// The type in the formats of Prometheus.
    pub(super) fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }

    /// The type as a word, for the documentation.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The unit of a family, which is part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// Its name without `l7lb_`, unit and `_total`.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Its unit.
    pub measure: Measure,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its description: one sentence without a full stop.
    pub help: &'static str,
}

impl Family {
    /// The unit in the formats of Prometheus.
    pub(super) fn unit(&self) -> Option<Unit> {
        match self.measure {
            Measure::Count => None,
            Measure::Seconds => Some(Unit::Seconds),
            Measure::Bytes => Some(Unit::Bytes),
        }
    }

    /// The name of its series, as in queries.
    #[must_use]
    pub fn full_name(&self) -> String {
        let unit = match self.measure {
            Measure::Count => "",
            Measure::Seconds => "_seconds",
            Measure::Bytes => "_bytes",
        };
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{PREFIX}_{}{unit}{suffix}", self.name)
    }
}

/// The first word of all names.
pub const PREFIX: &str = "l7lb";

/// Declares the families and the list of all of them.
macro_rules! families {
    ($($constant:ident = $name:literal, $kind:ident, $measure:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                measure: Measure::$measure,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All families, in the order of the output.
        pub const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD = "build_info", Gauge, Count, ["version"], "Always 1; the version is a label";
    REQUESTS = "requests", Counter, Count, ["listener", "route", "pool", "method", "status", "cause"],
        "Requests whose access log line was written";
    REQUEST_DURATION = "request_duration", Histogram, Seconds, ["route", "pool"],
        "Time from the arrival of a request to the end of its response";
    OVERHEAD = "overhead", Histogram, Seconds, ["route", "pool"],
        "Time from the arrival of a request to the choice of its first backend, without the wait in the queue";
    QUEUE_WAIT = "queue_wait", Histogram, Seconds, ["route", "pool"],
        "Time that a request waited in the queue of its pool";
    UPSTREAM_FIRST_BYTE = "upstream_first_byte", Histogram, Seconds, ["route", "pool"],
        "Time from the choice of a backend to the header of its response";
    UPSTREAM_CONNECT = "upstream_connect", Histogram, Seconds, ["route", "pool"],
        "Time in which a new connection to a backend was established, including TLS";
    RECEIVED = "received", Counter, Bytes, ["listener", "route", "pool"], "Bytes of request bodies";
    SENT = "sent", Counter, Bytes, ["listener", "route", "pool"], "Bytes of response bodies";
    ATTEMPTS = "attempts", Counter, Count, ["pool", "backend", "outcome"],
        "Attempts at backends: the status class of the response, or the cause of the failure";
    CONNECTIONS = "connections", Counter, Count, ["listener"], "Accepted client connections";
    CONNECTIONS_OPEN = "connections_open", Gauge, Count, ["listener"], "Open client connections";
    CONNECTIONS_REJECTED = "connections_rejected", Counter, Count, ["listener", "cause"],
        "Client connections closed before a request";
    TLS_HANDSHAKES = "tls_handshakes", Counter, Count, ["listener", "version", "resumed"],
        "Completed TLS handshakes of clients";
    LOOP_LAG = "event_loop_lag", Gauge, Seconds, ["worker"],
        "The largest delay of a timer in the last 10 to 20 seconds, by which a worker is late for its events";
    POOL_BACKENDS = "pool_backends", Gauge, Count, ["pool"], "Backends of a pool";
    POOL_AVAILABLE = "pool_available_backends", Gauge, Count, ["pool"], "Backends of a pool that may get requests";
    POOL_IN_FLIGHT = "pool_requests_in_flight", Gauge, Count, ["pool"], "Requests in flight at a pool";
    POOL_QUEUED = "pool_requests_queued", Gauge, Count, ["pool"], "Requests in the queue of a pool";
    POOL_RETRY_BUDGET = "pool_retry_budget", Gauge, Count, ["pool"], "Retries that the budget of a pool allows now";
    POOL_LIMIT = "pool_adaptive_limit", Gauge, Count, ["pool"], "The adaptive limit of requests in flight at a pool";
    BACKEND_UP = "backend_up", Gauge, Count, ["pool", "backend"], "1 if a backend passes its health checks, otherwise 0";
    BACKEND_AVAILABLE = "backend_available", Gauge, Count, ["pool", "backend"],
        "1 if a backend may get requests, otherwise 0";
    BACKEND_EJECTED = "backend_ejected", Gauge, Count, ["pool", "backend"], "1 if a backend is ejected, otherwise 0";
    BACKEND_CIRCUIT_OPEN = "backend_circuit_open", Gauge, Count, ["pool", "backend"],
        "1 if the circuit breaker of a backend is open, otherwise 0";
    BACKEND_IN_FLIGHT = "backend_requests_in_flight", Gauge, Count, ["pool", "backend"],
        "Requests in flight at a backend";
    BACKEND_LATENCY = "backend_latency", Gauge, Seconds, ["pool", "backend"],
        "The recent latency of a backend: a moving average that rises quickly to peaks";
    BACKEND_WEIGHT = "backend_weight", Gauge, Count, ["pool", "backend"],
        "The weight of a backend, reduced during slow start";
    SOURCE_BACKENDS = "discovery_backends", Gauge, Count, ["pool", "source"], "Backends that a source lists";
    SOURCE_UP = "discovery_up", Gauge, Count, ["pool", "source"], "1 if a source of backends responds, otherwise 0";
    SOURCE_LISTED = "discovery_listed_timestamp", Gauge, Seconds, ["pool", "source"],
        "When a source last returned a list, in Unix time";
    CACHE_REQUESTS = "cache_requests", Counter, Count, ["route", "result"], "Requests on routes with a cache, by result";
    CACHE_STORED = "cache_stored", Gauge, Bytes, ["store"], "Bytes of stored responses";
    CERTIFICATE_EXPIRY = "certificate_expiry_timestamp", Gauge, Seconds, ["listener", "name"],
        "When a certificate expires, in Unix time";
    RELOADS = "reloads", Counter, Count, ["result"], "Reloads of the configuration";
    RELOADED = "reload_success_timestamp", Gauge, Seconds, [], "When the active configuration took effect, in Unix time";
    EVENTS = "events", Counter, Count, ["event"], "Events, as in `l7lb events`";
    ACCESS_LOG_LOST = "access_log_lines_lost", Counter, Count, [], "Lines of the access log that could not be written";
    PROCESS_START = "process_start_time", Gauge, Seconds, [], "When the process started, in Unix time";
    PROCESS_CPU = "process_cpu", Counter, Seconds, [], "CPU time of the process";
    PROCESS_MEMORY = "process_resident_memory", Gauge, Bytes, [], "Resident memory of the process";
    PROCESS_DESCRIPTORS = "process_open_descriptors", Gauge, Count, [], "Open file descriptors of the process";
    PROCESS_DESCRIPTORS_MAX = "process_max_descriptors", Gauge, Count, [], "The limit of open file descriptors";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn metrics_page_lists_exactly_the_families() {
        let page = include_str!("../../../docs/metrics.md");
        let rows: BTreeSet<&str> = page.lines().filter(|line| line.starts_with("| `l7lb_")).collect();
        let row = |family: &&Family| {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", family.full_name(), family.kind.word(), labels.join(", "), family.help)
        };
        let wanted: Vec<String> = ALL.iter().map(row).collect();
        let missing: Vec<&String> = wanted.iter().filter(|row| !rows.contains(row.as_str())).collect();
        assert!(missing.is_empty(), "add these rows to docs/metrics.md: {missing:#?}");
        assert_eq!(rows.len(), wanted.len(), "docs/metrics.md has a family that does not exist");
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for family in ALL {
            assert!(names.insert(family.full_name()), "{} is there twice", family.name);
            assert!(family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", family.name);
            assert!(!family.name.ends_with("_total") && !family.help.ends_with('.'), "{}", family.name);
            assert!(family.kind != Kind::Histogram || family.measure == Measure::Seconds, "{}", family.name);
        }
    }
}

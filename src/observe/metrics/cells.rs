//! The counters of one worker. Its thread alone writes them, so they need no atomic operations.

use std::hash::Hash;
use std::time::Duration;

use ahash::RandomState;
use hashbrown::{Equivalent, HashMap};

use super::histogram::Histogram;
use super::slowest::Slowest;
use crate::observe::record::Record;

/// The method in a label: clients cannot create values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MethodLabel(pub(super) &'static str);

impl MethodLabel {
    /// The label of a method.
    #[must_use]
    pub(super) fn of(method: &str) -> Self {
        const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
        Self(KNOWN.iter().find(|known| **known == method).copied().unwrap_or("other"))
    }
}

/// The status class in a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StatusLabel(pub(super) &'static str);

impl StatusLabel {
    /// The label of a status code; 0 stands for no response.
    #[must_use]
    pub(super) fn of(status: u16) -> Self {
        Self(match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "none",
        })
    }
}

/// An attempt at a backend.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The address of the backend.
    pub backend: &'a str,
    /// The status class or the cause of the failure.
    pub outcome: &'static str,
}

/// A finished request.
#[derive(Clone, Debug, Default)]
pub struct Finished<'a> {
    /// The name of its listener.
    pub listener: &'a str,
    /// Its route; empty without one.
    pub route: &'a str,
    /// Its pool; empty without one.
    pub pool: &'a str,
    /// Its method.
    pub method: &'a str,
    /// The status code of the response; 0 without one.
    pub status: u16,
    /// The cause of a rejection or failure; empty otherwise.
    pub cause: &'static str,
    /// From its arrival to the end of the response.
    pub duration: Duration,
    /// From its arrival to the choice of its first backend, without the wait in the queue; `None` without a backend.
    pub overhead: Option<Duration>,
    /// The wait in the queue; `None` if it did not wait.
    pub queued: Option<Duration>,
    /// From the choice of the backend to the header of its response.
    pub first_byte: Option<Duration>,
    /// The time in which a new connection was established.
    pub connect: Option<Duration>,
    /// Bytes of the request body.
    pub received: u64,
    /// Bytes of the response body.
    pub sent: u64,
}

impl<'a> Finished<'a> {
    /// What the access log line says of a request at `listener`.
    #[must_use]
    pub fn of(listener: &'a str, record: &Record<'a>) -> Self {
        Self {
            listener,
            route: record.route.unwrap_or_default(),
            pool: record.pool.unwrap_or_default(),
            method: record.method,
            status: record.status,
            cause: record.cause_text(),
            duration: record.latency,
            first_byte: record.upstream_latency,
            sent: record.bytes,
            ..Self::default()
        }
    }
}

/// What identifies the cells of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RouteKey {
    pub(super) listener: Box<str>,
    pub(super) route: Box<str>,
    pub(super) pool: Box<str>,
}

/// A [`RouteKey`] whose names are borrowed. It has the same hash: both hash the texts in this order.
#[derive(Hash)]
struct RouteKeyRef<'a> {
    listener: &'a str,
    route: &'a str,
    pool: &'a str,
}

impl<'a> From<&RouteKeyRef<'a>> for RouteKey {
    fn from(key: &RouteKeyRef<'a>) -> Self {
        Self { listener: key.listener.into(), route: key.route.into(), pool: key.pool.into() }
    }
}

impl Equivalent<RouteKey> for RouteKeyRef<'_> {
    fn equivalent(&self, key: &RouteKey) -> bool {
        *self.route == *key.route && *self.pool == *key.pool && *self.listener == *key.listener
    }
}

/// How many requests had this outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) method: MethodLabel,
    pub(super) status: StatusLabel,
    pub(super) cause: &'static str,
    pub(super) count: u64,
}

/// The counters of a route.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCells {
    pub(super) outcomes: Vec<Outcomes>,
    pub(super) duration: Histogram,
    pub(super) overhead: Histogram,
    pub(super) queued: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) connect: Histogram,
    pub(super) received: u64,
    pub(super) sent: u64,
    slowest: Slowest,
}

impl RouteCells {
    fn count(&mut self, method: MethodLabel, status: StatusLabel, cause: &'static str, more: u64) {
        let known = self
            .outcomes
            .iter_mut()
            .find(|known| known.status == status && known.method == method && known.cause == cause);
        match known {
            Some(known) => known.count += more,
            None => self.outcomes.push(Outcomes { method, status, cause, count: more }),
        }
    }

    /// Returns whether the request belongs to the slowest 1 %.
    fn finished(&mut self, request: &Finished<'_>) -> bool {
        self.count(MethodLabel::of(request.method), StatusLabel::of(request.status), request.cause, 1);
        self.duration.observe(request.duration);
        for (histogram, duration) in [
            (&mut self.overhead, request.overhead),
            (&mut self.queued, request.queued),
            (&mut self.first_byte, request.first_byte),
            (&mut self.connect, request.connect),
        ] {
            if let Some(duration) = duration {
                histogram.observe(duration);
            }
        }
        self.received += request.received;
        self.sent += request.sent;
        self.slowest.note(request.duration)
    }

    /// Adds the counts of another worker.
    pub(super) fn add(&mut self, other: &Self) {
        for outcome in &other.outcomes {
            self.count(outcome.method, outcome.status, outcome.cause, outcome.count);
        }
        self.duration.add(&other.duration);
        self.overhead.add(&other.overhead);
        self.queued.add(&other.queued);
        self.first_byte.add(&other.first_byte);
        self.connect.add(&other.connect);
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What identifies the cells of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BackendKey {
    pub(super) pool: Box<str>,
    pub(super) backend: Box<str>,
}

/// A [`BackendKey`] whose names are borrowed.
#[derive(Hash)]
struct BackendKeyRef<'a> {
    pool: &'a str,
    backend: &'a str,
}

impl From<&BackendKeyRef<'_>> for BackendKey {
    fn from(key: &BackendKeyRef<'_>) -> Self {
        Self { pool: key.pool.into(), backend: key.backend.into() }
    }
}

impl Equivalent<BackendKey> for BackendKeyRef<'_> {
    fn equivalent(&self, key: &BackendKey) -> bool {
        *self.backend == *key.backend && *self.pool == *key.pool
    }
}

/// The attempts at a backend by outcome.
pub(super) type BackendCells = Vec<(&'static str, u64)>;

/// Adds to the count of `key`. The keys are few.
pub(super) fn count<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, more: u64) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += more,
        None => counts.push((key, more)),
    }
}

/// The counters of a listener.
#[derive(Clone, Debug, Default)]
pub(super) struct ListenerCells {
    pub(super) accepted: u64,
    pub(super) closed: u64,
    pub(super) rejected: Vec<(&'static str, u64)>,
    /// By version and resumption.
    pub(super) handshakes: Vec<((&'static str, bool), u64)>,
}

impl ListenerCells {
    /// Adds the counts of another worker.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.closed += other.closed;
        for (cause, more) in &other.rejected {
            count(&mut self.rejected, *cause, *more);
        }
        for (handshake, more) in &other.handshakes {
            count(&mut self.handshakes, *handshake, *more);
        }
    }
}

/// Changes the counters of `key`, which is copied only if there are none yet.
fn update<K, Q, V, T>(map: &mut HashMap<K, V, RandomState>, key: &Q, change: impl FnOnce(&mut V) -> T) -> T
where
    K: Eq + Hash + for<'a> From<&'a Q>,
    Q: Hash + Equivalent<K> + ?Sized,
    V: Default,
{
    match map.get_mut(key) {
        Some(cells) => change(cells),
        None => change(map.entry(K::from(key)).or_default()),
    }
}

/// All counters of a thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    pub(super) routes: HashMap<RouteKey, RouteCells, RandomState>,
    pub(super) backends: HashMap<BackendKey, BackendCells, RandomState>,
    pub(super) listeners: HashMap<Box<str>, ListenerCells, RandomState>,
}

impl Cells {
    /// Counts a finished request and its attempts. Returns whether it belongs to the slowest 1 % of its route.
    pub(super) fn finished<'a>(&mut self, request: &Finished<'_>, attempts: impl Iterator<Item = Attempt<'a>>) -> bool {
        let Finished { listener, route, pool, .. } = *request;
        let slow = update(&mut self.routes, &RouteKeyRef { listener, route, pool }, |cells| cells.finished(request));
        for Attempt { backend, outcome } in attempts {
            update(&mut self.backends, &BackendKeyRef { pool, backend }, |cells| count(cells, outcome, 1));
        }
        slow
    }

    /// Changes the counters of a listener.
    pub(super) fn listener(&mut self, name: &str, change: impl FnOnce(&mut ListenerCells)) {
        update(&mut self.listeners, name, change);
    }

    /// Adds the counts of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        for (key, cells) in &other.routes {
            match self.routes.get_mut(key) {
                Some(known) => known.add(cells),
                None => drop(self.routes.insert(key.clone(), cells.clone())),
            }
        }
        for (key, cells) in &other.backends {
            let known = self.backends.entry(key.clone()).or_default();
            for (outcome, more) in cells {
                count(known, *outcome, *more);
            }
        }
        for (name, cells) in &other.listeners {
            self.listeners.entry(name.clone()).or_default().add(cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(route: &'a str, status: u16, cause: &'static str) -> Finished<'a> {
        Finished { listener: "web", route, pool: "api", method: "GET", status, cause, sent: 10, ..Finished::default() }
    }

    #[test]
    fn requests_are_counted_by_names_and_outcome() {
        let mut cells = Cells::default();
        for _ in 0..3 {
            cells.finished(&request("a", 200, ""), [Attempt { backend: "b:1", outcome: "2xx" }].into_iter());
        }
        cells.finished(&request("a", 503, "queue_full"), std::iter::empty());
        cells.finished(&request("b", 200, ""), [Attempt { backend: "b:1", outcome: "2xx" }].into_iter());
        let mut all = cells.clone();
        all.add(&cells);
        let key = RouteKeyRef { listener: "web", route: "a", pool: "api" };
        let route = all.routes.get(&key).unwrap();
        let counts: Vec<_> = route.outcomes.iter().map(|found| (found.status.0, found.cause, found.count)).collect();
        assert_eq!(counts, [("2xx", "", 6), ("5xx", "queue_full", 2)]);
        assert_eq!((route.sent, route.duration.count(), route.queued.count()), (80, 8, 0));
        let backend = all.backends.get(&BackendKeyRef { pool: "api", backend: "b:1" }).unwrap();
        assert_eq!(*backend, [("2xx", 8)]);
        assert_eq!(all.routes.len(), 2);
    }

    #[test]
    fn clients_cannot_create_methods_or_statuses() {
        assert_eq!(MethodLabel::of("BREW").0, "other");
        assert_eq!(MethodLabel::of("get").0, "other");
        assert_eq!(MethodLabel::of("GET").0, "GET");
        assert_eq!((StatusLabel::of(999).0, StatusLabel::of(0).0, StatusLabel::of(418).0), ("none", "none", "4xx"));
    }
}

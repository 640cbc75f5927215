//! Counters of requests, connections and attempts, in the formats of Prometheus.
//!
//! Each thread of a worker has its own counters, behind a lock that otherwise only a scrape takes, so workers do not
//! contend. A scrape adds them up. Series of routes, pools and backends that no longer exist are dropped
//! ([`Metrics::retain`]), so that backends which come and go need no memory.
//!
//! - [`families`]: the names. [`cells`]: the counters of a thread. [`histogram`]: durations.
//! - [`exposition`]: samples as text. [`process`]: figures of the process.

mod cells;
pub mod exposition;
pub mod families;
mod histogram;
mod lag;
mod process;
mod slowest;

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::per_thread::PerThread;
use crate::base::cause::Cause;

pub use cells::{Attempt, Finished};
use cells::{Cells, ListenerCells, StatusLabel};
use exposition::Exposition;
pub use histogram::Histogram;
pub use lag::Lag;

/// The counters of all workers. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Metrics {
    started: SystemTime,
    workers: Arc<Mutex<Vec<WorkerMetrics>>>,
}

/// The counters of one worker. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct WorkerMetrics {
    threads: PerThread<Cells>,
    lag: Arc<Lag>,
}

/// An open connection of a client. Dropping it counts the end.
pub struct CountedConnection {
    metrics: WorkerMetrics,
    listener: Arc<str>,
}

impl Metrics {
    /// Without workers, in a process that started at `started`.
    #[must_use]
    pub fn new(started: SystemTime) -> Self {
        Self { started, workers: Arc::default() }
    }

    /// The counters of a new worker with this number of threads.
    #[must_use]
    pub fn worker(&self, threads: usize) -> WorkerMetrics {
        let worker = WorkerMetrics { threads: PerThread::new(threads), lag: Arc::default() };
        self.workers.lock().push(worker.clone());
        worker
    }

    /// Writes the sums of all workers, and the figures of the process.
    pub fn write(&self, out: &mut Exposition) {
        let workers = self.workers.lock().clone();
        let mut sum = Cells::default();
        for cells in workers.iter().flat_map(|worker| worker.threads.iter()) {
            // A copy, so that the thread waits for no more than the copy.
            let copy = Cells::clone(&cells);
            drop(cells);
            sum.add(&copy);
        }
        write_routes(&sum, out);
        write_backends(&sum, out);
        write_listeners(&sum, out);
        process::write(self.started, out);
        for (index, worker) in workers.iter().enumerate() {
            out.gauge(&families::LOOP_LAG, &[&index.to_string()], worker.lag.largest().as_secs_f64());
        }
    }

    /// Drops the counters of what no longer exists: `has_route` is asked for names of routes and pools, `has_backend` for
    /// names of pools and backends.
    pub fn retain(&self, has_route: impl Fn(&str, &str) -> bool, has_backend: impl Fn(&str, &str) -> bool) {
        for mut cells in self.workers.lock().iter().flat_map(|worker| worker.threads.iter()) {
            cells.routes.retain(|key, _| key.route.is_empty() || has_route(&key.route, &key.pool));
            cells.backends.retain(|key, _| has_backend(&key.pool, &key.backend));
        }
    }
}

impl WorkerMetrics {
    /// Counts a finished request and its attempts. Returns whether it belongs to the slowest 1 % of its route.
    pub fn finished<'a>(&self, request: &Finished<'_>, attempts: impl Iterator<Item = Attempt<'a>>) -> bool {
        self.change(|cells| cells.finished(request, attempts)).unwrap_or_default()
    }

    /// Counts a connection of a client, until the result is dropped.
    #[must_use]
    pub fn connection(&self, listener: &Arc<str>) -> CountedConnection {
        self.change(|cells| cells.listener(listener, |cells| cells.accepted += 1));
        CountedConnection { metrics: self.clone(), listener: Arc::clone(listener) }
    }

    /// The delays of the event loop.
    #[must_use]
    pub fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    /// Changes the counters of a thread.
    fn change<T>(&self, change: impl FnOnce(&mut Cells) -> T) -> Option<T> {
        self.threads.free().map(|mut cells| change(&mut cells))
    }
}

impl CountedConnection {
    /// Counts that it was closed before a request.
    pub fn rejected(&self, cause: Cause) {
        self.change(|cells| cells::count(&mut cells.rejected, cause.as_str(), 1));
    }

    /// Counts a completed TLS handshake.
    pub fn handshake(&self, version: &'static str, resumed: bool) {
        self.change(|cells| cells::count(&mut cells.handshakes, (version, resumed), 1));
    }

    fn change(&self, change: impl FnOnce(&mut ListenerCells)) {
        self.metrics.change(|cells| cells.listener(&self.listener, change));
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.change(|cells| cells.closed += 1);
    }
}

/// The status class of a response, as a label of attempts.
#[must_use]
pub fn status_class(status: u16) -> &'static str {
    StatusLabel::of(status).0
}

fn write_routes(sum: &Cells, out: &mut Exposition) {
    for (key, cells) in &sum.routes {
        let (listener, route, pool) = (&*key.listener, &*key.route, &*key.pool);
        for found in &cells.outcomes {
            let labels = [listener, route, pool, found.method.0, found.status.0, found.cause];
            out.counter(&families::REQUESTS, &labels, found.count);
        }
        out.counter(&families::RECEIVED, &[listener, route, pool], cells.received);
        out.counter(&families::SENT, &[listener, route, pool], cells.sent);
        for (family, histogram) in [
            (&families::REQUEST_DURATION, &cells.duration),
            (&families::OVERHEAD, &cells.overhead),
            (&families::QUEUE_WAIT, &cells.queued),
            (&families::UPSTREAM_FIRST_BYTE, &cells.first_byte),
            (&families::UPSTREAM_CONNECT, &cells.connect),
        ] {
            // Listeners share a series.
            out.histogram(family, &[route, pool], histogram);
        }
    }
}

fn write_backends(sum: &Cells, out: &mut Exposition) {
    for (key, cells) in &sum.backends {
        for (outcome, count) in cells {
            out.counter(&families::ATTEMPTS, &[&key.pool, &key.backend, outcome], *count);
        }
    }
}

fn write_listeners(sum: &Cells, out: &mut Exposition) {
    for (listener, cells) in &sum.listeners {
        out.counter(&families::CONNECTIONS, &[listener], cells.accepted);
        out.gauge(&families::CONNECTIONS_OPEN, &[listener], cells.accepted.saturating_sub(cells.closed));
        for (cause, count) in &cells.rejected {
            out.counter(&families::CONNECTIONS_REJECTED, &[listener, cause], *count);
        }
        for ((version, resumed), count) in &cells.handshakes {
            let resumed = if *resumed { "true" } else { "false" };
            out.counter(&families::TLS_HANDSHAKES, &[listener, version, resumed], *count);
        }
    }
}
